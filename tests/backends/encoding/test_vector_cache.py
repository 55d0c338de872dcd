"""Vectors on disk: found again by (prompt, text, model), whatever was killed, damaged, deleted or written beside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speed.backends.encoding.text_encoder import encoded
from speed.backends.encoding.vector_cache import VectorCache

WIDTH = 8
PLENTY = 10**9


class Counting:
    """An encoder whose vectors are a function of prompt and text, and that remembers what it was asked."""

    dimension, max_length, normalize = WIDTH, None, False
    prompts: dict[str, str] = {}

    def __init__(self, at_once: int = 3) -> None:
        self.asked: list[str] = []
        self.at_once = at_once

    def pieces(self, texts: Sequence[str], prefix: str) -> Iterator[tuple[list[int], Any]]:
        order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
        for start in range(0, len(order), self.at_once):
            rows = order[start : start + self.at_once]
            self.asked += [texts[row] for row in rows]
            yield rows, np.stack([vector(prefix + texts[row]) for row in rows])


def vector(text: str) -> Any:
    return np.random.default_rng(list(text.encode("utf-8", "surrogatepass"))).normal(size=WIDTH).astype(np.float32)


OPEN: list[VectorCache] = []


def opened(root: Path, model: Any = "m", max_bytes: int = PLENTY, **more: Any) -> VectorCache:
    OPEN.append(VectorCache(root, {"model": model}, WIDTH, max_bytes, **more))
    return OPEN[-1]


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().close()


def words(count: int) -> list[str]:
    return [f"text {i} {'x' * (i % 7)}" for i in range(count)]


def test_tasks_that_share_a_corpus_encode_each_text_once(tmp_path: Path) -> None:
    encoder, cache = Counting(), opened(tmp_path)
    first = encoded(encoder, words(20), cache=cache)
    second = encoded(encoder, [*reversed(words(25)), "text 0 "], cache=cache)
    assert sorted(encoder.asked) == sorted(words(25))
    assert np.array_equal(first, np.stack([vector(text) for text in words(20)]))
    assert np.array_equal(second[:25], np.stack([vector(text) for text in words(25)])[::-1])
    assert np.array_equal(second[25], first[0])
    assert (cache.hits, cache.misses) == (20, 25)


def test_prompt_and_model_are_part_of_what_a_vector_is(tmp_path: Path) -> None:
    encoder = Counting()
    cache = opened(tmp_path)
    encoded(encoder, ["ab"], prefix="", cache=cache)
    encoded(encoder, ["b"], prefix="a", cache=cache)
    encoded(encoder, ["ab"], cache=opened(tmp_path, "other"))
    assert encoder.asked == ["ab", "b", "ab"]
    encoded(encoder, ["ab", "ab"], cache=opened(tmp_path))
    assert len(encoder.asked) == 3


def test_normalisation_does_not_enter_what_is_kept(tmp_path: Path) -> None:
    cache = opened(tmp_path)
    unit = encoded(Counting(), words(5), normalize=True, cache=cache)
    bare = encoded(Counting(), words(5), normalize=False, cache=cache)
    assert np.allclose(np.linalg.norm(unit, axis=1), 1)
    assert np.array_equal(bare, np.stack([vector(text) for text in words(5)]))


def test_empty_and_odd_texts(tmp_path: Path) -> None:
    texts = ["", "\ud800", "a\0b", "ü", "x" * 100_000]
    encoder = Counting()
    for _ in range(2):
        found = encoded(encoder, texts, cache=opened(tmp_path))
    assert np.array_equal(found, np.stack([vector(text) for text in texts]))
    assert len(encoder.asked) == len(texts)
    assert encoded(encoder, [], cache=opened(tmp_path)).shape == (0, WIDTH)


KILLED = """
import sys
from pathlib import Path
from test_vector_cache import Counting, opened, words
from speed.backends.encoding.text_encoder import encoded

def progress(done):
    print(done, flush=True)

class Slow(Counting):
    def pieces(self, texts, prefix):
        for number, piece in enumerate(super().pieces(texts, prefix)):
            yield piece
            if number == 4:
                print("now", flush=True)
                sys.stdin.read()

encoded(Slow(), words(40), cache=opened(Path(sys.argv[1])), progress=progress)
"""


def test_a_kill_in_the_middle_of_a_corpus_costs_no_finished_piece(tmp_path: Path) -> None:
    here = str(Path(__file__).parent)
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([here, *sys.path])},
    )
    assert child.stdout is not None
    assert any(line == b"now\n" for line in child.stdout)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    encoder = Counting()
    cache = opened(tmp_path)
    found = encoded(encoder, words(40), cache=cache)
    assert cache.hits == 15
    assert len(encoder.asked) == 25
    assert np.array_equal(found, np.stack([vector(text) for text in words(40)]))


@pytest.mark.parametrize("cut", [1, 23, 24, 25, 4 * WIDTH, 4 * WIDTH + 1])
@pytest.mark.parametrize("kind", ["keys", "vectors"])
def test_a_torn_end_loses_its_rows_alone(tmp_path: Path, kind: str, cut: int) -> None:
    encoded(Counting(), words(10), cache=opened(tmp_path))
    [file] = tmp_path.rglob(f"*.{kind}")
    content = file.read_bytes()
    file.write_bytes(content[:-cut])
    cache, encoder = opened(tmp_path), Counting()
    found = encoded(encoder, words(10), cache=cache)
    assert np.array_equal(found, np.stack([vector(text) for text in words(10)]))
    lost = -(-cut // (24 if kind == "keys" else 4 * WIDTH))
    assert (cache.hits, cache.misses) == (10 - lost, lost)


def test_a_flipped_bit_is_noticed_and_mended(tmp_path: Path) -> None:
    encoded(Counting(), words(10), cache=opened(tmp_path))
    [file] = tmp_path.rglob("*.vectors")
    content = bytearray(file.read_bytes())
    content[4 * WIDTH * 3 + 5] ^= 1
    file.write_bytes(bytes(content))
    encoder = Counting()
    right = np.stack([vector(text) for text in words(10)])
    for asked in (1, 1):
        assert np.array_equal(encoded(encoder, words(10), cache=opened(tmp_path)), right)
        assert len(encoder.asked) == asked


def test_processes_side_by_side_do_not_disturb_one_another(tmp_path: Path) -> None:
    one, two = opened(tmp_path), opened(tmp_path)
    for start in range(0, 60, 10):
        encoded(Counting(), words(60)[start : start + 12], cache=one)
        encoded(Counting(), words(60)[start + 5 : start + 20], cache=two)
    encoder = Counting()
    assert np.array_equal(
        encoded(encoder, words(60), cache=opened(tmp_path)), np.stack([vector(text) for text in words(60)])
    )
    assert encoder.asked == []


def test_deleting_it_at_any_time_costs_encoding_and_nothing_else(tmp_path: Path) -> None:
    import shutil

    cache, encoder = opened(tmp_path / "cache"), Counting()
    encoded(encoder, words(10), cache=cache)
    shutil.rmtree(tmp_path / "cache")
    found = encoded(encoder, words(10), cache=cache)
    assert np.array_equal(found, np.stack([vector(text) for text in words(10)]))
    assert len(encoder.asked) == 20


def test_the_cap_is_kept_and_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import speed.backends.encoding.vector_cache as module

    monkeypatch.setattr(module, "LOOK_EVERY", 1)
    said: list[str] = []
    cache = opened(tmp_path, max_bytes=2000, say=said.append)
    encoder = Counting()
    found = encoded(encoder, words(100), cache=cache)
    assert np.array_equal(found, np.stack([vector(text) for text in words(100)]))
    assert sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()) <= 2000
    assert len(said) == 1
    assert "vectors_gb" in said[0]


def test_models_that_nobody_uses_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import speed.backends.encoding.vector_cache as module

    monkeypatch.setattr(module, "LOOK_EVERY", 1)
    old, used = opened(tmp_path, "old"), opened(tmp_path, "used")
    for cache in (old, used):
        encoded(Counting(), words(20), cache=cache)
    old.close()
    encoded(Counting(), words(20), cache=opened(tmp_path, "new", max_bytes=3000))
    assert not old.folder.exists()
    assert used.folder.exists(), "another process is using it"


def test_the_index_stays_small(tmp_path: Path) -> None:
    """Sixteen bytes a text, in a handful of runs however many pieces came."""
    cache = opened(tmp_path)
    encoded(Counting(at_once=2), words(2000), cache=cache)
    assert len(cache._runs) <= 12
    assert sum(run.first.nbytes + run.places.nbytes for run in cache._runs) == 16 * 2000
