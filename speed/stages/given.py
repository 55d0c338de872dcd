"""What a user gives in place of a stage: seed examples, a generator, or a corpus, of one file or of several. Nothing
upstream of it is built."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import ClassVar

from speed.core.content import Content
from speed.core.errors import UserError, mistakes_of, refuse_for
from speed.core.stage import Pool, Stage
from speed.data.given_records import (
    MixedRecord,
    Part,
    given_examples,
    given_seeds,
    mixed_examples,
    mixed_size,
)
from speed.data.quality.word_overlap import WordOverlap
from speed.data.records import Example, Sample
from speed.data.text_files import lines_with_text, opened
from speed.ports import FormatName
from speed.runtime import Context, Runtime
from speed.stages.base import UntrainedModel

_FIRST = 100
"""Records that are read for a plan; a run reads all before anything is paid for."""


@dataclass(frozen=True)
class GivenSeed(Pool[Sample]):
    """Seed data from a file: row i is its i-th example."""

    file: Content

    name: ClassVar[str] = "given seed"
    row: ClassVar[type[Sample]] = Sample

    def check(self, runtime: Runtime) -> None:
        _read(given_seeds(self.file.path.expanduser()), "given.seed", self.file)

    def build(self, start: int, stop: int, ctx: Context) -> Iterator[Sample]:
        given = enumerate(islice(given_seeds(self.file.path.expanduser()), start, stop), start)
        for row, (prompt, example) in given:
            yield Sample(row=row, prompt=prompt, finish_reason="stop", example=example)
            ctx.progress(row + 1 - start, stop - start, "examples")


@dataclass(frozen=True)
class GivenModel(UntrainedModel):
    """Junior, senior or revisor from a folder or the hub, prompted as it was trained."""

    role: str
    prompt_format: FormatName
    """How prompts are laid out for it; what a payload of a run states itself counts instead."""

    name: ClassVar[str] = "given model"

    @property
    def label(self) -> str:
        return f"given {self.role}"

    def check(self, runtime: Runtime) -> None:
        self.engine.check_model(self.base.name)

    def run(self, out: Path, ctx: Context) -> None:
        self.engine.adopt(self.base.name, out, self.prompt_format)


@dataclass(frozen=True)
class GivenCorpus(Stage[Example]):
    """The training corpus from a file, as it stands there."""

    file: Content

    name: ClassVar[str] = "given corpus"

    def check(self, runtime: Runtime) -> None:
        _read(islice(given_examples(self.file.path.expanduser()), _FIRST), "given.corpus", self.file)

    def read_inputs(self, runtime: Runtime, say: Callable[[str], None]) -> None:
        _read(given_examples(self.file.path.expanduser()), "given.corpus", self.file)

    def run(self, out: Path, ctx: Context) -> None:
        overlap = WordOverlap()
        with (out / "examples.jsonl").open("w", encoding="utf-8") as file:
            for example in given_examples(self.file.path.expanduser()):
                file.write(example.line() + "\n")
                overlap.add(example)
                ctx.tally.counts.update(["in", "out", example.kind])
        for document in ("positive", "negative"):
            ctx.tally.metrics[f"query_words_in_{document}"] = overlap.shares(document)


@dataclass(frozen=True)
class MixedCorpus(Stage[Example]):
    """The training corpus from several files, mixed by their weights: `examples.jsonl`; and `origins.jsonl`, for each
    record the name of its part and the number of the part's records before it."""

    parts: tuple[Part, ...]
    records: int | None
    """Records that are taken, the first ones; None: as many as keep the proportions."""

    name: ClassVar[str] = "given corpus"

    def key_of(self, place: int) -> str:
        """The key by which a user names the file of a part."""
        return f"given.corpora.{place}.path"

    def check(self, runtime: Runtime) -> None:
        refuse_for(mistakes_of(partial(self._check_part, place) for place in range(len(self.parts))))
        self._refuse_too_few(count_mixed(self.parts, None))

    def _check_part(self, place: int) -> None:
        part = self.parts[place]
        records = given_examples(part.path.path.expanduser(), part.tasks, part.kind)
        _read(islice(records, _FIRST), self.key_of(place), part.path)

    def read_inputs(self, runtime: Runtime, say: Callable[[str], None]) -> None:
        self._refuse_too_few(sum(1 for _ in self._mixed()))

    def run(self, out: Path, ctx: Context) -> None:
        overlap, by_part = WordOverlap(), dict.fromkeys((part.name for part in self.parts), 0)
        with (
            (out / "examples.jsonl").open("w", encoding="utf-8") as file,
            (out / "origins.jsonl").open("w", encoding="utf-8") as origins,
        ):
            for part, number, example in self._mixed():
                name = self.parts[part].name
                file.write(example.line() + "\n")
                origins.write(json.dumps([name, number]) + "\n")
                overlap.add(example)
                by_part[name] += 1
                ctx.tally.counts.update(["in", "out", example.kind])
        self._refuse_too_few(sum(by_part.values()))
        ctx.tally.metrics["records_by_part"] = by_part
        for document in ("positive", "negative"):
            ctx.tally.metrics[f"query_words_in_{document}"] = overlap.shares(document)

    def _mixed(self) -> Iterator[MixedRecord]:
        return islice(mixed_examples(self.parts), self.records)

    def _refuse_too_few(self, found: int) -> None:
        if self.records is not None and found < self.records:
            alone = len(self.parts) == 1
            files = f"{self.key_of(0)}={self.parts[0].path.path} gives" if alone else "given.corpora give"
            raise UserError(
                f"given.records={self.records} wants more than there are: {files} at most {found:,}"
                f"{'' if alone else ' in the proportions of their weights'}\n"
                f"  take fewer, or {'a larger file' if alone else 'other weights, or larger files'}"
            )


@dataclass(frozen=True)
class FirstOfCorpus(MixedCorpus):
    """The first records of the one file that `given.corpus` names: a mixture of one part."""

    def key_of(self, place: int) -> str:
        return "given.corpus"


def count_mixed(parts: Sequence[Part], records: int | None) -> int:
    """Records of a mixed corpus by lines of the files, or at most those where a line holds a rejected row; of files
    that are not there, what is wanted of them."""
    lines = [count_lines(part.path) for part in parts]
    most = (records or 0) if 0 in lines else mixed_size([part.weight for part in parts], lines)
    return most if records is None else min(records, most)


def count_lines(file: Content) -> int:
    """Lines of a file that hold text; none where the file is not there, which a plan tells elsewhere."""
    path = file.path.expanduser()
    return lines_with_text(path) if path.is_file() else 0


def count_seeds(file: Content) -> int:
    """Examples of a file of seeds, read once for as long as it stays as it is; none where it is not there."""
    path = file.path.expanduser()
    return _seeds(path, path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else 0


@lru_cache(maxsize=16)
def _seeds(path: Path, modified: int, size: int) -> int:
    return sum(1 for _ in given_seeds(path))


def _read(records: Iterable[object], key: str, file: Content) -> None:
    """Read records for their mistakes.

    Raises:
        UserError: for a file that is not there, a line that is no record, or a file without records.
    """
    opened(file.path, f"{key}={file.path}").close()
    if not sum(1 for _ in records):
        raise UserError(f"{key}={file.path}: there is no example in it")
