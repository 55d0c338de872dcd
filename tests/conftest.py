"""Fixtures of all tests: no network, and configs composed as the command line composes them."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from batch_provider import BatchProvider
    from omegaconf import DictConfig
    from provider import Provider

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")

# No verdict depends on how fast the machine is: examples may take as long as they like.
settings.register_profile("speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("speed")

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
HANG = 3600.0
"""Seconds after which a program hangs, however slow the machine is and whatever else it does."""


LONGEST = (
    *("test_trl_trainer", "test_smoke", "test_config", "test_contrastive_ranks", "test_extend", "test_disk"),
    *("test_mistakes", "test_nearly_all_rejected", "test_secrets", "test_secrets_and_kills", "test_limits"),
    *("test_keys", "test_gpu_script", "test_answered", "test_numbers", "test_network"),
)
"""Files of ten seconds and more, but for those that would be among the first anyway."""

gc.disable()  # while the tests are imported, and all libraries with them


def pytest_collection_finish() -> None:
    """What has been imported stays: trainers that collect garbage after each training need not search it each time."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: a file is run by one worker, and none shall be left with a long one at the end."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real data beside the checkout; tests that use it skip where it is not."""
    if not SHARED.is_dir():
        pytest.skip("the folder of real data is not here")
    return SHARED


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished smoke run; of the one that SMOKE_RUN names, where several commands share it."""
    from command_line import finished_smoke_run

    folder = Path(os.environ.get("SMOKE_RUN") or tmp_path_factory.mktemp("smoke"))
    finished_smoke_run(folder)
    return folder


@pytest.fixture
def no_gpu_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Declared devices are nobody else's: a test waits for no run that uses the GPUs of its machine."""
    monkeypatch.setattr("speed.core.devices.gpus", lambda: ())


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key of a teacher, by all names that a teacher looks for it."""
    from quick_teacher import SECRET

    from speed.teaching.openai_teacher import KEY

    for name in (KEY, "OPENAI_API_KEY"):
        monkeypatch.setenv(name, SECRET)


@pytest.fixture
def provider(secret: None) -> Iterator[Provider]:
    """A provider on this machine, whose key is in the environment."""
    from provider import Provider

    with Provider() as serving:
        yield serving


@pytest.fixture
def serving(secret: None) -> Iterator[BatchProvider]:
    """The same with batches."""
    from batch_provider import BatchProvider

    with BatchProvider() as provider:
        yield provider


@pytest.fixture(scope="session")
def composer() -> Callable[..., DictConfig]:
    """Hydra's part of what follows."""
    from composition import Composer

    return Composer()


@pytest.fixture(scope="session")
def compose(composer: Callable[..., DictConfig]) -> Callable[..., object]:
    """`compose("preset=paper", config="beta")`: the validated config of a command line."""
    from speed.config import Config, validated
    from speed.run import composed

    @cache
    def made(*overrides: str, config: str = "config") -> Config:
        return validated(composed(composer(overrides, config)))

    return made


@pytest.fixture(scope="session")
def raw(composer: Callable[..., DictConfig]) -> Callable[..., object]:
    """`raw("preset=paper")`: what the files of conf/ say for a command line, as `--cfg job` prints it."""
    from omegaconf import OmegaConf

    return cache(lambda *overrides: OmegaConf.to_container(composer(overrides), resolve=True))
