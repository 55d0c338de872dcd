"""A teacher that answers in batches: the answers of any teacher, in order, each paid for once, at the batch's price."""

from __future__ import annotations

from pathlib import Path
from threading import Thread

import pytest
from batch_provider import BatchProvider, prompt_of
from quick_batches import batching, bought_once, ended, pending, saying, texts, until_later
from quick_teacher import answers, ask, context, fine, good

from speed.core.errors import UserError
from speed.stages.asking import ask_all_in_order
from speed.teaching.entry import Entry
from speed.teaching.journal import Journal
from speed.teaching.session import session_at

ROWS = [f"row {row}" for row in range(30)]


def entries(home: Path) -> dict[str, Entry]:
    session_at(home).journal.flush()
    return {entry.messages[-1]["content"]: entry for entry in Journal(home / "journal")}


def test_the_answers_are_those_of_any_teacher_in_their_order(serving: BatchProvider, tmp_path: Path) -> None:
    direct = context(tmp_path / "direct", serving)
    expected = answers(ROWS, direct)
    serving.paid.clear()
    serving.arrivals.clear()
    ctx = context(tmp_path / "batch", serving)
    assert answers(ROWS, ctx, by=batching()) == expected
    assert len(serving.batches) == 1
    assert bought_once(serving, ROWS)
    one_by_one, batched = entries(tmp_path / "direct"), entries(tmp_path / "batch")
    for row in ROWS:
        (first, second) = (
            each.model_dump(exclude={"seconds", "time", "batch"}) for each in (one_by_one[row], batched[row])
        )
        assert first == second
    (done,) = ended(tmp_path / "batch")
    assert {entry.batch for entry in batched.values()} == {done["id"]}
    assert (done["answered"], done["failed"], done["status"]) == (30, 0, "completed")
    assert (ctx.tally.cost, ctx.tally.ledger.lines()) == (direct.tally.cost, direct.tally.ledger.lines())
    assert {line["custom_id"] for line in serving.requests["batch-0"]} == {entry.key for entry in batched.values()}


def test_what_the_journal_has_is_in_no_batch(serving: BatchProvider, tmp_path: Path) -> None:
    answers(ROWS[:10], context(tmp_path, serving))
    ctx = context(tmp_path, serving)
    found = answers(ROWS, ctx, by=batching())
    assert [prompt_of(line) for line in serving.requests["batch-0"]] == ROWS[10:]
    assert (ctx.tally.cost["cached"], ctx.tally.cost["calls"]) == (10, 20)
    again = context(tmp_path, serving)
    assert answers(ROWS, again, by=batching()) == answers(ROWS, again) == found
    assert len(serving.batches) == 1
    assert again.tally.cost["calls"] == 0


def test_requests_that_failed_form_the_next_batch(serving: BatchProvider, tmp_path: Path) -> None:
    prompts = ["a", "b | 500 ok", "c | 429 late ok", "d | gone ok", "e | 400", "f"]
    ctx = context(tmp_path, serving)
    found = answers(prompts, ctx, by=batching())
    assert [answer.cause for answer in found] == ["ok", "ok", "ok", "ok", "content_filter", "ok"]
    sent = [sorted(prompt_of(line)[0] for line in lines) for lines in serving.requests.values()]
    assert sent == [["a", "b", "c", "d", "e", "f"], ["b", "c", "d"], ["c"]]
    assert {prompt[0]: entry.resent for prompt, entry in entries(tmp_path).items()} == {
        **dict.fromkeys("aef", 0),
        **dict.fromkeys("bd", 1),
        "c": 2,
    }
    assert [(each["answered"], each["failed"]) for each in ended(tmp_path)] == [(2, 4), (2, 1), (1, 0)]
    assert (ctx.tally.cost["resent"], ctx.tally.cost["content_filter"]) == (4, 1)


def test_a_request_that_fails_again_and_again_is_given_up(serving: BatchProvider, tmp_path: Path) -> None:
    lost, fine_one = answers(["a | 500", "b"], context(tmp_path, serving), by=batching())
    assert (lost.cause, lost.unreachable, fine_one.cause) == ("http_5xx", True, "ok")
    assert serving.sent == {"a | 500": 3, "b": 1}
    assert entries(tmp_path)["a | 500"].resent == 2


def test_answers_of_no_use_are_asked_for_again_in_a_batch_of_their_own(serving: BatchProvider, tmp_path: Path) -> None:
    prompts = ["a | ok:bad ok", "b", "c | length:cut ok", "d | ok:bad ok:bad"]
    ctx = context(tmp_path, serving)
    found = answers(prompts, ctx, check=good, by=batching())
    assert [answer.cause for answer in found] == ["ok", "ok", "ok", "no_json"]
    first, second = serving.requests.values()
    assert [prompt_of(line)[0] for line in second] == ["a", "c", "d"]
    assert {line["custom_id"] for line in first}.isdisjoint(line["custom_id"] for line in second)
    assert [line["body"]["max_tokens"] for line in second] == [50, 100, 50]
    assert ["retry" in line["body"] for line in second] == [False] * 3
    assert ctx.tally.cost["retries"] == 3


def test_the_same_question_is_in_a_batch_once(serving: BatchProvider, tmp_path: Path) -> None:
    found = answers(["a", "b", "a"], context(tmp_path, serving), by=batching())
    assert found[0] == found[2]
    assert serving.sent == {"a": 1, "b": 1}


def test_a_batch_that_expires_keeps_what_was_answered(serving: BatchProvider, tmp_path: Path) -> None:
    serving.end = lambda batch: "expired" if batch["id"] == "batch-0" else "completed"
    prompts = [f"{row} | late ok" if row % 3 else f"{row} | ok" for row in range(9)]
    found = answers(prompts, context(tmp_path, serving), by=batching())
    assert all(answer.cause == "ok" for answer in found)
    assert bought_once(serving, prompts)
    assert [(each["status"], each["answered"], each["failed"]) for each in ended(tmp_path)] == [
        ("expired", 3, 6),
        ("completed", 6, 0),
    ]


@pytest.mark.parametrize("end", ["cancelled", "failed"])
def test_a_batch_that_is_cancelled_or_refused_ends_the_run_and_the_next_asks_for_the_rest(
    serving: BatchProvider, tmp_path: Path, end: str
) -> None:
    serving.end = lambda batch: end if batch["id"] == "batch-0" else "completed"
    prompts = ["a", "b | late ok" if end == "cancelled" else "b", "c"]
    with pytest.raises(UserError, match=r"was cancelled at|refused batch batch-0 \(invalid_json_line\)"):
        answers(prompts, context(tmp_path, serving), by=batching())
    assert pending(tmp_path) == []
    assert all(answer.cause == "ok" for answer in answers(prompts, context(tmp_path, serving), by=batching()))
    assert serving.paid == dict.fromkeys(prompts, 1)
    assert [each["answered"] for each in ended(tmp_path)] == ([2, 1] if end == "cancelled" else [0, 3])


def test_files_are_no_larger_than_the_server_takes(serving: BatchProvider, tmp_path: Path) -> None:
    assert len(answers(ROWS, context(tmp_path, serving), by=batching(requests=8))) == 30
    assert [len(lines) for lines in serving.requests.values()] == [8, 8, 8, 6]
    size = max(map(len, serving.files["file-0"].splitlines()))
    assert len(answers(ROWS, context(tmp_path / "b", serving), by=batching(megabytes=5.5 * size / 1e6))) == 30
    assert all(len(lines) == 5 for lines in [*serving.requests.values()][4:])


def test_a_server_that_takes_fewer_at_once_gets_fewer(serving: BatchProvider, tmp_path: Path) -> None:
    serving.most_requests = 3
    said = saying(ctx := context(tmp_path, serving))
    assert len(answers(ROWS, ctx, by=batching())) == 30
    assert bought_once(serving, ROWS)
    sizes = [each["answered"] for each in ended(tmp_path) if each["status"] == "completed"]
    assert sum(sizes) == 30
    assert max(sizes) == 3
    assert any("batches have 3 requests at most from now on" in each for each in said), "after 30, 15 and 7"


def test_a_server_with_no_room_for_one_request_ends_the_run(serving: BatchProvider, tmp_path: Path) -> None:
    serving.most_requests = 0
    with pytest.raises(UserError, match="does not even take one request"):
        answers(["a", "b"], context(tmp_path, serving), by=batching())


def test_submit_leave_and_come_back(serving: BatchProvider, tmp_path: Path) -> None:
    serving.busy = True
    leaving = batching(wait=False)
    for _ in range(2):
        with until_later() as said:
            answers(ROWS, context(tmp_path, serving), by=leaving)
        assert "30 requests are with http" in said[0]
        assert "(batches: batch-0)" in said[0]
    assert "30 requests are in 1 batches" in leaving.under_way(tmp_path)
    serving.busy = False
    ctx = context(tmp_path, serving)
    assert [answer.cause for answer in answers(ROWS, ctx, by=leaving)] == ["ok"] * 30
    assert bought_once(serving, ROWS)
    assert ctx.tally.cost["calls"] == 30
    assert leaving.under_way(tmp_path) == ""


def test_what_is_answered_is_given_before_the_run_leaves_the_rest(serving: BatchProvider, tmp_path: Path) -> None:
    leaving, found = batching(wait=False, requests=10), []
    serving.end = lambda batch: "in_progress" if batch["id"] == "batch-1" else "completed"
    with until_later() as said:
        for each in leaving.ask(((ask(row), fine) for row in ROWS), context(tmp_path, serving)):
            found.append(each)
    assert "10 requests are with" in said[0]
    assert len(found) == 10, "the rows behind the open ones wait"
    assert len(entries(tmp_path)) == 20


def test_a_run_that_leaves_first_waits_until_its_batch_is_accepted(serving: BatchProvider, tmp_path: Path) -> None:
    serving.busy, serving.status = True, "validating"

    def accept(what: str) -> None:
        if what == "looked" and serving.looks.total() == 3:
            serving.batches["batch-0"]["status"] = "in_progress"

    serving.on = accept
    with until_later():
        answers(ROWS, context(tmp_path, serving), by=batching(wait=False))
    assert serving.looks.total() == 4


def test_all_that_several_teachers_are_asked_is_handed_over_before_anybody_waits(
    serving: BatchProvider, tmp_path: Path
) -> None:
    ctx = context(tmp_path, serving)
    judges = [batching(), batching().named("other")]
    asked = [ask_all_in_order(judge, [(row, [(ask(row), fine)]) for row in ROWS], ctx) for judge in judges]
    assert [batch["status"] for batch in serving.batches.values()] == ["in_progress"] * 2
    rows = list(zip(*asked, strict=True))
    assert [row for (row, _), _ in rows] == ROWS
    assert len({line["body"]["model"] for lines in serving.requests.values() for line in lines}) == 2


def test_two_that_ask_the_same_at_once_buy_it_once(serving: BatchProvider, tmp_path: Path) -> None:
    found: list[list[str]] = []
    threads = [
        Thread(target=lambda: found.append(texts(answers(ROWS, context(tmp_path, serving), by=batching()))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(each == found[0] for each in found)
    assert bought_once(serving, ROWS)


def test_nobody_asks_elsewhere_for_what_is_in_a_batch(serving: BatchProvider, tmp_path: Path) -> None:
    serving.busy = True
    with until_later():
        answers(ROWS, context(tmp_path, serving), by=batching(wait=False))
    with pytest.raises(UserError, match="would be paid for twice: batch batch-0, 30 requests"):
        answers(ROWS[-1:], context(tmp_path, serving))
    elsewhere = context(tmp_path, serving)
    elsewhere.runtime = elsewhere.runtime.model_copy(update={"api_base": serving.url.replace("127.0.0.1", "localhost")})
    with pytest.raises(UserError, match="would be paid for twice"):
        answers(ROWS[-1:], elsewhere, by=batching())
    assert len(answers(["another"], context(tmp_path, serving))) == 1
    assert len(serving.batches) == 1


def test_the_words_of_a_server_are_learnt_from_a_batch(serving: BatchProvider, tmp_path: Path) -> None:
    serving.refuses = lambda body: (
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        if "max_tokens" in body
        else ""
    )
    assert [answer.cause for answer in answers(ROWS, context(tmp_path, serving), by=batching())] == ["ok"] * 30
    assert [len(lines) for lines in serving.requests.values()] == [30, 30]
    assert {entry.resent for entry in entries(tmp_path).values()} == {0}
    answers(["another"], context(tmp_path, serving), by=batching())
    assert "max_completion_tokens" in serving.requests["batch-2"][0]["body"]


def test_a_server_that_refuses_every_request_ends_the_run(serving: BatchProvider, tmp_path: Path) -> None:
    serving.refuses = lambda body: "this model is for children"
    with pytest.raises(UserError, match="refused the last 3 requests, every one: 400 this model is for children"):
        answers(ROWS[:3], context(tmp_path, serving), by=batching())
    assert len(serving.batches) == 1


def test_results_that_arrive_damaged_are_fetched_again_and_not_bought_again(
    serving: BatchProvider, tmp_path: Path
) -> None:
    fetched: list[int] = []

    def once(body: bytes) -> bytes:
        fetched.append(len(body))
        return b"<html>down for a minute</html>" if len(fetched) == 1 else body

    serving.garbles = once
    assert len(answers(ROWS, context(tmp_path, serving), by=batching())) == 30
    assert len(fetched) == 2
    assert bought_once(serving, ROWS)


def test_results_that_lack_answers_are_not_bought_again(serving: BatchProvider, tmp_path: Path) -> None:
    serving.garbles = lambda body: b"".join(body.splitlines(keepends=True)[:-2])
    for _ in range(2):
        with pytest.raises(
            UserError, match="says that 30 requests of batch batch-0 are answered, and its files hold 28"
        ):
            answers(ROWS, context(tmp_path, serving), by=batching())
    serving.garbles = lambda body: body
    assert len(answers(ROWS, context(tmp_path, serving), by=batching())) == 30
    assert bought_once(serving, ROWS)


def test_texts_of_any_kind_come_back_as_they_were(serving: BatchProvider, tmp_path: Path) -> None:
    odd = "a line\u2028separator, a next\x85line, \u0000, \U0001f600 and a \\n"
    serving.answer = lambda prompt: odd
    (found,) = answers([odd], context(tmp_path, serving), by=batching())
    assert found.text == odd
    assert prompt_of(serving.requests["batch-0"][0]) == odd


@pytest.mark.parametrize("what", ["uploaded", "looked", "fetched"])
@pytest.mark.parametrize("fault", ["reset", "500", "429"])
def test_a_server_that_fails_for_a_while_is_asked_again(
    serving: BatchProvider, tmp_path: Path, what: str, fault: str
) -> None:
    faults = {what: 2}

    def fails(done: str) -> str:
        faults[done] = faults.get(done, 0) - 1
        return fault if faults[done] >= 0 else ""

    serving.fault = fails
    assert len(answers(ROWS, context(tmp_path, serving), by=batching())) == 30
    assert bought_once(serving, ROWS)


@pytest.mark.parametrize(("fault", "created"), [("reset", 1), ("500", 0), ("429", 0)])
def test_a_creation_without_an_answer_is_looked_for_before_it_is_repeated(
    serving: BatchProvider, tmp_path: Path, fault: str, created: int
) -> None:
    first = [fault]
    serving.fault = lambda what: first.pop() if what == "created" and first else ""
    ctx = context(tmp_path, serving)
    if fault == "500":
        with pytest.raises(UserError, match="did not begin a batch of 30 requests"):
            answers(ROWS, ctx, by=batching())
    assert len(answers(ROWS, ctx, by=batching())) == 30
    assert len(serving.batches) == 1
    assert bought_once(serving, ROWS)


def test_a_server_that_says_nothing_for_too_long_ends_the_run(serving: BatchProvider, tmp_path: Path) -> None:
    serving.fault = lambda what: "503" if what == "looked" else ""
    ctx = context(tmp_path, serving, watchdog_seconds=0.05)
    with pytest.raises(UserError, match=r"has not answered for 0.05 s \(runtime.watchdog_seconds\)"):
        answers(ROWS, ctx, by=batching())
    serving.fault = lambda what: ""
    assert len(answers(ROWS, context(tmp_path, serving), by=batching())) == 30
    assert bought_once(serving, ROWS)
