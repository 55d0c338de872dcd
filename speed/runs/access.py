"""Whether a run can have the models and data sets that it will need: asked before anything is built or paid for.

What lies in the local caches is not asked for. With HF_HUB_OFFLINE=1 the caches alone are looked at.
"""

from __future__ import annotations

import json
import sys
import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

from speed.core.content import HubRepository
from speed.core.errors import UserError
from speed.core.graph import StageStatus
from speed.data.evaluation_datasets import is_cached
from speed.runs.tables import paragraph

SECONDS = 10.0
"""How long the hub may take for an answer."""
SIDE_BY_SIDE = 8
"""Questions to the hub at the same time."""
NAMED = 5
"""Data sets of one state that are named."""

LACKING = "models or data sets of the hub that this run needs cannot be had"
AT_HUB = "at the hub"
DESCRIPTION = ("*.json", "*.model", "*.txt", "*.jinja")
"""Files of a model that say what it is; weights are not among them."""

State = Literal["there", "gated", "missing", "unknown"]


class Access(NamedTuple):
    """Whether one model or data set can be had."""

    wanted: HubRepository
    stages: tuple[str, ...]
    """Labels of the stages that read it."""
    state: State
    detail: str
    """Where it is, or what to do."""


def hub_access(found: Iterable[StageStatus], home: Path) -> list[Access]:
    """For each model and data set that unbuilt stages need from the hub, whether it can be had.

    Args:
        home: root of the store, whose cache holds data sets that were read before.
    """
    stages: dict[HubRepository, list[str]] = defaultdict(list)
    for status in found:
        for wanted in status.goal.node.hub_repositories() if status.state != "hit" else ():
            stages[wanted].append(status.goal.label)
    silent = threading.Event()
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        states = pool.map(lambda wanted: _state_of(wanted, home, silent), stages)
        return [Access(wanted, tuple(stages[wanted]), *state) for wanted, state in zip(stages, states, strict=True)]


def access_lines(found: Sequence[Access]) -> list[str]:
    """A paragraph for each model, and one for the data sets that stand alike."""
    alike: dict[tuple[State, str, str], list[Access]] = defaultdict(list)
    for each in found:
        own, detail = each.wanted.title, each.detail
        if each.wanted.kind == "dataset":
            own, detail = "", detail.replace(each.wanted.name, "NAME")
            detail = detail.replace(each.wanted.revision or "REVISION", "REVISION")
        alike[each.state, detail, own].append(each)
    lines = []
    for (state, detail, model), group in alike.items():
        names = ", ".join(each.wanted.title for each in group[:NAMED])
        more = f" and {len(group) - NAMED} more" if len(group) > NAMED else ""
        what = f"{model} ({', '.join(group[0].stages)})" if model else f"data sets of mteb: {names}{more}"
        lines.append(paragraph(f"{state:8}{what}: {detail}", 10))
    return lines


def lacking(found: Sequence[Access]) -> list[Access]:
    """What cannot be had; what the hub did not say of is not among it."""
    return [each for each in found if each.state in ("gated", "missing")]


def refuse_without_access(found: Sequence[Access]) -> None:
    """Refuse a run whose models or data sets cannot be had.

    Raises:
        UserError: with all of them, and what to do.
    """
    if found := lacking(found):
        raise UserError(f"{LACKING}:\n" + "\n".join(access_lines(found)))


def fetch_descriptions(found: Sequence[Access]) -> bool:
    """Fetch config and tokenizer, some megabytes, of each model that lies at the hub alone; whether there is one."""
    away = [each.wanted for each in found if each.wanted.kind == "model" and each.detail == AT_HUB]
    if not away:
        return False
    from huggingface_hub import snapshot_download  # slow to import, and most runs have all they need

    for wanted in away:
        try:
            snapshot_download(wanted.name, revision=wanted.revision, allow_patterns=list(DESCRIPTION))
        except Exception as error:
            print(f"note: {wanted.title} is not checked before its stage: {type(error).__name__}", file=sys.stderr)
    return True


def _state_of(wanted: HubRepository, home: Path, silent: threading.Event) -> tuple[State, str]:
    from huggingface_hub import constants

    if wanted.kind == "model":
        local, lacks = _cached_model(wanted)
    else:
        local, lacks = is_cached(wanted.name, wanted.revision or "", home), "in no local cache"
    if local:
        return "there", "in the local cache"
    if constants.is_offline_mode():
        instead = "give the folder of a copy" if wanted.kind == "model" else "give a folder of copies (eval.mirror=DIR)"
        return "missing", f"{lacks}, and HF_HUB_OFFLINE is set: unset it, or {wanted.download}, or {instead}"
    return _asked(wanted, silent)


def _asked(wanted: HubRepository, silent: threading.Event) -> tuple[State, str]:
    """What the hub says.

    Args:
        silent: set once it does not answer; it is then asked no more, so that a plan does not wait for each question.
    """
    import httpx
    from huggingface_hub import constants, errors
    from huggingface_hub.utils._headers import build_hf_headers
    from huggingface_hub.utils._http import get_session, hf_raise_for_status

    page = f"{constants.ENDPOINT}/{'datasets/' if wanted.kind == 'dataset' else ''}{wanted.name}"
    below = f"{constants.ENDPOINT}/api/{wanted.kind}s/{wanted.name}"
    questions = [f"{below}/auth-check", *([f"{below}/revision/{wanted.revision}"] if wanted.revision else [])]
    unanswered = f"{constants.ENDPOINT} does not answer, so it will show when it is needed"
    try:
        for question in questions:
            if silent.is_set():
                return "unknown", unanswered
            hf_raise_for_status(get_session().get(question, headers=build_hf_headers(), timeout=SECONDS))
    except errors.GatedRepoError:
        return "gated", f"accept its licence at {page}, and set HF_TOKEN (or hf auth login) to a token of that account"
    except errors.RevisionNotFoundError:
        return "missing", f"{page} has no revision {wanted.revision}: check it"
    except errors.RepositoryNotFoundError:
        return "missing", f"the hub has no {page}, or hides it: check the name, and HF_TOKEN if it is private"
    except (httpx.HTTPError, OSError) as error:
        answer = getattr(error, "response", None)
        if answer is None:
            silent.set()
            return "unknown", unanswered
        return "unknown", f"{constants.ENDPOINT} answers HTTP {answer.status_code}, so it will show when it is needed"
    return "there", AT_HUB


def _cached_model(wanted: HubRepository) -> tuple[bool, str]:
    """Whether the hub's cache holds a whole model; what it lacks otherwise."""
    from huggingface_hub import constants, try_to_load_from_cache

    cache = constants.HF_HUB_CACHE
    config = try_to_load_from_cache(wanted.name, "config.json", cache_dir=cache, revision=wanted.revision)
    if not isinstance(config, str):
        return False, "it is not in the local cache"
    folder = Path(config).parent
    absent: list[str] = []
    for index in sorted(folder.glob("*.index.json"), reverse=True):  # safetensors last: it is read where there is one
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError):
            return False, f"its {index.name} in the local cache cannot be read"
        absent = sorted(name for name in shards if not (folder / name).is_file())
        if not absent:
            break
    if absent:
        return False, f"the local cache lacks {len(absent)} of its files ({absent[0]} ...)"
    for what, patterns in (("weights", ("*.safetensors", "*.bin")), ("tokenizer", ("tokenizer*", "vocab*"))):
        if not any(any(folder.glob(pattern)) for pattern in patterns):
            return False, f"the local cache lacks its {what}"
    return True, ""
