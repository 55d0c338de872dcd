"""Configs of command lines, composed by Hydra's own steps: each file is read once, each choice of options made once.

`python -m speed.run` composes one config and takes half a second for it, half of that for Hydra's settings of itself.
Tests compose hundreds, most of which differ in single values, which Hydra sets after it has composed the options.
"""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

from conftest import ROOT
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository
from hydra._internal.defaults_list import create_defaults_list
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from speed.run import CONF

SWEEPS = f"hydra.searchpath=[file://{ROOT / 'sweeps'}]"
"""What `--config-dir sweeps` stands for."""


def parsed(*overrides: str) -> list[Any]:
    """Overrides as Hydra reads them."""
    found: list[Any] = OverridesParser.create().parse_overrides(list(overrides))
    return found


class Files(CachingConfigRepository):
    """The files of conf/, each read once."""

    def load_config(self, config_path: str) -> Any:
        """A file; of a config on top a copy, since Hydra merges options into the first that it loads."""
        found = super().load_config(config_path)
        return found if "/" in config_path else copy.deepcopy(found)


class Composer:
    """Hydra's loader, kept between compositions."""

    def __init__(self) -> None:
        with initialize_config_dir(CONF, version_base="1.3"):
            self._loader: Any = GlobalHydra.instance().config_loader()
        self._files = Files(self._loader.repository)
        self._loader._process_config_searchpath("config", parsed(SWEEPS), self._files)
        self._chosen = cache(self._choose)

    def __call__(self, overrides: tuple[str, ...], config: str = "config") -> DictConfig:
        """The config of a command line, without Hydra's settings of itself; for reading only, since calls share it."""
        options, values = [], []
        for override in parsed(*overrides):
            (options if self._files.group_exists(override.key_or_group) else values).append(override)
        chosen = self._chosen(config, tuple(option.input_line for option in options))
        if not values:
            return chosen
        made = copy.deepcopy(chosen)
        OmegaConf.set_readonly(made, False)
        ConfigLoaderImpl._apply_overrides_to_config(values, made)
        OmegaConf.set_readonly(made, True)
        return made

    def _choose(self, config: str, options: tuple[str, ...]) -> DictConfig:
        """Options alone, before single values are set."""
        found = create_defaults_list(self._files, config, parsed(*options), prepend_hydra=False, skip_missing=False)
        made: DictConfig = self._loader._compose_config_from_defaults_list(found.defaults, self._files)
        OmegaConf.set_struct(made, True)
        with open_dict(made):
            del made["hydra"]
        OmegaConf.set_readonly(made, True)
        return made
