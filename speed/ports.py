"""The interfaces of the parts that can be swapped.

Implementations stand in `speed.backends`, `speed.teaching` and `speed.miniature`, and are named in conf/ by `_target_`.
Their fields decide over results and enter keys; devices, URLs, keys and concurrency come from the context.
All stand in one file, so that whoever swaps a part sees what the others are given.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from speed.core.content import HubRepository
from speed.core.errors import UserError
from speed.core.spec import Backend, Json, Spec
from speed.core.work import Work
from speed.data.answers.schemas import Form
from speed.data.costs.loads import EmbedderLoad, EngineLoad, EvaluationLoad, Measured
from speed.data.costs.memory import Footprint
from speed.data.quality.contaminated_records import TaskTexts
from speed.data.records import Kind, Prompt, Scores
from speed.data.trainings import Completion, Dpo, Preference, Sft
from speed.runtime import Context, Runtime

FormatName: TypeAlias = Literal["plain", "inst", "released", "chat"]
"""Layouts of a prompt; `speed.backends.engines.prompt_format` says what each is."""


class Sampling(Spec):
    """How a small model's text is drawn."""

    temperature: float
    """0 is greedy. The paper: 1.0 (Appendix B)."""
    top_p: float = 1.0


class Ask(Spec):
    """One request to the teacher."""

    prompt: str
    temperature: float
    max_tokens: int
    purpose: str
    """`brainstorm`, `seed`, `judge`, `revise`, `relevance` or `graded`: the ledger's line."""
    kind: Kind | None = None
    index: int = 0
    """Sample index: the same prompt asked again on purpose has another one."""
    form: Form | None = None
    """Of the answer, for teachers that are asked for structured output."""


class Answer(Spec):
    """One answer of the teacher, or its typed failure."""

    text: str = ""
    cause: str = "ok"
    """`ok`, or why there is no usable text: truncated, refusal, content_filter, empty, http_4xx, timeout ..."""
    detail: str = ""
    finish_reason: str = ""
    tokens_in: int = 0
    tokens_out: int = 0

    @property
    def unreachable(self) -> bool:
        """Whether the request failed on the way, which says nothing about the prompt."""
        return self.cause.startswith("http_") or self.cause in ("timeout", "connection", "bad_response")


Check = Callable[[str], str | None]
"""Cause for which the content of a whole answer (one that was not cut off) is of no use, or None."""


Encode = Callable[[Sequence[str]], Sequence[Sequence[float]]]
"""Vectors of some texts, for a quick comparison."""


class Teacher(Backend, ABC):
    """A large model behind a journal that never pays twice."""

    @abstractmethod
    def ask(self, requests: Iterable[tuple[Ask, Check]], ctx: Context) -> Iterator[Answer]:
        """Answers in the order of the requests, many in flight at once.

        Each answer is journaled before anything parses it. A content failure (`check` gives a cause) is asked once
        more where the config allows. Calls, tokens and dollars are added to `ctx.tally`. A failed request is an
        Answer with a cause, not an exception; errors that every further call would repeat (no key, unknown
        model) raise UserError.
        """

    def remarks(self) -> list[str]:
        """What a user should know before the first call, one sentence each."""
        return []

    def check(self, runtime: Runtime) -> None:
        """Refuse, before anything is built, a teacher that cannot answer.

        Raises:
            UserError: with the remedy.
        """

    def costs_money(self, runtime: Runtime) -> bool:
        """Whether its answers are paid for, as far as that is known."""
        return False

    def unready(self, runtime: Runtime) -> str:
        """Why the first call would be refused, as far as it is known without a call; empty where nothing is. A journal
        that has all answers needs no call."""
        return ""

    def lasting(self) -> str:
        """How long its answers take, in a sentence for plans, where `runtime.concurrency` does not decide over it;
        empty where it does."""
        return ""

    def under_way(self, home: Path) -> str:
        """What a server answers by now for earlier runs of a root, in a sentence; empty where nothing is."""
        return ""

    @property
    def reads_ahead(self) -> int:
        """Requests that it reads before it gives the first answer, at most; 0 where these are few. Whoever asks in
        steps asks as much in one of them."""
        return 0

    @property
    def tries(self) -> int:
        """Times that a request is paid for at most: more than once where an answer of no use is asked for again."""
        return 1

    @property
    def tried_again_by(self) -> str:
        """The settings that `tries` comes from."""
        return ""

    @abstractmethod
    def price(self, calls: int, tokens_in: int, tokens_out: int) -> Work:
        """The work of so many calls, each tried once, priced from the dated table."""

    def in_front(self, purpose: str, kind: Kind | None) -> str:
        """What this teacher is told in front of each prompt of a purpose and kind; see `Ask`."""
        return ""

    def journal_key(self, ask: Ask) -> str | None:
        """What the first answer to a request is kept under in the journal; None where none is kept."""
        return None

    def journaled(self, keys: Iterable[str], home: Path) -> set[str]:
        """Those of some keys that the journal under a root has answers to."""
        return set()

    def truth(self, prompt: Prompt, text: str) -> list[str] | None:
        """What is wrong with an example, in sentences; None where the teacher does not know the truth, as real ones."""
        return None

    @abstractmethod
    def named(self, model: str) -> Teacher:
        """This teacher with another model: a further judge, reached at the same endpoint."""


class Generate(Spec):
    """One request to a small model."""

    key: str
    prompt: str
    seed: int
    """Seed of this request alone: its text does not depend on its neighbours' seeds."""
    n: int = 1
    """Texts wanted."""
    begun: str = ""
    """What the answer has begun with already; texts go on from there and do not repeat it."""
    max_tokens: int = 512
    form: Form | None = None
    """Of the answer, for engines that are asked to keep to it."""


class Generated(Spec):
    """One text of a small model."""

    key: str
    index: int
    text: str
    finish_reason: Literal["stop", "length"]
    tokens: int


class Lengths(NamedTuple):
    """Tokens of a text that a probe has written."""

    prompt: int
    answer: int


class Engine(Backend, ABC):
    """Samples from weights. The make-up of its batches is a pure function of the requests of one call."""

    block: int = 256
    """Rows generated together, and the unit of resuming. It decides over results, since arithmetic depends on a batch's
    make-up, and is part of keys."""

    @abstractmethod
    def generate(
        self, weights: Path, calls: Iterable[Sequence[Generate]], sampling: Sampling, ctx: Context
    ) -> Iterator[list[Generated]]:
        """For each call (one block of requests) its texts, ordered by (request, index). The model is loaded once.

        A call is read when the texts of the one before have been handed out: it may depend on them.
        """

    def adopt(self, base: str, out: Path, layout: FormatName = "chat") -> None:
        """Write into `out` what `generate` takes as the weights of a model that was not trained in this run.

        Args:
            layout: how it is prompted; a payload of another run states that itself.

        Raises:
            UserError: for a model that cannot be had, or one without the chat template that it is to be prompted by.
        """
        raise UserError(
            f"{type(self).__name__} cannot write with a model that was not trained here: take another engine"
        )

    def base_under(self, model: str) -> str:
        """The base model (a reference, see ModelReference) that a model which was not trained in this run stands on: of
        another run's adapter what it belongs to, otherwise the model itself."""
        return model

    def check(self, runtime: Runtime) -> None:
        """Refuse, before anything is built, what would have no effect or cannot be carried out.

        Raises:
            UserError: with the remedy.
        """

    def check_base(self, base: str) -> None:
        """Refuse, before anything is built or paid for, an instruct model that `adopt` cannot take; see `Trainer`.

        Raises:
            UserError: with the remedy.
        """

    def groups(self, base: str, runtime: Runtime) -> tuple[int, ...]:
        """Numbers of GPUs that can share one model of this base while it generates, up to as many as it needs."""
        load = self.load(base)
        return (1,) if load is None or runtime.device_gb is None else load.groups(runtime.device_gb)

    def load(self, base: str) -> EngineLoad | None:
        """What one model of this base takes while it generates, for plans; None where that is not known."""
        return None

    def probe(self, base: str, lengths: Lengths, sampling: Sampling, out: Path, ctx: Context) -> Measured | None:
        """Memory and speed of one batch of texts, all of them as long as they may be; None where that means nothing.

        Args:
            base: a model as it came, which writes no faster or slower than what is trained from it.
            out: an empty folder.

        Raises:
            UserError: where it does not fit, with the setting that would.
        """
        return None

    def check_model(self, base: str) -> None:
        """Refuse, before anything is built, a folder that holds no generator, or not the whole of one.

        Raises:
            UserError: naming the file and the remedy.
        """


class Weights:
    """Payload of a training: `model/` and what is needed to load it. Only ever a type argument."""


class Trainer(Backend, ABC):
    """Fine-tunes a generator."""

    @abstractmethod
    def sft(self, base: str, rows: Sequence[Completion], config: Sft, out: Path, ctx: Context) -> None:
        """Train the base model (a reference, see ModelReference) on completions only.

        Writes the weights into `out/model`, checkpoints into `out/checkpoints`.
        """

    @abstractmethod
    def dpo(self, start: Path, rows: Sequence[Preference], config: Dpo, out: Path, ctx: Context) -> None:
        """Optimise `start` on preferences, with `start` itself as the frozen reference."""

    def check(self, config: Sft | Dpo, runtime: Runtime) -> None:
        """Refuse, before anything is built, a training that cannot be carried out or would ignore a setting.

        Raises:
            UserError: with the remedy.
        """

    def check_base(self, base: str, config: Sft | Dpo) -> None:
        """Refuse, before anything is built or paid for, a base model that this training cannot use. It is on this
        machine, or can be fetched; weights are not read.

        Raises:
            UserError: with the remedy.
        """

    def read_prompt(self, base: str, prompt: str) -> str:
        """A prompt exactly as the model will read it, as text and token ids, for previews; empty where not known."""
        return ""

    def devices(self, config: Sft | Dpo, runtime: Runtime) -> tuple[int, ...]:
        """Numbers of GPUs of one machine that can share this training."""
        return (1,)

    def footprint(self) -> Footprint | None:
        """What of its settings decides over memory, for plans; None where that is not known."""
        return None

    def probe(self, base: str, config: Sft | Dpo, out: Path, ctx: Context) -> Measured | None:
        """Memory and speed of three steps of a training on random tokens, all rows as long as they may be; None where
        that means nothing.

        Args:
            out: an empty folder.

        Raises:
            UserError: where it does not fit, with the setting that would.
        """
        return None


class Training(NamedTuple):
    """A training of a generator, as a plan sees it."""

    base: str
    """The base model (a reference, see ModelReference)."""
    config: Sft | Dpo
    trainer: Trainer
    tokens_a_row: int
    """Expected, at the paper's lengths."""


class EmbedderTrainer(Backend, ABC):
    """Turns a language model into an embedder."""

    @property
    def instructs(self) -> bool:
        """Whether queries are trained on with an instruction in front."""
        return True

    def check(self, runtime: Runtime) -> None:
        """Refuse, before anything is built, what the runtime's settings cannot carry out.

        Raises:
            UserError: with the remedy.
        """

    def check_base(self) -> None:
        """Refuse, before anything is built or paid for, a base model that the settings do not fit; see `Trainer`.

        Raises:
            UserError: with the remedy.
        """

    def read_query(self, task: str) -> str:
        """A query of this task exactly as the model will read it, for previews; empty where not known."""
        return ""

    def read_inputs(self, runtime: Runtime, say: Callable[[str], None]) -> None:
        """Read whole, before anything is paid for, the user's files of which `check` reads the beginning.

        Args:
            say: takes progress, for a person.

        Raises:
            UserError: for what cannot be trained on (file and line are named).
        """

    def hub_repositories(self) -> tuple[HubRepository, ...]:
        """Models that the training reads from the hub."""
        return ()

    def devices(self, runtime: Runtime) -> tuple[int, ...]:
        """Numbers of GPUs of one machine that can share the training."""
        return (1,)

    def load(self) -> EmbedderLoad | None:
        """What decides over memory and time, for plans; None where that is not known."""
        return None

    def probe(self, out: Path, ctx: Context) -> Measured | None:
        """Memory and speed of three steps on random tokens; see `Trainer.probe`."""
        return None

    def seen(self, examples: int) -> int:
        """Records seen in a training on a corpus of so many, epochs and labelled records counted."""
        return examples

    @abstractmethod
    def train(self, examples: Path, out: Path, seed: int, ctx: Context) -> None:
        """Contrastive training on the examples of a JSONL file; sentence-transformers layout into `out/model`."""

    def remarks(self) -> list[str]:
        """What a user should know of base and settings before a training and beside its scores, one sentence each."""
        return []

    def quick_encoder(self, runtime: Runtime) -> tuple[str, Encode] | None:
        """Name and vectors of the base as it came, where it is an embedder already, small and on this machine; None
        where it is not."""
        return None

    def untrained(self, out: Path, ctx: Context) -> Path | None:
        """The base as an embedder without any training, written below `out` in the layout of `train`; None where that
        is not known, or not worth it: a large base takes GPUs as long as the run's own evaluation."""
        return None

    def untrained_retriever(self) -> Retriever | None:
        """The base as it came, to search and compare with; None where there is none that could."""
        return None

    def labelled_files(self) -> tuple[Path, ...]:
        """Files of labelled records that it trains on beside the corpus."""
        return ()

    @property
    def loss_temperature(self) -> float:
        """By which the loss of a training divides similarities."""
        return 1.0

    def trained_retriever(self, folder: Path) -> Retriever | None:
        """What `train` wrote into `folder/model`, with the queries' instructions of the training; None where it cannot
        compare texts."""
        return None

    @abstractmethod
    def steps(self, examples: int) -> int:
        """Optimiser steps on a corpus of so many, labelled records counted."""


class Group(NamedTuple):
    """Queries that search the same documents, by their numbers."""

    queries: range
    documents: range


class Comparison(ABC):
    """The queries and documents of a corpus as a retriever sees them, by their numbers."""

    @abstractmethod
    def nearest(self, count: int, excluded: Callable[[int], Collection[int]]) -> Iterator[list[tuple[int, float]]]:
        """For each query, in order, the nearest documents of its group with their similarities, nearest first; of
        equally near ones the one with the lower number first.

        Args:
            excluded: documents that are passed over for a query.
        """

    @abstractmethod
    def similarities(self, pairs: Iterable[tuple[int, int]]) -> Iterator[float]:
        """Of each (query, document)."""

    @abstractmethod
    def ranks(self, positives: Sequence[int], excluded: Callable[[int], Collection[int]]) -> Iterator[int]:
        """For each query, in order, the rank of its positive among the documents of its group, from 1."""


class Retriever(Backend, ABC):
    """A finished embedder that compares the texts of a corpus: it finds hard negatives and judges them."""

    def for_embedder(self, embedder: EmbedderTrainer) -> Retriever:
        """This retriever, or where it names no model the base of an embedder before its training.

        Raises:
            UserError: where that base can compare nothing.
        """
        return self

    def check_model(self) -> None:
        """Refuse, before anything is built or paid for, a model that cannot compare texts; see `Node.check_models`.

        Raises:
            UserError: with the remedy.
        """

    def hub_repositories(self) -> tuple[HubRepository, ...]:
        """Models that it reads from the hub."""
        return ()

    def weights(self) -> tuple[Path, ...]:
        """Files of its weights, where they lie in a folder of this machine."""
        return ()

    @abstractmethod
    def compared(
        self,
        queries: Iterable[tuple[str, str]],
        documents: Iterable[str],
        groups: Sequence[Group],
        scratch: Path,
        ctx: Context,
    ) -> AbstractContextManager[Comparison]:
        """The texts of a corpus, encoded; memory does not grow with their number.

        Args:
            queries: (task, query) of each.
            groups: one after another, they cover all queries.
            scratch: a folder for vectors, which is gone afterwards.
        """


class Evaluator(Backend, ABC):
    """Judges an embedder."""

    @property
    def instructs(self) -> bool:
        """Whether instructions of its own stand in front of texts, whatever the model was trained with."""
        return False

    def check(self) -> None:
        """Look at the user's own tasks before anything is built: the evaluation comes last, and a mistake in them
        should not be told after the money is spent.

        Raises:
            UserError: for a task that cannot be read.
        """

    def read_inputs(self, runtime: Runtime, say: Callable[[str], None]) -> None:
        """Look, before anything is paid for, at data of others that are on this machine already.

        Args:
            say: takes progress, for a person.

        Raises:
            UserError: for a task that no score can come of.
        """

    def hub_repositories(self) -> tuple[HubRepository, ...]:
        """Data sets that the evaluation reads from the hub, as far as they are known without asking anybody."""
        return ()

    def load(self) -> EvaluationLoad | None:
        """How much is encoded, for plans; None where that is not known."""
        return None

    def probe(self, embedder: EmbedderTrainer, ctx: Context) -> Measured | None:
        """Memory and speed of encoding with an embedder's base, in texts as long as they may be; None where that means
        nothing.

        Raises:
            UserError: where it does not fit, with the setting that would.
        """
        return None

    def on_folder(self, folder: Path) -> Evaluator:
        """The same protocol on the tasks of a folder; itself where an evaluator knows none but its own."""
        return self

    def task_texts(self, ctx: Context) -> Sequence[TaskTexts]:
        """The texts of its tasks, so that they can be looked for in what the embedder learned from. Asked for after the
        evaluation, which has fetched them; none where an evaluator judges without any."""
        return ()

    @abstractmethod
    def evaluate(self, embedder: Path, out: Path, ctx: Context) -> Scores:
        """Main scores of the model in folder `embedder`; full results in mteb's own JSON under `out`."""


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of a run when it begins."""

    folder: Path
    """The run's folder: `config.yaml` from the start; `report.md`, `summary.json` and `stages/` at the end."""
    key: str
    """Of all that the run builds. The same command after a kill has the same one."""
    preset: str
    sweep: str | None
    home: Path
    """Root of the store."""
    directory: Path
    """Where the tracker may keep files."""


class Follower(ABC):
    """Follows one run. None of its methods raises, and only the three that end it wait."""

    @abstractmethod
    def event(self, label: str, event: dict[str, Json]) -> None:
        """An event of a stage as it happens: `metric` (a point of a training), `progress`, `done`, `alert` ..."""

    @abstractmethod
    def records(self, label: str, read: Callable[[], list[dict[str, Json]]]) -> None:
        """Some of the records that a stage wrote.

        Args:
            read: reads them; called by whoever shows them, when it likes.
        """

    @abstractmethod
    def finish(self) -> None:
        """The run is complete, and its folder as well."""

    @abstractmethod
    def fail(self) -> None:
        """The run ends without scores: it failed or was interrupted."""

    @abstractmethod
    def leave(self) -> None:
        """The run ends well for now: what it needs is under way elsewhere, and the same command goes on with it."""


class Tracker(Backend, ABC):
    """Mirrors a run's own record to a service while it runs. It can never fail a run."""

    @abstractmethod
    def follow(self, run: TrackedRun) -> Follower:
        """Begin to follow a run."""
