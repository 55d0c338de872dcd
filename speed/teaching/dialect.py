"""The words in which a server takes a request, learnt from its first refusal of ours and remembered beside the journal.

None of it decides over results or is part of keys: the same is asked under other names. Only where a server refuses the
form of the answer is it asked for any JSON object, and where it refuses that too for free text; each is said once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from speed.core.spec import Json, digest
from speed.teaching.journal import Journal

_TOLD = {
    "max_completion_tokens": "takes max_completion_tokens for max_tokens: it is asked so from now on",
    "no json_schema": "refuses a schema of the answer: it is asked for JSON objects from now on "
    "(teacher.structured=json_object)",
    "no response_format": "refuses response_format: it is asked without from now on (teacher.structured=none)",
}


class Dialect:
    """What one server and model were learnt to want. Lives on one event loop."""

    def __init__(self, journal: Journal, endpoint: str, model: str, say: Callable[[str], None]) -> None:
        self._journal, self._model, self._say = journal, model, say
        self._whom = digest([endpoint, model])[:16]
        known = journal.index.select("SELECT whom, what FROM learnt")
        self._wanted = {str(what) for whom, what in known if whom == self._whom}

    def spoken(self, params: Mapping[str, Json], completion_tokens: bool | str) -> dict[str, Json]:
        """The parameters as the server wants them; `completion_tokens` is `teacher.max_completion_tokens`."""
        spoken = dict(params)
        if completion_tokens is True or (completion_tokens == "auto" and "max_completion_tokens" in self._wanted):
            spoken["max_completion_tokens"] = spoken.pop("max_tokens")
        if "no response_format" in self._wanted:
            spoken.pop("response_format", None)
        elif "no json_schema" in self._wanted and _is_schema(spoken):
            spoken["response_format"] = {"type": "json_object"}
        return spoken

    def learns(self, wants: str, spoken: Mapping[str, Json], completion_tokens: bool | str) -> bool:
        """Remember what a server wants; whether the request that it refused would be worded otherwise now."""
        unlike = {"max_completion_tokens": "max_tokens", "no response_format": "response_format"}
        if unlike.get(wants) not in spoken or (wants == "max_completion_tokens" and completion_tokens != "auto"):
            return False
        if wants == "no response_format" and _is_schema(spoken):
            wants = "no json_schema"
        if wants not in self._wanted:
            self._wanted.add(wants)
            row = (self._whom, wants)
            self._journal.index.write(lambda table: table.execute("INSERT OR IGNORE INTO learnt VALUES (?,?)", row))
            self._say(f"{self._model} {_TOLD[wants]}")
        return True


def _is_schema(spoken: Mapping[str, Json]) -> bool:
    form = spoken.get("response_format")
    return isinstance(form, dict) and form.get("type") == "json_schema"
