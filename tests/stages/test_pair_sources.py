"""Pairs without a teacher: faultless before faulty, whole or from the first faulty field on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pydantic import PrivateAttr
from scripted_judge import Lists
from scripted_writer import NoWeights

from speed.core.build import build
from speed.core.graph import Goal, goals
from speed.core.spec import Json
from speed.core.stage import Pool, silence
from speed.core.store import Store
from speed.core.work import Work
from speed.data.records import Candidates, Kind, Pair, Prompt
from speed.ports import Engine, Generate, Generated, Sampling
from speed.runs.stage_lines import stage_line
from speed.runtime import Context, Runtime
from speed.stages.field_pairs import FieldPairs
from speed.stages.verified_pairs import VerifiedPairs

LONG = " ".join(["word"] * 20)


def sts(first: str, second: str, third: str) -> str:
    return json.dumps({"S1": first, "S2": second, "S3": third})


GOOD, ALSO_GOOD = sts("a red word", "a word", "the word"), sts("one word", "a word", "my word")
ONE_FAULT, TWO_FAULTS = sts("a red word", LONG, "a word"), sts("a red word", LONG, LONG + " more")
UNREADABLE = "no JSON at all"


def listed(row: int, *texts: str) -> Candidates:
    prompt = Prompt(text=f"p{row}", template="", kind=Kind.STS, task="t", slots={"unit": "phrase"})
    return Candidates(row=row, prompt=prompt, texts=texts, finish_reasons=("stop",) * len(texts))


def built(pool: Pool[Pair], rows: int, home: Path) -> list[Pair]:
    store = Store(home).open()
    take = pool.take(rows)
    for goal in goals([take]):
        build(goal, store, Runtime(), silence)
    return list(Context(store, Runtime()).rows(take))


def figures_of(pool: Pool[Pair], home: Path) -> dict[str, Json]:
    """Of a pool that is built."""
    return stage_line(Goal(pool, 7, ()), Store(home).open(), True).metrics


def test_guidelines_alone_prefer_the_faultless_to_the_faultiest(tmp_path: Path) -> None:
    lists = (
        listed(0, ONE_FAULT, GOOD, TWO_FAULTS, ALSO_GOOD),
        listed(1, GOOD, UNREADABLE, TWO_FAULTS),
        listed(2, GOOD, ALSO_GOOD),
        listed(3, ONE_FAULT, TWO_FAULTS),
        listed(4, ONE_FAULT, UNREADABLE),
        listed(5, UNREADABLE, UNREADABLE),
        listed(6, GOOD, ONE_FAULT).reject("no_task"),
    )
    pool = VerifiedPairs(Lists(lists))
    assert pool.work(0, 7) == Work(), "no call, no token, no dollar"
    rows = built(pool, 7, tmp_path)
    assert [row.rejected for row in rows] == [
        None, None, "all_faultless", "all_faulty", "none_faultless", "none_readable", "no_task",
    ]  # fmt: skip
    assert (rows[0].chosen, rows[0].rejected_text) == (GOOD, TWO_FAULTS)
    assert (rows[0].best, rows[0].worst, rows[0].chosen_faults) == (1, 2, ())
    assert (rows[1].chosen, rows[1].rejected_text) == (GOOD, UNREADABLE)
    figures = figures_of(pool, tmp_path)
    assert figures["length_gap"] == (2 * len(GOOD) - len(TWO_FAULTS) - len(UNREADABLE)) / 2
    assert (figures["longer_wins"], figures["chosen_faulty"], figures["rejected_faulty"]) == (0.5, 0.0, 1.0)


class Continuer(Engine):
    """Writes the n-th text of a script, whatever the request."""

    block: int = 2
    script: tuple[str, ...]
    _asked: list[list[Generate]] = PrivateAttr(default_factory=list)

    def generate(
        self, weights: Path, calls: Iterable[Sequence[Generate]], sampling: Sampling, ctx: Context
    ) -> Iterator[list[Generated]]:
        for requests in calls:
            self._asked.append(list(requests))
            yield [
                Generated(key=one.key, index=n, text=self.script[n], finish_reason="stop", tokens=2)
                for one in requests
                for n in range(one.n)
            ]


def test_field_pairs_begin_where_the_answer_goes_wrong(tmp_path: Path) -> None:
    lists = (listed(0, GOOD, TWO_FAULTS), listed(1, GOOD, UNREADABLE), listed(2, ONE_FAULT), listed(3, GOOD))
    still_faulty, mended = f' "{LONG} again", "S3": "a word"}}', ' "a short word", "S3": "a word"}'
    engine = Continuer(script=(still_faulty, mended, mended))
    sampling, limits = Sampling(temperature=1.0), dict.fromkeys(Kind, 50)

    def field_pairs(engine: Continuer) -> FieldPairs:
        return FieldPairs(
            root=Lists(lists),
            junior=NoWeights(),
            engine=engine,
            sampling=sampling,
            continuations=3,
            max_tokens=limits,
            seed=0,
        )

    pool = field_pairs(engine)
    rows = built(pool, 4, tmp_path)
    assert [row.rejected for row in rows] == [None, "no_faulty_field", None, "no_faulty_field"]
    assert [[one.key for one in block] for block in engine._asked] == [["0"], ["2"]]
    assert engine._asked[0][0].begun == rows[0].begun == '{"S1": "a red word", "S2":'
    assert engine._asked[0][0].prompt == "p0"
    assert rows[0].begun + rows[0].rejected_text == TWO_FAULTS
    assert rows[0].chosen == mended
    left = rows[0].rejected_text, rows[2].rejected_text
    assert figures_of(pool, tmp_path)["length_gap"] == len(mended) - sum(map(len, left)) / 2
    assert pool.work(0, 4) == Work(generated=12)
    hopeless = field_pairs(Continuer(script=(still_faulty,) * 3))
    assert built(hopeless, 4, tmp_path)[0].rejected == "none_faultless"
