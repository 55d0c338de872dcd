"""Documents are cut by headings and paragraphs, the same everywhere, and held out as a whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from speed.core.errors import UserError
from speed.data.records import Passage
from speed.data.topics.documents import Document, Documents, Library, passages, passages_of, pieces, read_documents
from speed.data.topics.documents import test_size as size_of_test

WORDS = "one two three four five six seven eight nine ten"
GUIDE = f"""Before any heading {WORDS}.

# Guide

{WORDS}

## Install/Linux

{WORDS}

```bash
# no heading

{WORDS}
```

## Empty

# Appendix
short
"""


def folder(root: Path, count: int = 5) -> Path:
    (root / "deep").mkdir(parents=True)
    (root / "guide.md").write_text(GUIDE)
    (root / "deep" / "notes.txt").write_text(f"Notes {WORDS}.\r\n\r\nMore {WORDS}.")
    (root / "picture.png").write_bytes(b"\x89PNG")
    rows = [{"title": f"Question {number}", "text": f"{number} {WORDS}", "other": 1} for number in range(count)]
    (root / "faq.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    return root


def test_a_page_becomes_sections_and_code_stays_whole() -> None:
    found = passages_of(Document("a/guide.md", "", GUIDE, True), 30)
    assert [topic for topic, _ in found] == ["a/guide", "a/guide/Guide", *["a/guide/Guide/Install Linux"] * 1]
    assert found[0][1].startswith("Before any heading")
    assert found[1][1] == f"Guide\n\n{WORDS}"
    assert found[2][1].startswith(f"Install/Linux\n\n{WORDS}\n\n```bash\n# no heading\n\n{WORDS}\n```")


@pytest.mark.parametrize("most", [20, 25, 1000])
def test_no_passage_is_longer_and_no_word_is_lost(most: int) -> None:
    paragraphs = [WORDS, f"{WORDS}. {WORDS}. {WORDS} {WORDS} {WORDS}!", WORDS, "end"]
    found = pieces(paragraphs, most)
    assert max(len(text.split()) for text in found) <= most
    assert " ".join(found).split() == " ".join(paragraphs).split()


def test_every_kind_of_file_is_read_in_order_with_its_source(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"text": ["in a table"], "title": ["T"]}), folder(tmp_path) / "t.parquet")
    found = list(read_documents(tmp_path))
    names = ["deep/notes.txt", *(f"faq.jsonl:{number}" for number in range(1, 6)), "guide.md", "t.parquet:1"]
    assert [document.name for document in found] == names
    assert found[1][1:] == ("Question 0", f"0 {WORDS}", False)
    assert next(read_documents(tmp_path / "faq.jsonl")).name == "faq.jsonl:1"
    cut = passages(tmp_path, Documents())
    assert [passage.row for passage in cut] == list(range(len(cut)))
    assert {passage.topic for passage in cut if passage.document == "faq.jsonl:2"} == {"faq/Question 1"}


def test_records_without_a_title_are_called_by_their_first_words() -> None:
    records = [Document(f"faq.jsonl:{number}", "", f"{number} of 9/10, {WORDS}", False) for number in (1, 2)]
    found = [topic for record in records for topic, _ in passages_of(record, 200)]
    first = " ".join(WORDS.split()[:4])
    assert found == [f"faq/1 of 9 10, {first}", f"faq/2 of 9 10, {first}"]
    assert [text for record in records for _, text in passages_of(record, 200)] == [record.text for record in records]


def test_documents_are_held_out_whole_by_seed_and_content_alone(tmp_path: Path) -> None:
    here, there = folder(tmp_path / "here", 20), folder(tmp_path / "there", 20)
    how = Documents(held_out=0.25)
    found = passages(here, how)
    assert found == passages(there, how)
    held_out = {passage.document for passage in found if passage.held_out}
    assert len(held_out) == 6, "a quarter of 22 documents, rounded"
    assert not held_out & {passage.document for passage in found if not passage.held_out}
    assert {p.document for p in passages(here, Documents(held_out=0.25, seed=1)) if p.held_out} != held_out
    copy = json.loads((here / "faq.jsonl").read_text().splitlines()[0])
    with (here / "faq.jsonl").open("a") as file:
        file.write(json.dumps(copy) + "\n")
    twins = {p.document: p.held_out for p in passages(here, how) if p.document in ("faq.jsonl:1", "faq.jsonl:22")}
    assert len(twins) == 2
    assert len(set(twins.values())) == 1, "a copy of a held-out text is held out"


def test_what_stands_on_both_sides_is_in_no_test(tmp_path: Path) -> None:
    """A licence at the end of each document would be asked about, and was learnt."""
    licence = "Permission is hereby granted, free of charge, to any person obtaining a copy of this software."
    for number in range(10):
        (tmp_path / f"{number}.md").write_text(f"# Page {number}\n\n{WORDS} {number}\n\n# Licence\n\n{licence}\n")
    found = passages(tmp_path, Documents(held_out=0.3))
    assert sum(passage.held_out for passage in found) == 3
    assert [passage.row for passage in found] == list(range(17))
    assert not any(licence in passage.text for passage in found if passage.held_out)
    for number in range(10):
        (tmp_path / f"{number}.md").write_text(f"# Licence\n\n{licence}\n\n" + "\n" * number)
    with pytest.raises(UserError, match="nothing is left to test with"):
        passages(tmp_path, Documents())


def test_hidden_files_and_folders_are_no_documents(tmp_path: Path) -> None:
    """Else a checkout with its environment would be read, and sent to a teacher."""
    for name in ("guide.md", ".hidden.md", ".venv/lib/readme.md", "part/.git/notes.txt", "part/more.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(WORDS)
    assert [document.name for document in read_documents(tmp_path)] == ["guide.md", "part/more.txt"]
    hidden = tmp_path / ".venv" / "lib"
    assert [document.name for document in read_documents(hidden)] == ["readme.md"], "what was named is read"


def test_the_test_has_a_query_for_each_held_out_passage_at_most(tmp_path: Path) -> None:
    root = folder(tmp_path, 40)
    held_out = sum(passage.held_out for passage in passages(root, Documents(held_out=0.5)))
    assert size_of_test(root, Documents(held_out=0.5)) == held_out
    assert size_of_test(root, Documents(held_out=0.5, queries=3)) == 3
    assert size_of_test(tmp_path / "absent", Documents(queries=7)) == 7


def test_a_negative_is_another_passage_of_the_document_from_another_section_where_there_is_one() -> None:
    def passage(row: int, document: str, topic: str) -> Passage:
        return Passage(row=row, document=document, topic=topic, text=f"text {row}")

    found = [passage(0, "a", "a/x"), passage(1, "a", "a/x"), passage(2, "a", "a/y"), passage(3, "b", "b")]
    library = Library(found)
    drawn = [library.ground("a/x", 0, "seed", index) for index in range(40)]
    assert {ground.text for ground in drawn if ground} == {"text 0", "text 1"}
    assert {ground.negative for ground in drawn if ground} == {"text 2"}
    assert library.ground("a/x", 0, "seed", 3) == drawn[3]
    alone = library.ground("b", 0, "seed", 0)
    assert alone is not None
    assert (alone.document, alone.negative) == ("b", None)
    assert library.ground("elsewhere", 0, "seed", 0) is None


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("absent", None, "is not there"),
        ("only.csv", "a,b", "holds no document that can be read"),
        ("bad.jsonl", '{"text": 3}\n', "record 1 has no text"),
        ("bad.jsonl", "[1]\n", "line 1 is no document"),
        ("bad.parquet", "no table", "cannot be read as Parquet"),
        ("one.txt", WORDS, "1 documents hold a passage of 8 words or more, and two are needed"),
    ],
)
def test_what_cannot_be_cut_is_refused(tmp_path: Path, name: str, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=said):
        passages(tmp_path if name == "only.csv" else tmp_path / name, Documents())
