"""Hydra entry point; nothing else imports Hydra. Compose and validate the config, then plan, or build and report.

python -m speed.run                                    the miniature, from topics to scores
python -m speed.run plan=true                          what would be done, why, and what it would cost
python -m speed.run probe=true                         the same, with memory and hours measured in a few real steps
python -m speed.run preview=true                       five prompts of each kind, as the teacher would be sent them
python -m speed.run teach_check=true                   some twenty calls: is this teacher good enough for its roles
python -m speed.run status=true                        from another shell: how the runs of this root stand
python -m speed.run +experiment=ablation_no_dpo        a named point
python -m speed.run --config-dir sweeps --config-name beta     an axis of the paper
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.errors import CompactHydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

PACKAGE = Path(__file__).resolve().parent
CONF = next(
    (str(folder) for folder in (PACKAGE.parent / "conf", PACKAGE / "_conf") if (folder / "config.yaml").is_file()),
    str(PACKAGE.parent / "conf"),
)

MOVED = {
    "speed.backends.teaching.litellm_teacher.LitellmTeacher": "speed.teaching.litellm_teacher.LitellmTeacher",
    "speed.backends.teaching.openai_teacher.OpenAICompatibleTeacher": (
        "speed.teaching.openai_teacher.OpenAICompatibleTeacher"
    ),
}
"""Parts by the names that they had before; the user's own option files may still hold these."""
INSTANTIATING = ("_target_", "_convert_", "_recursive_")
"""Keys by which Hydra's `instantiate` is told what to make, and how."""


class Stopped(CompactHydraException):  # type: ignore[misc]
    """A mistake of the user or a failed stage; only its message is shown."""


def composed(cfg: DictConfig) -> dict[str, Any]:
    """Plain values with the swappable parts instantiated.

    Raises:
        UserError: for a `_target_` outside of speed, or parts whose values are wrong; all of them at once.
    """
    from pydantic import ValidationError

    from speed.config import explanation
    from speed.core.errors import UserError
    from speed.core.spec import part_named

    try:
        values = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UserError(f"the config is incomplete: {error}") from error
    mistakes: list[str] = []

    def part(value: Any, path: str) -> Any:
        if isinstance(value, list):
            return [part(item, f"{path}[{place}]") for place, item in enumerate(value)]
        if not isinstance(value, dict):
            return value
        inner = {key: part(item, f"{path}.{key}" if path else str(key)) for key, item in value.items()}
        target = inner.get("_target_")
        if target is None:
            return inner
        if target in MOVED:
            print(f"{path}._target_: {target} is now named {MOVED[target]}", file=sys.stderr)
            target = inner["_target_"] = MOVED[target]
        fields = {key: value for key, value in inner.items() if key not in INSTANTIATING}
        try:  # not by Hydra's own `instantiate`, which would copy plain values for a twentieth of a second
            maker = part_named(str(target))
            if maker is None:
                mistakes.append(f"  {path}._target_: only parts of speed may be named, not '{target}'")
                return None
            return maker(**fields)
        except ValidationError as error:
            assert maker is not None, "what is not found is not made"
            mistakes.append(explanation(error, maker, path))
        except Exception as error:
            mistakes.append(f"  {path}: {target} cannot be made: {str(error.__cause__ or error).splitlines()[0]}")
        return None

    assert isinstance(values, dict)
    made = {str(key): part(value, str(key)) for key, value in values.items()}
    if mistakes:
        raise UserError("the config has mistakes:\n" + "\n".join(mistakes))
    return made


class SweepTable(Callback):  # type: ignore[misc]
    """Notes where a multirun begins, for the table that it ends with (`conf/config.yaml` names this class)."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Note it, unless nothing is to be built."""
        from speed.runs.multirun import begin

        if not (config.plan or config.probe or config.preview or config.status or config.teach_check):
            jobs = _jobs(config)
            if not jobs:
                _warn_of_search(config)
            begin(Path(str(config.runtime.home)), str(config.hydra.job.config_name), jobs)


def _jobs(config: DictConfig) -> tuple[tuple[str, ...], ...]:
    """The overrides of each run of a multirun; none where another sweeper than Hydra's own chooses them."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    if not str(config.hydra.sweeper._target_).endswith(".BasicSweeper"):
        return ()
    params = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    typed = OverridesParser.create().parse_overrides([*params, *config.hydra.overrides.task])
    return tuple(tuple(job) for batch in BasicSweeper.split_arguments(typed, None) for job in batch)


def _warn_of_search(config: DictConfig) -> None:
    """Say that a score which was searched for is no result, where a sweeper searches by tasks of results."""
    typed = [override.partition("=")[2] for override in config.hydra.overrides.task if override.startswith("eval=")]
    tasks = str(typed[-1] if typed else config.hydra.runtime.choices.eval)
    if not tasks.endswith("dev"):
        print(
            f"This search chooses its points by eval={tasks}, on which results are reported: the best score of a "
            "search is no result.\n  eval=dev and eval=miniature_dev have tasks for choosing settings"
        )


def _end_of_sweep() -> None:
    """Print the table of the multirun of this process, if there was one."""
    from speed.runs.multirun import BEGUN

    for multirun in BEGUN:
        from speed.studies.sweep_table import text

        print(text(multirun))
    BEGUN.clear()


def _job(cfg: DictConfig) -> float | None:
    from hydra.core.hydra_config import HydraConfig

    from speed.core.build_all import StageFailed
    from speed.core.errors import UserError, explained
    from speed.runs.building import Origin
    from speed.runs.experiment import run
    from speed.runtime import message_of

    chosen = HydraConfig.get()
    origin = Origin(
        preset=str(chosen.runtime.choices.get("preset", "")),
        overrides=tuple(str(item) for item in chosen.overrides.task),
        sweep=str(chosen.job.config_name) if chosen.mode is not None and chosen.mode.name == "MULTIRUN" else None,
    )
    try:
        from speed.config import former_options, validated

        for note in former_options(chosen.runtime.choices):
            print(note, file=sys.stderr)
        return run(validated(composed(cfg)), OmegaConf.to_yaml(cfg, resolve=True), origin)
    except (UserError, StageFailed) as error:
        return _stop(message_of(error), origin.sweep is not None)
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return None
    except OSError as error:
        known = explained(error, "running", _fullest(Path(str(cfg.runtime.home)).expanduser()))
        if known is None:
            raise
        return _stop(message_of(known), origin.sweep is not None)


def _fullest(home: Path) -> Path:
    """Which of the folders that a run writes to has the least room: an error of a write names no file."""
    folders = [folder for folder in (home, Path(tempfile.gettempdir()), Path.cwd()) if folder.is_dir()]
    return min(folders, key=lambda folder: shutil.disk_usage(folder).free)


def _stop(message: str, in_sweep: bool) -> NoReturn:
    """End with a message: at once, or, in a sweep, after the other points have run."""
    from speed.core.escape import escape

    if in_sweep:
        raise Stopped(escape(message))
    print(escape(message), file=sys.stderr)
    sys.exit(1)


def main() -> None:
    """Console entry: `speed ...` is `python -m speed.run ...`."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "0")
    _refuse_platform()
    _refuse_former_options(sys.argv[1:])
    _refuse_misspelt(sys.argv[1:])
    signal.signal(signal.SIGTERM, _terminated)
    try:
        hydra.main(version_base="1.3", config_path=CONF, config_name="config")(_job)()
    except KeyboardInterrupt as how:
        print("\nstopped. Nothing built is lost: the same command goes on from here.", file=sys.stderr)
        sys.exit(143 if isinstance(how, Terminated) else 130)
    finally:
        _end_of_sweep()


def _refuse_platform() -> None:
    """End with a message on a system that no run works on."""
    from speed.core.errors import UserError
    from speed.core.platform import check_platform

    try:
        check_platform()
    except UserError as error:
        _stop(str(error), in_sweep=False)


def _refuse_former_options(arguments: list[str]) -> None:
    """End with a message that names what took the place of options which are no longer there."""
    typed = {argument.lstrip("+~").partition("=")[0] for argument in arguments}
    if not any(name.startswith("runtime.") for name in typed):
        return
    from speed.runtime import FORMER, former_option

    if former := [former_option(name) for name in FORMER if f"runtime.{name}" in typed]:
        _stop("\n".join(former), in_sweep=False)


def _refuse_misspelt(arguments: list[str]) -> None:
    """End with the nearest names where Hydra would only say that there is no such group, or list all options."""
    from speed.config import Config
    from speed.runs.misspelt import misspelt

    if lines := misspelt(arguments, Path(CONF), {*Config.model_fields, "hydra"}):
        _stop("\n".join(lines), in_sweep=False)


class Terminated(KeyboardInterrupt):
    """SIGTERM, as machines that may be taken away send it: the same orderly end as after Ctrl-C."""


def _terminated(*signal_and_frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough, and the trainings are saving
    raise Terminated


if __name__ == "__main__":
    main()
