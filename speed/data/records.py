"""The records that flow through the pipeline (DESIGN §4)."""

from __future__ import annotations

from enum import StrEnum

from speed.core.spec import Spec
from speed.core.stage import Row


class Kind(StrEnum):
    """The five kinds of embedding example (paper §3.1, Appendix D; the last two are its "text matching")."""

    RETRIEVAL = "retrieval"  # short query, long document
    CLASSIFICATION = "classification"  # long input, short label
    STS = "sts"  # a triple with similarity scores
    SHORT_SHORT = "short_short"
    LONG_LONG = "long_long"


class Keys(Spec):
    """Where an example's three texts stand in the JSON that a model writes."""

    query: str
    positive: str
    negative: str | None

    @property
    def all(self) -> tuple[str, ...]:
        """The exact key set, in the order of the prompt."""
        return (self.query, self.positive, self.negative) if self.negative else (self.query, self.positive)


KEYS: dict[Kind, Keys] = {
    Kind.RETRIEVAL: Keys(query="user_query", positive="positive_document", negative="hard_negative_document"),
    Kind.CLASSIFICATION: Keys(query="input_text", positive="label", negative="misleading_label"),
    Kind.STS: Keys(query="S1", positive="S2", negative="S3"),
    Kind.SHORT_SHORT: Keys(query="input", positive="positive_document", negative=None),
    Kind.LONG_LONG: Keys(query="input", positive="positive_document", negative=None),
}
"""JSON keys of each kind (E5-mistral, tables 8-13; STS: SPEED, Figure 9)."""

STS_INSTRUCTION = "Retrieve semantically similar text."
"""The task of every STS example (SPEED, Figure 9)."""


class Example(Spec):
    """One training example: a query under an instruction, its positive, and a hard negative where the kind has one."""

    kind: Kind
    task: str
    """The instruction; goes in front of the query, never of the documents."""
    query: str
    positive: str
    negative: str | None = None

    def fields(self) -> dict[str, str]:
        """The JSON object of this example, with the keys of its kind."""
        keys = KEYS[self.kind]
        values = {keys.query: self.query, keys.positive: self.positive}
        if keys.negative is not None:
            values[keys.negative] = self.negative or ""
        return values


class Rejected(Spec):
    """Why an answer is no example. A value, not an exception: rejections are counted and kept."""

    cause: str
    """One of the closed set in `speed.data.answers.parse.CAUSES` or `speed.data.quality.guidelines.CAUSES`."""
    detail: str = ""


class Topic(Row):
    """A topic of the Open Directory Project."""

    path: str
    """As the source has it: `Arts/Movies/Titles/3/36_Hours_-_1964/Cast_and_Crew`."""
    topic: str
    """As prompts say it, truncated to four levels where the config says so (paper, Appendix D.1)."""


class Prompt(Spec):
    """A rendered prompt: exactly the text that is sent, and what was drawn to make it."""

    text: str
    template: str
    """Name and first 8 hex digits of the template's sha256: `synthesis/retrieval@1a2b3c4d`."""
    kind: Kind | None = None
    task: str = ""
    topic: str = ""
    slots: dict[str, str] = {}
    """Every drawn value by slot name, and the language; what `verify` checks the answer against."""


UNASKED = Prompt(text="", template="")
"""Of a row that nobody was asked about."""


class TaskList(Row):
    """One brainstorm call: a topic and the tasks drawn from the teacher's list."""

    kind: Kind
    topic: str
    prompt: Prompt
    answer: str = ""
    """Raw text of the teacher."""
    tasks: tuple[str, ...] = ()
    """The tasks kept, in drawn order."""


class Sample(Row):
    """One data prompt and what a model wrote for it."""

    prompt: Prompt
    text: str = ""
    """Raw answer."""
    finish_reason: str = ""
    """`stop`, `length`, or a provider's word."""
    tokens: int = 0
    """Tokens of the answer."""
    example: Example | None = None
    """The parsed answer; None when rejected."""
    faults: tuple[str, ...] = ()
    """Guidelines of its prompt that the example breaks; it is kept unless the config drops such examples."""
    mended: tuple[str, ...] = ()
    """What had to be mended to read the answer (speed.data.answers.lenient_json)."""
    revised: bool = False
    """True where the example is the revisor's, not the writer's own."""
    attempt: int = 0
    """Which candidate for this row it is: those before it were rejected."""


class Candidates(Row):
    """One data prompt and the K answers of the junior (the paper's root data)."""

    prompt: Prompt
    texts: tuple[str, ...] = ()
    finish_reasons: tuple[str, ...] = ()


class Vote(Spec):
    """One judgement of a list: what was asked, and what it came to."""

    model: str = ""
    """Who judged, where the config names judges; empty for the run's teacher."""
    order: tuple[int, ...]
    """order[i] = index of the candidate that was shown at place i."""
    prompt: str
    """Exactly the text that was sent."""
    answer: str = ""
    best: int = -1
    """Index among the candidates (not the place where it was shown); -1 where the answer is no judgement."""
    worst: int = -1
    cause: str = ""
    """Why the answer is no judgement; empty when it is one."""
    detail: str = ""


class Pair(Row):
    """The teacher's judgement of one list: the best and the worst answer."""

    prompt: Prompt
    """The data prompt that the answers were written for."""
    begun: str = ""
    """What both answers begin with, where only what follows is preferred (preference.pairs=fields)."""
    chosen: str = ""
    rejected_text: str = ""
    best: int = -1
    """Index of the chosen answer among the candidates."""
    worst: int = -1
    votes: tuple[Vote, ...] = ()
    """Every judgement; none where the guidelines alone decided."""
    chosen_faults: tuple[str, ...] = ()
    """Guidelines that the chosen answer breaks, or the cause for which it cannot be read."""
    rejected_faults: tuple[str, ...] = ()


class Revision(Row):
    """The teacher's repair of one root answer."""

    prompt: Prompt
    """The data prompt."""
    original: str = ""
    """The root answer, as the junior wrote it."""
    reason: str = ""
    revision: str = ""
    """The repaired JSON object, canonical text."""
    revise_prompt: str = ""
    """Exactly the text that was sent; what the revisor is trained on."""
    answer: str = ""


class Scores(Spec):
    """Main scores of an evaluation, 0..100."""

    tasks: dict[str, float]
    types: dict[str, float]
    """Mean over the tasks of a type."""
    mean: float
    """Mean over tasks (the paper's Avg)."""
    mean_of_types: float
