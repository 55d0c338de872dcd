"""The page of a run: which records it holds, what it says of them, and that nothing of theirs is markup or code."""

from __future__ import annotations

import base64
import hashlib
import random
import re
import shutil
from collections import Counter
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from made_up_run import MadeUpRun, made_up_run

from speed.core.store import Store
from speed.data.evaluation_record import scores_of
from speed.data.quality.contaminated_records import Contamination, TaskOverlap
from speed.data.records import Kind, Prompt
from speed.runs import report
from speed.runs.page import of_run
from speed.runs.page.drawing import BLUE, drawn, inlined
from speed.runs.page.flow import HEIGHT, WIDTH, flow
from speed.runs.page.lives import lives
from speed.runs.page.packing import LONGEST, packed, packed_records, unpacked
from speed.runs.page.spread import Spread
from speed.runs.page.story import coloured, difference, story
from speed.runs.page.telling import told

HOSTILE = "<script>alert(1)</script><!--</SCRIPT><img src=x onerror=alert(2)>\u2028\u2029\u202e\x1b[31m{{7*7}}\"' "


class Reader(HTMLParser):
    """Everything that a page says and asks for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.words: list[str] = []
        self._within = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._within = tag if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        {"script": self.scripts, "style": self.styles}.get(self._within, self.words).append(data)

    @property
    def records(self) -> list[dict[str, Any]]:
        """What the page's script finds."""
        return list(unpacked(self.scripts[0].strip('"'))["records"])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> MadeUpRun:
    """A run whose texts would break a careless page."""
    return made_up_run(tmp_path_factory.mktemp("made-up"), "scale.examples=300", hostile=HOSTILE)


@pytest.fixture(scope="module")
def read(run: MadeUpRun) -> Reader:
    """Its page."""
    return Reader(of_run.html(HOSTILE, {**run.about, "command": HOSTILE}, run.order, run.store, run.lines, run.scores))


def test_overlaps_and_ceilings_stand_where_scores_are_read(run: MadeUpRun) -> None:
    overlap = TaskOverlap(texts=9, records=7)
    found = Contamination(
        words=13, similarity=0.8, records=250, every=1, contaminated=7, tasks={"One": overlap}, left_out=("Two",)
    ).model_dump(mode="json")
    lines = [
        line.model_copy(update={"metrics": {**line.metrics, "contamination": found}})
        if "judged" in line.metrics
        else line
        for line in run.lines
    ]
    scores = scores_of({"One": 97.0, "Two": 94.9}, {"One": "Retrieval", "Two": "STS"})
    told = "Contamination: 7 of 250 examples of the corpus hold a text of these tasks"
    page = " ".join(Reader(of_run.html("run", run.about, run.order, run.store, lines, scores)).words)
    text = report.markdown("run", run.about, lines, scores)
    for shown in (page, text):
        assert f"{told} or nearly so" in shown
        assert "not looked for: Two." in shown
        assert "Near its ceiling: One. From a score of 95 on at most 5 points are left to win" in shown
    assert page.index(told) < page.index("all 2 tasks")
    assert "| One | Retrieval | 97.00 | 7 | near its ceiling |" in text
    assert "| Two | STS | 94.90 | - |  |" in text
    assert '"every": 1' not in text, "no figure among those of the stage"


def test_a_sample_is_spread_over_groups_and_depends_on_names_alone() -> None:
    def sample(order: list[int]) -> list[int]:
        spread: Spread[int] = Spread(30)
        for number in order:
            spread.add(
                ("rare",) if number % 100 == 0 else ("some",) if number % 10 == 0 else ("common",), str(number), number
            )
        assert spread.counts == {("rare",): 10, ("some",): 90, ("common",): 900}
        return spread.items()

    found = sample(list(range(1000)))
    sizes = Counter("rare" if number % 100 == 0 else "some" if number % 10 == 0 else "common" for number in found)
    assert sizes == {"rare": 10, "some": 10, "common": 10}
    assert sample(list(reversed(range(1000)))) == found
    assert len(sample(list(range(1000)))) == 30
    few: Spread[int] = Spread(30)
    few.add(("only",), "1", 1)
    assert few.items() == [1]


def test_what_is_packed_comes_back_with_control_characters_spelt_out_and_long_texts_cut() -> None:
    assert unpacked(packed({"a": [HOSTILE, 1, None]})) == {
        "a": [HOSTILE.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e"), 1, None]
    }
    assert packed({"a": 1}) == packed({"a": 1})
    assert re.fullmatch(r"[A-Za-z0-9+/=]+", packed([HOSTILE]))
    cut = unpacked(packed("x" * (LONGEST + 5)))
    assert cut.startswith("x" * LONGEST + " ... 5 characters")
    assert unpacked(packed("\ud800")) == "\\ud800"
    noise = [str(random.Random(number).random()) * 40 for number in range(64)]
    text, count = packed_records({}, noise, most=600)
    assert len(text) <= 600
    assert 1 <= count < 64
    assert unpacked(text)["records"] == noise[:: 64 // count]


def test_every_life_is_counted_and_told_with_its_end(run: MadeUpRun) -> None:
    found = lives(run.order, run.store)
    rows = {line.label: line for line in run.lines}
    ends = Counter((ending.life, ending.outcome) for ending, count in found.counts.items() for _ in range(count))
    assert ends["corpus", "kept"] == rows["dedup"].rows_out
    assert ends["corpus", "repeat"] == rows["dedup"].rejected["duplicate"]
    assert ends["corpus", "rejected"] == _rejected_rows(run)
    assert ends["lists", "kept"] + ends["lists", "rejected"] == 8
    assert ends["seed", "kept"] == rows["seed data"].rows_out
    records = {record["id"]: record for record in (told(life, found) for life in found.sample)}
    assert len(records) == found.counts.total(), "few records are all in the page"
    repeat = next(record for record in records.values() if record["outcome"] == "repeat")
    steps = {step["name"]: step for step in repeat["steps"]}
    assert list(steps) == ["topic", "task", "prompt", "example", "revision", "repeat"] or "revision" not in steps
    assert ["link", f"corpus/{repeat['row'] - 10}", f"to row {repeat['row'] - 10}"] in steps["repeat"]["blocks"]
    assert any(block[0] == "diff" for block in steps["repeat"]["blocks"])
    assert steps["example"]["by"] == "senior"
    assert any(block[0] == "list" and block[3] == [0] for block in steps["task"]["blocks"]), (
        "the task among its siblings"
    )
    assert any("Deep/Down" in block[-1] for block in steps["topic"]["blocks"])


def _rejected_rows(run: MadeUpRun) -> int:
    """Rejected rows among those that deduplication reads."""
    goal = next(goal for goal in run.order if goal.node.name == "dedup")
    return sum(row.rejected is not None for row in run.store.rows(goal.node.samples))  # type: ignore[attr-defined]


def test_a_judged_list_has_its_answers_verdict_reason_pair_and_revision(run: MadeUpRun) -> None:
    found = lives(run.order, run.store)
    record = next(told(life, found) for life in found.sample if life.ending.life == "lists" and life.row == 0)
    steps = {step["name"]: step for step in record["steps"]}
    answers = next(block for block in steps["4 answers"]["blocks"] if block[0] == "answers")[2]
    assert [answer["mark"] for answer in answers] == ["", "", "best", "worst"]
    assert answers[3]["text"].endswith("no JSON")
    assert "no_json" in answers[3]["note"]
    assert ["text", "the judge's reason", f"{HOSTILE}It fits best."] in steps["judgement"]["blocks"]
    assert any("answer 3 before answer 4" in str(block) for block in steps["pair"]["blocks"])
    assert any(block[0] == "diff" for block in steps["revision of answer 2"]["blocks"])


def test_rare_ends_and_all_kinds_are_in_a_small_sample(run: MadeUpRun) -> None:
    found = lives(run.order, run.store, size=60)
    assert len(found.sample) == 60
    assert {life.ending.kind for life in found.sample} == {str(kind) for kind in Kind}
    assert {life.ending.outcome for life in found.sample} == {"kept", "rejected", "repeat"}
    assert found.sample == lives(run.order, run.store, size=60).sample
    assert found.counts == lives(run.order, run.store).counts


def test_a_run_that_stopped_tells_what_it_has(run: MadeUpRun, tmp_path: Path) -> None:
    shutil.copytree(run.store.home, tmp_path / "home")
    store = Store(tmp_path / "home")
    for name in ("dedup", "embedder", "evaluation", "revision"):
        shutil.rmtree(tmp_path / "home" / "store" / name)
    lines = [line for line in run.lines if line.label not in ("dedup", "embedder", "evaluation", "revision")]
    read = Reader(of_run.html("stopped", run.about, run.order, store, lines, None, "synthesis: nearly all\n  a remedy"))
    assert "a remedy" in read.words
    assert {record["outcome"] for record in read.records if record["life"] == "corpus"} == {"undecided", "rejected"}


def test_nothing_of_a_page_is_fetched_and_only_its_own_script_runs(read: Reader) -> None:
    policy = next(
        about["content"] for tag, about in read.elements if about.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    data, script = read.scripts
    (style,) = read.styles
    assert re.fullmatch(r'"[A-Za-z0-9+/=]+"', data)
    for text, kind in ((script, "script-src"), (style, "style-src")):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}'" in policy
    for tag, about in read.elements:
        assert tag not in ("iframe", "object", "embed", "base", "form" if about.get("action") else "object"), tag
        assert not [name for name in about if name.startswith("on") or name in ("style", "srcdoc")], (tag, about)
        for name in ("src", "href", "xlink:href", "action", "data"):
            assert (about.get(name) or "#").startswith(("#", "data:,")), (tag, about)
    assert "http" not in style
    assert not re.search(r"\beval\b|innerHTML|insertAdjacentHTML|document\.write|new Function|outerHTML", script)


def test_hostile_texts_are_texts(read: Reader) -> None:
    assert Counter(tag for tag, _ in read.elements)["script"] == 2
    assert not any(tag == "img" for tag, _ in read.elements)
    heading = next(words for words in read.words if words.startswith("<script>alert(1)"))
    assert "{{7*7}}" in heading
    assert "\x1b" not in heading
    assert "\u202e" not in heading
    record = next(record for record in read.records if record["outcome"] == "kept" and record["life"] == "corpus")
    assert record["title"].startswith("<script>alert(1)</script>")


def test_a_page_says_what_the_report_says(read: Reader, run: MadeUpRun) -> None:
    said = " ".join(" ".join(read.words).split())
    assert "39.25" in said
    for line in run.lines:
        assert line.label in said
    parts = {about["href"] for tag, about in read.elements if tag == "a" and (about.get("href") or "").startswith("#")}
    there = {f"#{about['id']}" for _, about in read.elements if about.get("id")}
    assert parts <= there, "every link leads somewhere"
    assert {"#pipeline", "#scores", "#training", "#deduplication", "#records", "#costs", "#stages"} <= parts


def test_the_picture_of_the_pipeline_is_figure_2(run: MadeUpRun) -> None:
    drawn_flow = flow(run.order, run.lines)
    arrows = {arrow.of for arrow in drawn_flow.arrows}
    assert {
        ("topics", "tasks"), ("tasks", "seed data"), ("seed data", "junior"), ("junior", "root data"),
        ("root data", "preferences"), ("preferences", "senior"), ("senior", "synthesis"), ("root data", "revisions"),
        ("revisions", "revisor"), ("revisor", "revision"), ("synthesis", "revision"), ("revision", "dedup"),
        ("dedup", "embedder"), ("embedder", "evaluation"), ("tasks", "root data"), ("tasks", "synthesis"),
    } == arrows  # fmt: skip
    corners = [(box.x, box.y) for box in drawn_flow.boxes]
    assert len(set(corners)) == len(corners)
    for box in drawn_flow.boxes:
        assert box.x + WIDTH <= drawn_flow.width
        assert box.y + HEIGHT <= drawn_flow.height
    to_dedup = next(arrow for arrow in drawn_flow.arrows if arrow.of == ("revision", "dedup"))
    assert to_dedup.lost.startswith("-")


def test_the_words_of_a_box_of_a_large_run_stay_in_it(run: MadeUpRun) -> None:
    much = {
        "rows_in": 1_150_000,
        "rows_out": 920_000,
        "cost": {"calls": 1_150_000},
        "seconds": 1e6,
        "dollars": 12_345.6,
    }
    lines = [line.model_copy(update=much) for line in run.lines]
    unpriced = [line.model_copy(update=much | {"dollars": None, "seconds": 5_900.0}) for line in run.lines]
    for box in (*flow(run.order, lines).boxes, *flow(run.order, unpriced).boxes):
        assert max(len(box.rows), len(box.took), len(box.calls)) <= 23, box


@pytest.mark.parametrize(
    "overrides", [("preference=none",), ("revisor=none",), ("scale.writer=teacher", "preference=none", "revisor=none")]
)
def test_ablations_have_pages_too(overrides: tuple[str, ...], tmp_path: Path) -> None:
    run = made_up_run(tmp_path, *overrides)
    read = Reader(of_run.html("ablation", run.about, run.order, run.store, run.lines, run.scores))
    assert any(record["life"] == "corpus" for record in read.records)


def test_lists_of_every_round_have_places_of_their_own(tmp_path: Path) -> None:
    run = made_up_run(tmp_path, "preference.rounds=2", "counts.pairs=40", "counts.revisions=10")
    ids = [life.id for life in lives(run.order, run.store).sample]
    assert len(set(ids)) == len(ids)
    assert {"lists/0", "lists 2/0"} <= set(ids)
    assert ("senior", "root data") in {arrow.of for arrow in flow(run.order, run.lines).arrows}
    read = Reader(of_run.html("rounds", run.about, run.order, run.store, run.lines, run.scores))
    assert {record["id"] for record in read.records} == set(ids)
    writers = {life.writer: life.author for life in lives(run.order, run.store).sample if life.ending.life == "lists"}
    assert writers == {"root data": "junior", "root data 2": "senior"}


@pytest.mark.parametrize(
    ("chosen", "cause", "stage", "why"),
    [
        (("filter=consistent",), {"positive_not_found"}, "filter", "not among the nearest"),
        (("filter=judged",), {"unanswered"}, "relabelling", "neither its positive"),
    ],
)
def test_what_was_left_out_after_deduplication_is_not_told_as_kept(
    chosen: tuple[str, ...], cause: set[str], stage: str, why: str, tmp_path: Path
) -> None:
    run = made_up_run(tmp_path, *chosen)
    found = lives(run.order, run.store)
    corpus = [told(life, found) for life in found.sample if life.ending.life == "corpus"]
    out = [record for record in corpus if record["outcome"] == "left out"]
    of_dedup = sum(record["outcome"] == "kept" for record in corpus) + len(out)
    assert len(out) == -(-of_dedup // 3)
    assert {record["cause"] for record in out} == cause
    html = of_run.html("left out", run.about, run.order, run.store, run.lines, run.scores)
    assert f'<dd>90</dd><dd class="note">of 100 that {stage} read' in html, "the records that the embedder learns from"
    last = out[0]["steps"][-1]
    assert last["by"] == stage
    assert why in last["blocks"][0][2]


def test_a_page_says_how_relabelling_changed_what_was_kept(tmp_path: Path) -> None:
    """Of three records the first is left out, the second's documents changed places, the third has two positives."""
    run = made_up_run(tmp_path, "filter=judged")
    found = lives(run.order, run.store)
    in_order = sorted((life for life in found.sample if life.ending.life == "corpus"), key=lambda life: life.row)
    corpus = [told(life, found) for life in in_order]
    read = [record for record in corpus if record["outcome"] in ("kept", "left out")]
    assert [(record["outcome"], record["cause"]) for record in read[:3]] == [
        ("left out", "unanswered"), ("kept", "positive_replaced"), ("kept", "further_positives"),
    ]  # fmt: skip
    replaced = read[1]["steps"]
    assert [step["name"] for step in replaced[-2:]] == ["in the corpus", "relabelled"]
    assert "they changed places" in replaced[-1]["blocks"][0][2]
    assert "a further record" in read[2]["steps"][-1]["blocks"][0][2]


def test_each_stage_that_leaves_out_reads_what_the_one_before_kept(tmp_path: Path) -> None:
    """A filter leaves out the records 0, 3, 6 ..., and of 1, 2, 4, 5, 7, 8 ... relabelling 1, 5, 10 ..."""
    run = made_up_run(tmp_path, "filter=consistent", "filter.relabel=true")
    causes = [life.ending.cause for life in sorted(lives(run.order, run.store).sample, key=lambda life: life.row)]
    out = [cause for cause in causes if cause in ("positive_not_found", "unanswered")]
    assert out[:5] == ["positive_not_found", "unanswered", "positive_not_found", "unanswered", "positive_not_found"]


def test_a_page_that_cannot_be_made_is_a_warning(
    run: MadeUpRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = [line.model_copy(update={"metrics": {"best_by_place": 7}}) for line in run.lines]
    page = partial(of_run.html, "run", run.about, run.order, run.store, broken, run.scores)
    assert of_run.write(tmp_path, page) is None
    told_of = capsys.readouterr().err
    assert told_of.startswith("warning: report.html could not be made (TypeError")
    assert list(tmp_path.iterdir()) == []


def test_pictures_have_no_styles_and_keep_texts_apart_from_markup(tmp_path: Path) -> None:
    def draw(figure: Any, points: list[int]) -> None:
        figure.add_axes((0.1, 0.1, 0.8, 0.8)).plot(points, points, color=BLUE, label="<b>&")
        figure.legend()

    picture = drawn(draw, [1, 2], 3, 2, 'a "name"', tmp_path)
    assert picture is not None
    read = Reader(str(picture))
    assert all("style" not in about and "xmlns" not in about for _, about in read.elements)
    assert "<b>&" in read.words
    assert dict(read.elements[0][1])["aria-label"] == 'a "name"'
    assert "script" not in inlined('<svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>', "x")


def test_a_picture_is_drawn_once_for_the_same_data_and_again_for_others(tmp_path: Path) -> None:
    seen = list[int]()

    def draw(_: Any, value: int) -> None:
        seen.append(value)

    first = drawn(draw, 1, 3, 2, "name", tmp_path)
    assert [drawn(draw, value, 3, 2, "name", tmp_path) for value in (1, 2, 1)] == [first, first, first], "all are empty"
    assert seen == [1, 2]


def test_one_example_is_told_from_its_topic_to_the_verdict(run: MadeUpRun) -> None:
    asked: list[tuple[Kind | None, str]] = []

    def truth(prompt: Prompt, text: str) -> list[str]:
        asked.append((prompt.kind, text))
        return ["Before."] if len(asked) == 1 else ["After.", "And more."]

    lines = story(lives(run.order, run.store), truth)
    text = "\n".join(lines)
    assert [line for line in lines if len(line) > 80] == []
    assert [kind for kind, _ in asked] == [Kind.RETRIEVAL] * 2
    assert asked[0][1] != asked[1][1], "one that a revision has changed"
    names = [line[2:12].strip() for line in lines if line.startswith("  ") and line[2:3].strip()]
    assert names[:5] == ["topic", "task", "prompt", "written", "revised"]
    assert names[-4:] == ["task", "chosen", "rejected", "judge"]
    assert "Before: Before. Now: After. And more." in " ".join(text.split())
    assert "\x1b" not in text, "what a record says cannot steer a terminal"


def test_a_story_needs_no_truth(run: MadeUpRun) -> None:
    lines = story(lives(run.order, run.store), lambda prompt, text: None)
    assert lines
    assert not any(line.startswith("  truth") for line in lines)


def test_what_a_revision_changed_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    told = difference("a b c d", "a x c d e")
    assert told == "a [-b-] {+x+} c d {+e+}"
    assert difference(" ".join("abcdefghijklmnop"), " ".join("abcdefghijklmnop")) == "a b c d e ... l m n o p"
    assert coloured([told]) == told
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert coloured([told]) == "a \x1b[31mb\x1b[0m \x1b[32mx\x1b[0m c d \x1b[32me\x1b[0m"
