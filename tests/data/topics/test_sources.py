"""Topics are read from every kind of file and drawn uniformly."""

from __future__ import annotations

import gzip
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest
import zstandard

from speed.core.content import Content
from speed.core.errors import UserError
from speed.core.spec import digest, recipe
from speed.data.records import Kind
from speed.data.topics.sources import TopicsConfig, read_topics, shorten, topic_index, topic_order, topic_text

HERE = Path(__file__).parent
STRUCTURE = HERE / "structure.rdf.u8"
ODP = Path(__file__).parents[4] / "shared" / "data" / "odp"
real = pytest.mark.skipif(not ODP.is_dir(), reason="the real ODP files are not beside the repository")


def read(path: Path | None, **fields: object) -> tuple[list[str], Counter[str]]:
    counts: Counter[str] = Counter()
    config = TopicsConfig.model_validate({"path": path, **fields})
    return list(read_topics(config, counts)), counts


def test_truncation_of_the_paper() -> None:
    deep = "Arts/Movies/Titles/3/36_Hours_-_1964/Cast_and_Crew"
    assert shorten(deep) == "Arts/Movies/36_Hours_-_1964/Cast_and_Crew"
    assert [shorten(path) for path in ("Arts", "a/b/c/d", "a/b/c/d/e")] == ["Arts", "a/b/c/d", "a/b/d/e"]
    assert topic_text(deep, truncate=False) == deep
    assert topic_text(deep, truncate=True, prettify=True) == "Arts/Movies/36 Hours - 1964/Cast and Crew"


def test_built_in_list() -> None:
    topics, counts = read(None)
    assert len(topics) == len(set(topics)) == counts["kept"] == counts["read"] >= 400
    depths = Counter(topic.count("/") + 1 for topic in topics)
    assert set(depths) >= {1, 2, 3, 4, 5, 6}
    assert sum(count for depth, count in depths.items() if depth > 4) >= 50
    assert len({topic.split("/")[0] for topic in topics}) >= 14


def test_structure_dump() -> None:
    topics, counts = read(STRUCTURE)
    assert topics == [
        "Arts", "Arts/Animation", "Arts/Movies/Titles/3/36_Hours_-_1964/Cast_and_Crew", "Arts/Music/R&B_and_Soul",
        "Arts/Music/Bands_and_Artists/B", "Society/Ethnicity/Québécois", "Sports/Caf", "Recreation/Food/'n'_Drink",
    ]  # fmt: skip
    assert counts == {"read": 12, "kept": 8, "excluded": 3, "duplicate": 1, "malformed": 2}


@pytest.mark.parametrize(
    ("fields", "left"),
    [
        ({"drop_single_letters": True}, 7), ({"exclude": []}, 11), ({"exclude": ["Arts"]}, 6), ({"min_depth": 3}, 5),
        ({"max_depth": 2}, 3), ({"min_depth": 3, "max_depth": 3}, 3), ({"format": "rdf"}, 8),
    ],
)  # fmt: skip
def test_rules(fields: dict[str, object], left: int) -> None:
    assert len(read(STRUCTURE, **fields)[0]) == left


def test_list_and_tsv(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes("\ufeffArts\r\n\r\n# a comment\r\nTop/Arts/Música \r\nArts\r\nArts//x\n".encode())
    assert read(tmp_path / "list") == (
        ["Arts", "Arts/Música"],
        {"read": 4, "kept": 2, "duplicate": 1, "empty_level": 1},
    )
    (tmp_path / "tsv").write_text("topic\tpages\nArts/C#\t3\nTop/Arts/D\t\n")
    assert read(tmp_path / "tsv")[0] == ["Arts/C#", "Arts/D"]
    (tmp_path / "last").write_text("Arts\nSports")
    assert read(tmp_path / "last")[0] == ["Arts", "Sports"]


@pytest.mark.parametrize(
    ("content", "topics"),
    [
        ("Arts\rSports\rNews\r", ["Arts", "Sports", "News"]),
        ("/Top/Arts\nArts\n/Arts/\n/Top/World/Deutsch\n/World/Deutsch\nTop\n/Top/\n", ["Arts"]),
        ("R%26B\nFlorida_A&amp;M\nCaf%C3%A9\nAC%2FDC\n100%_Wool\n50%FF\nA&notes\nQ&A\n",
         ["R&B", "Florida_A&M", "Café", "AC%2FDC", "100%_Wool", "50%FF", "A&notes", "Q&A"]),
        ("topic\nArts\nTopic\n", ["Arts", "Topic"]),
        ("Enron,_Inc\n[Brackets]\n", ["Enron,_Inc", "[Brackets]"]),
    ],
)  # fmt: skip
def test_lists_as_people_write_them(tmp_path: Path, content: str, topics: list[str]) -> None:
    (tmp_path / "list").write_bytes(content.encode())
    assert read(tmp_path / "list")[0] == topics
    (tmp_path / "list").write_bytes(zstandard.ZstdCompressor().compress(content.encode()))
    assert read(tmp_path / "list")[0] == topics


def test_a_branch_is_excluded_however_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("Arts\nNews/Local\n")
    for branch in ("News", "News/", "/News", "Top/News", "/Top/News/"):
        assert read(tmp_path / "list", exclude=[branch])[0] == ["Arts"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("list", "Arts\nGröße\n".encode("latin1"), "line 2 is not UTF-8 .byte 0xf6 at 3"),
        ("list.csv", b"Arts,3\n", "is CSV"),
        ("list", b"id,topic\n1,Arts\n", "is CSV"),
        ("list", b'["Arts", "Sports"]', "is JSON"),
        ("list", b'[\n  {"topic": "Arts"}\n]', "is JSON"),
        ("list", b'{"topic": "Arts"}\n', "is JSON"),
        ("dump", STRUCTURE.read_bytes()[:-30], "is cut off after 12 topics"),
        ("dump", b'<Topic r:id="Top/Arts"></Topic>\n<Topic r:id="Top/Sp', "is cut off after 1 topics"),
    ],
)
def test_files_that_are_no_topics_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"topics.path={tmp_path / name}.* ?{message}"):
        read(tmp_path / name)


def test_gzip_is_the_same(tmp_path: Path) -> None:
    packed = tmp_path / "structure.rdf.u8.gz"
    packed.write_bytes(gzip.compress(STRUCTURE.read_bytes()))
    assert read(packed) == read(STRUCTURE)


def test_topics_cut_by_a_block_are_whole(tmp_path: Path) -> None:
    """1.5 MB blocks of filling put every byte of a tag on the border of a block of 1 MB once."""
    tag = b'<Topic r:id="Top/Arts/Long_Name_Here"><catid>7</catid></Topic>\n'
    for shift in range(0, len(tag), 3):
        file = tmp_path / "dump"
        file.write_bytes(
            b"<RDF>"
            + b"x" * ((1 << 20) - 5 - shift)
            + tag
            + b"y" * (1 << 20)
            + tag.replace(b"Long", b"Last")
            + b"</RDF>"
        )
        assert read(file)[0] == ["Arts/Long_Name_Here", "Arts/Last_Name_Here"]


def test_lists_cut_by_a_block_are_whole(tmp_path: Path) -> None:
    topics = [f"Arts/Number_{number:06}/{'x' * (number % 90)}" for number in range(40_000)]
    (tmp_path / "list").write_text("\n".join(topics))
    assert read(tmp_path / "list", exclude=[])[0] == [topic.rstrip("/") for topic in topics]


def test_memory_does_not_grow_with_the_dump(tmp_path: Path) -> None:
    page = (
        b'<ExternalPage about="http://x.example/"><d:Title>T</d:Title><topic>Top/Arts</topic></ExternalPage>\n' * 10_000
    )
    file = tmp_path / "content.rdf.u8.gz"
    with gzip.open(file, "wb", compresslevel=1) as out:
        for number in range(60):
            out.write(b'<Topic r:id="Top/Arts/N%d">' % number + page)
    tracemalloc.start()
    topics, _ = read(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(topics) == 60
    assert peak < 10 * 2**20, f"{peak / 2**20:.1f} MB for a dump of 60 MB"


def test_files_that_cannot_be_used_are_explained(tmp_path: Path) -> None:
    damaged, empty, binary, wrong = (tmp_path / name for name in ("damaged.gz", "empty", "binary", "wrong"))
    damaged.write_bytes(gzip.compress(STRUCTURE.read_bytes() * 2000)[:-200])
    empty.write_bytes(b"")
    binary.write_bytes(b"PK\x03\x04\x00\x00")
    wrong.write_text("<html><body>Not found</body></html>")
    for file, words in (
        (tmp_path / "nowhere", "does not exist"), (tmp_path, "is a folder"), (damaged, "damaged after"),
        (empty, "no topic is left"), (binary, "no text file"), (wrong, "no ODP RDF dump"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=words) as raised:
            read(file)
        assert str(file) in str(raised.value)
    (tmp_path / "short").write_text("Arts\n")
    with pytest.raises(UserError, match="1 too_shallow"):
        read(tmp_path / "short", min_depth=2)


def test_identity_is_the_content(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text("Arts\n")
    (tmp_path / "c").write_text("Sports\n")
    first, same, other = (TopicsConfig(path=Content(path=tmp_path / name)) for name in "abc")
    assert digest(recipe(first)) == digest(recipe(same))
    assert len({digest(recipe(config)) for config in (first, other, TopicsConfig(), TopicsConfig(min_depth=2))}) == 4
    assert len(recipe(TopicsConfig())["path"]["sha256"]) == 64


def test_no_topic_comes_again_before_all_have_come() -> None:
    for epoch in range(3):
        drawn = [topic_index(epoch * 100 + place, 100, 0, "seed", Kind.STS) for place in range(100)]
        assert sorted(drawn) == list(range(100))


def test_orders_are_independent_of_one_another() -> None:
    orders = [
        tuple(topic_order(200, seed, role, kind, epoch))
        for seed in (0, 1) for role in ("seed", "root") for kind in (Kind.STS, Kind.RETRIEVAL) for epoch in (0, 1)
    ]  # fmt: skip
    assert len(set(orders)) == len(orders)
    for left in orders:
        for right in orders:
            fixed = sum(a == b for a, b in zip(left, right, strict=True))
            assert left is right or fixed < 10, "two independent permutations agree in one place on average"


def test_draws_are_uniform() -> None:
    firsts = Counter(topic_index(0, 10, seed, "seed", Kind.STS) for seed in range(4_000))
    assert all(abs(firsts[topic] - 400) < 5 * 19 for topic in range(10))


@real
def test_real_files() -> None:
    topics, counts = read(ODP / "odp_topics.txt")
    assert counts["read"] == 83_644
    assert counts["kept"] + counts["excluded"] + counts["duplicate"] + counts["empty_level"] == 83_644
    assert max(shorten(topic).count("/") for topic in topics) == 3
    sports, counts = read(ODP / "odp_sports_2015.tsv")
    assert len(sports) == 15_017
    assert read(ODP / "content_sample.rdf.u8")[0] == ["Arts", "Arts/Animation", "Business/Accounting"]
    assert read(ODP / "content_sample_small.rdf.u8")[0] == ["Business/Accounting/Associations"]
