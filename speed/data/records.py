"""The records that stages write and read: topics, prompts, samples, judged pairs, revisions and scores."""

from __future__ import annotations

from enum import StrEnum

from speed.core.row import Row
from speed.core.spec import Spec


class Kind(StrEnum):
    """The five kinds of embedding example (paper, section 3.1; the last two are its text matching, Appendix D)."""

    RETRIEVAL = "retrieval"  # short query, long document
    CLASSIFICATION = "classification"  # long input, short label
    STS = "sts"  # a triple with similarity scores
    SHORT_SHORT = "short_short"
    LONG_LONG = "long_long"


class Keys(Spec):
    """JSON keys under which a model writes the texts of an example."""

    query: str
    positive: str
    negative: str | None

    @property
    def all(self) -> tuple[str, ...]:
        """All keys, in the order of the prompt."""
        return (self.query, self.positive, self.negative) if self.negative else (self.query, self.positive)


KEYS: dict[Kind, Keys] = {
    Kind.RETRIEVAL: Keys(query="user_query", positive="positive_document", negative="hard_negative_document"),
    Kind.CLASSIFICATION: Keys(query="input_text", positive="label", negative="misleading_label"),
    Kind.STS: Keys(query="S1", positive="S2", negative="S3"),
    Kind.SHORT_SHORT: Keys(query="input", positive="positive_document", negative=None),
    Kind.LONG_LONG: Keys(query="input", positive="positive_document", negative=None),
}
"""JSON keys of each kind (E5-mistral, Tables 8-13; STS: SPEED, Figure 9)."""


LEVELS = ("perfect", "partial", "related", "unrelated")
"""JSON keys of the documents that are written for a query, by falling relevance (after SyCL, arXiv 2503.23239)."""


def written_keys(kind: Kind, grounded: bool) -> tuple[str, ...]:
    """The keys that a model writes: all of the kind, or the query alone where it is given the passage."""
    return (KEYS[kind].query,) if grounded else KEYS[kind].all


STS_INSTRUCTION = "Retrieve semantically similar text."
"""Task of every STS example (SPEED, Figure 9)."""


class Example(Spec):
    """One training example: a query under an instruction, its positive, and a hard negative where the kind has one."""

    kind: Kind
    task: str
    """The instruction. It stands in front of the query only, never in front of the documents."""
    query: str
    positive: str
    negative: str | None = None
    document: str | None = None
    """The document that the positive and the negative are passages of; None where a model wrote them."""

    def line(self) -> str:
        """This example as a line of `examples.jsonl`."""
        return self.model_dump_json(exclude=None if self.document else {"document"})

    def fields(self) -> dict[str, str]:
        """The JSON object that a model writes for this example, with the keys of its kind."""
        keys = KEYS[self.kind]
        if self.document is not None:
            return {keys.query: self.query}
        values = {keys.query: self.query, keys.positive: self.positive}
        if keys.negative is not None:
            values[keys.negative] = self.negative or ""
        return values


class Rejected(Spec):
    """Why an answer was rejected. A value and not an exception, since rejections are counted and stored."""

    cause: str
    """A key of `speed.data.answers.parse.CAUSES` or of `speed.data.quality.guidelines.CAUSES`."""
    detail: str = ""


class Topic(Row):
    """A topic of the Open Directory Project."""

    path: str
    """As it stands in the source: `Arts/Movies/Titles/3/36_Hours_-_1964/Cast_and_Crew`."""
    topic: str
    """As prompts show it: shortened to four levels if the config says so (paper, Appendix D.1)."""


class Passage(Row):
    """One passage of the user's own documents."""

    document: str
    """File below the path, and for files of records the number: `guide/install.md`, `faq.jsonl:12`."""
    topic: str
    """The section that it stands in, as prompts show it."""
    text: str
    held_out: bool = False
    """Whether its document is held out for the test."""


class Ground(Spec):
    """The real passage that a query is written for, and another of the same document as its hard negative."""

    document: str
    text: str
    negative: str | None = None


class Prompt(Spec):
    """A rendered prompt: the exact text that is sent, and the values that were drawn for it."""

    text: str
    template: str
    """Name of the template and the first 8 hex digits of its sha256: `synthesis/retrieval@1a2b3c4d`."""
    kind: Kind | None = None
    task: str = ""
    topic: str = ""
    slots: dict[str, str] = {}
    """Every drawn value by slot name, and the language. `quality.guidelines` checks the answer against them."""
    ground: Ground | None = None
    """The passage that a query is asked for; None where all texts of the example are."""


UNASKED = Prompt(text="", template="")
"""Prompt of a row for which no model was asked."""


class TaskList(Row):
    """One brainstorm call: a topic, and the tasks drawn from the teacher's list."""

    kind: Kind
    topic: str
    prompt: Prompt
    answer: str = ""
    """Raw answer of the teacher."""
    tasks: tuple[str, ...] = ()
    """The tasks kept, in drawn order."""

    @property
    def evidence(self) -> str:
        """See `speed.core.row.Row`."""
        return self.detail or self.answer


class Sample(Row):
    """One data prompt and what a model wrote for it."""

    prompt: Prompt
    text: str = ""
    """Raw answer."""
    finish_reason: str = ""
    """`stop`, `length`, or another word of the provider."""
    tokens: int = 0
    """Tokens of the answer."""
    example: Example | None = None
    """The parsed answer; None if it was rejected."""
    faults: tuple[str, ...] = ()
    """Guidelines of its prompt that the example breaks. It is kept unless the config drops such examples."""
    mended: tuple[str, ...] = ()
    """Syntax that was mended to read the answer: keys of `speed.data.answers.lenient_json.MENDED`."""
    revised: bool = False
    """True if the revisor wrote the example, False if it is still the writer's own."""
    attempt: int = 0
    """Number of earlier candidates for this row, all of them rejected."""

    @property
    def evidence(self) -> str:
        """See `speed.core.row.Row`."""
        return self.detail or self.text


class Candidates(Row):
    """One data prompt and the K answers of the junior (the paper's root data)."""

    prompt: Prompt
    texts: tuple[str, ...] = ()
    finish_reasons: tuple[str, ...] = ()


class Vote(Spec):
    """One judgement of a list: the prompt, the answer and the verdict."""

    model: str = ""
    """The model that judged, if the config names judges; empty for the run's teacher."""
    order: tuple[int, ...]
    """order[i] is the index of the candidate that was shown at place i."""
    prompt: str
    """The exact text that was sent."""
    answer: str = ""
    best: int = -1
    """Index among the candidates (not the place where it was shown); -1 if the answer could not be read."""
    worst: int = -1
    cause: str = ""
    """Why the answer could not be read; empty if it could."""
    detail: str = ""


class Pair(Row):
    """The best and the worst answer of one list."""

    prompt: Prompt
    """The data prompt that the answers were written for."""
    begun: str = ""
    """Text with which both answers begin; with preference.pairs=fields only what follows it is compared."""
    chosen: str = ""
    rejected_text: str = ""
    best: int = -1
    """Index of the chosen answer among the candidates."""
    worst: int = -1
    votes: tuple[Vote, ...] = ()
    """Every judgement; empty if the guidelines alone decided."""
    chosen_faults: tuple[str, ...] = ()
    """Guidelines that the chosen answer breaks, or the cause why it cannot be read."""
    rejected_faults: tuple[str, ...] = ()


class RevisedAnswer(Row):
    """The teacher's revision of one root answer."""

    prompt: Prompt
    """The data prompt."""
    original: str = ""
    """The root answer, as the junior wrote it."""
    reason: str = ""
    revision: str = ""
    """The revised JSON object as canonical text."""
    revise_prompt: str = ""
    """The exact text that was sent; the revisor is trained on it."""
    answer: str = ""

    @property
    def evidence(self) -> str:
        """See `speed.core.row.Row`."""
        return self.detail or self.answer


class Scores(Spec):
    """Main scores of an evaluation, 0 to 100; None where a score is undefined, and in each mean over it."""

    tasks: dict[str, float | None]
    types: dict[str, float | None]
    """Mean over the tasks of each type."""
    mean: float | None
    """Mean over tasks (the paper's Avg)."""
    mean_of_types: float | None
