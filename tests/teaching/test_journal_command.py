"""`python -m speed.journal`: what people see of a journal, and what they can do to it while runs go on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import ROOT
from old_archive import archived

from speed.journal import main
from speed.teaching.entry import Entry, key
from speed.teaching.journal import Journal


def entry(row: int, **fields: object) -> Entry:
    messages = ({"role": "user", "content": f"prompt {row}"},)
    given = {"key": key("m", messages, {}, 0), "model": "m", "messages": messages, "purpose": "seed", "kind": "sts"}
    return Entry.model_validate({**given, "text": f"answer {row}", "dollars": 0.25, "time": 1.0 + row, **fields})


def journal_of(home: Path, rows: range) -> Path:
    journal = Journal(home / "journal")
    for row in rows:
        journal.append(entry(row))
    journal.close()
    return home


def said(home: Path, *arguments: str) -> int:
    return main(["--home", str(home), *arguments])


def test_list_search_and_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = journal_of(tmp_path, range(30))
    live = Journal(home / "journal")
    live.append(entry(30, purpose="judge", text="a \x1b[31mred\x1b[0m <b>answer</b> [bold]x[/bold]", cause="refusal"))
    assert said(home, "list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 31
    assert "\\x1b[31mred" in lines[-1]
    assert "\x1b" not in "".join(lines)
    assert said(home, "list", "--purpose", "judge") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert said(home, "list", "--limit", "3") == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert said(home, "search", "ANSWER 17") == 0
    found = capsys.readouterr().out.split()
    assert found[0] == entry(17).key[:12]
    assert said(home, "show", found[0]) == 0
    told = capsys.readouterr().out
    assert "--- user\nprompt 17\n--- answer\nanswer 17" in told
    assert said(home, "show", "zz") == 1


def test_the_ledger_and_an_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = journal_of(tmp_path / "home", range(4))
    odd = Journal(home / "journal")
    odd.append(entry(4, text="lone \ud800 nul \x00 line\nend", cause="refusal"))
    odd.close()
    assert said(home, "ledger") == 0
    assert "4 ok, 1 refusal" in capsys.readouterr().out
    file = tmp_path / "out.jsonl"
    assert said(home, "export", str(file)) == 0
    exported = [Entry.model_validate(json.loads(line)) for line in file.read_text().splitlines()]
    assert exported == list(Journal(home / "journal"))
    assert said(home, "export", str(file)) == 1, "nothing is written over"
    capsys.readouterr()
    assert said(home, "export", "-", "--cause", "refusal") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_verify_knows_damage_and_false_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = journal_of(tmp_path, range(5))
    assert said(home, "verify") == 0
    assert "5 sound entries, 0 damaged; index: 5 answers to 5 questions" in capsys.readouterr().out
    false = Journal(home / "journal")
    false.append(entry(7, key=entry(8).key))
    false.close()
    assert said(home, "verify") == 1
    plain = next(path for path in (home / "journal").glob("*.jsonl") if b"answer 3" in path.read_bytes())
    content = bytearray(plain.read_bytes())
    content[content.index(b"answer 3") + 2] ^= 1
    plain.write_bytes(bytes(content))
    assert said(home, "verify") == 1
    shown = capsys.readouterr()
    assert "4 sound entries, 2 damaged" in shown.out
    assert f"damaged: {plain.name}, byte" in shown.err


def test_merge_brings_what_is_missing_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here, there = journal_of(tmp_path / "here", range(10)), journal_of(tmp_path / "there", range(5, 20))
    failed = Journal(there / "journal")
    failed.append(entry(50, answered=False, cause="timeout"))
    failed.close()
    archived(next(path for path in (there / "journal").glob("*.jsonl") if b"answer 19" in path.read_bytes()))
    assert said(here, "merge", str(there)) == 0
    assert "10 answers came in, 5 were here already" in capsys.readouterr().out
    assert said(here, "merge", str(there / "journal")) == 0
    assert "0 answers came in, 15 were here already" in capsys.readouterr().out
    merged = Journal(here / "journal")
    assert sorted(each.key for each in merged) == sorted(entry(row).key for row in range(20))
    assert all(merged.get(entry(row).key) == entry(row) for row in range(20))


def test_rebuild_beside_a_live_writer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = journal_of(tmp_path, range(10))
    live = Journal(home / "journal")
    live.append(entry(10))
    assert said(home, "compress") == 0
    assert "plain JSON lines" in capsys.readouterr().out
    assert len(list((home / "journal").glob("*.jsonl"))) == 2
    live.append(entry(11))
    assert said(home, "rebuild") == 0
    live.append(entry(12))
    assert [row for row in range(13) if live.get(entry(row).key) != entry(row)] == []
    live.close()
    assert len(Journal(home / "journal")) == 13


def test_no_journal_is_one_message_and_a_closed_pipe_is_none(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "speed.journal", "--home", str(tmp_path), "list"]
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=surroundings, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "holds no journal" in done.stderr
    assert "Traceback" not in done.stderr
    journal_of(tmp_path, range(2000))
    shown = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=surroundings)
    assert shown.stdout is not None
    shown.stdout.readline()
    shown.stdout.close()
    assert shown.stderr is not None
    with shown.stderr as errors:
        assert errors.read() == ""
    assert shown.wait() == 0
