"""Find near duplicates by MinHash and LSH, the paper's last step (Table 6: 20 % of 1.15 M examples are dropped).

An example is dropped if it is near an earlier example of its kind that was kept. So the first of a group stays, and the
verdict on a row depends only on the rows before it: the examples kept of a smaller pool are the first ones of a larger
pool. In another order, another example of a group would be kept.

Pairs that share a band of their MinHash signatures are checked by the exact Jaccard similarity of their shingles. So
the threshold is exact; the bands only decide which pairs are noticed (`MinHashConfig.detection`).

Texts are read twice. The first pass finds which of them share a band with another; only these are compared in the
second, so that memory holds no hashes of the others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from speed.data.quality.minhash import Hashed, MinHashConfig, bands_of, hashed
from speed.data.records import Example, Kind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CHUNK = 1024
"""Texts that are hashed together."""
MANY = 8_000_000
"""Behind so many characters there may be more that are worth the seconds that compiling takes."""
T = TypeVar("T")
R = TypeVar("R")


def compared_text(example: Example, config: MinHashConfig) -> str:
    """Text by which an example is compared."""
    return f"{example.query}\n{example.positive}" if example.kind in config.with_positive else example.query


def duplicates(
    read: Callable[[], Iterable[Example]],
    config: MinHashConfig,
    say: Callable[[int], None] = lambda done: None,
    threads: int = 1,
) -> Iterator[tuple[Example, int | None]]:
    """Each example, and the index of the kept example that it duplicates; None if it is kept.

    If it is near several kept examples, the first is named. Memory: 200 bytes for each example, and 4 bytes for each
    word that is compared of those that share a band with another.

    Args:
        read: begins to read the examples; called twice.
        say: takes the number of examples hashed so far, in the first pass.
        threads: that hash them.
    """
    spaces = {kind: place for place, kind in enumerate(Kind)}
    earlier = Earlier(((compared_text(each, config), spaces[each.kind]) for each in read()), config, say, threads)
    for chunk in chunks(read()):
        compared = earlier.compared([compared_text(each, config) for each in chunk])
        for example, (number, near) in zip(chunk, compared, strict=True):
            first = next(near, None)
            if first is None:
                earlier.keep(number)
            yield example, first and first[0]


class Earlier:
    """Texts in their order, each compared with the kept ones before it that share a band with it.

    Of each band of each text the last kept text before it is known that has the same band: the links from text to text
    lead to all of them.
    """

    def __init__(
        self,
        texts: Iterable[tuple[str, int]],
        config: MinHashConfig,
        say: Callable[[int], None] = lambda done: None,
        threads: int = 1,
    ) -> None:
        """Hash all texts.

        Args:
            texts: each with the number of its space. Only texts of one space are compared.
            say: takes the number of texts hashed so far.
            threads: that hash them.
        """
        import numpy as np

        self._config, self._compiled = config, False
        spaces, done = bytearray(), 0

        def without_spaces() -> Iterator[str]:
            for text, space in texts:
                spaces.append(space)
                yield text

        def bands_of_chunk(chunk: Sequence[str], compiled: bool) -> NDArray[np.uint32]:
            self._compiled |= compiled
            return bands_of(hashed(chunk, config, compiled), config, compiled)

        bands = [np.empty((0, config.bands), dtype=np.uint32)]
        for found in by_chunks(bands_of_chunk, without_spaces(), threads):
            bands.append(found)
            done += len(found)
            say(done)
        self.count = done
        """Number of the texts."""
        self._spaces = np.frombuffer(spaces, dtype=np.uint8)
        self._linked = np.zeros(len(spaces), dtype=bool)
        """Whether a text shares a band with another."""
        self._links = np.concatenate(bands)
        """A row for each text, a column for each band: 1 + the number of the text before; 0 where there is none."""
        for column in self._links.T:
            keys = sorted_band(column)
            same = keys[1:] >> 32 == keys[:-1] >> 32
            later, before = (part[same].astype(np.uint32) for part in (keys[1:], keys[:-1]))
            column[:] = 0
            column[later] = before + 1
            self._linked[later] = self._linked[before] = True
        self._kept = np.zeros(len(spaces), dtype=bool)
        self._hashes: dict[int, NDArray[np.uint32]] = {}
        """Those of each kept text that shares a band with another."""
        self._own: NDArray[np.uint32] | None = None
        self._next = 0

    def compared(self, texts: Sequence[str]) -> Iterator[tuple[int, Iterator[tuple[int, float]]]]:
        """The number of each of the next texts, and the kept ones that are near it, in order, with their similarity."""
        linked = self._linked[self._next : self._next + len(texts)].tolist()
        own_texts, place = [text for text, own in zip(texts, linked, strict=True) if own], 0
        sets = hashed(own_texts, self._config, self._compiled).as_sets()
        for own in linked:
            number, self._next = self._next, self._next + 1
            self._own = sets.of(place) if own else None
            place += own
            yield number, iter(()) if self._own is None else self._near(number, self._own)

    def keep(self, number: int) -> None:
        """Keep the text that was compared last."""
        self._kept[number] = True
        if self._own is not None:
            self._hashes[number] = self._own.copy()

    def _near(self, number: int, own: NDArray[np.uint32]) -> Iterator[tuple[int, float]]:
        for other in self._candidates(number):
            if self._spaces[other] == self._spaces[number]:
                similarity = jaccard(own, self._hashes[other])
                if similarity >= self._config.threshold:
                    yield other, similarity

    def _candidates(self, number: int) -> list[int]:
        links, kept, found = self._links, self._kept, set[int]()
        for band, before in enumerate(links[number].tolist()):
            # A text that was dropped leads to nothing but kept ones, since its own links were set right in its turn.
            if before and not kept[before - 1]:
                links[number, band] = before = int(links[before - 1, band])
            while before:
                found.add(before - 1)
                before = int(links[before - 1, band])
        return sorted(found)


class BandIndex:
    """Some texts, for finding those that share a band with others, and are near."""

    def __init__(self, texts: Iterable[str], config: MinHashConfig) -> None:
        import numpy as np

        self._config = config
        self._compiled = False

        def sets_and_bands(chunk: Sequence[str], compiled: bool) -> tuple[Hashed, NDArray[np.uint32]]:
            self._compiled |= compiled
            own = hashed(chunk, config, compiled).as_sets()
            return own, bands_of(own, config, compiled)

        found = list(by_chunks(sets_and_bands, texts))
        sets = [own for own, _ in found]
        bands = [np.empty((0, config.bands), dtype=np.uint32), *(own for _, own in found)]
        self._bands = [sorted_band(column) for column in np.concatenate(bands).T]
        sizes = [np.zeros(0, dtype=np.intp), *(np.diff(each.ends, prepend=0) for each in sets)]
        hashes = [np.empty(0, dtype=np.uint32), *(each.hashes for each in sets)]
        self._texts = Hashed(np.concatenate(hashes), np.cumsum(np.concatenate(sizes)))

    def __len__(self) -> int:
        return len(self._texts.ends)

    def near(self, texts: Sequence[str]) -> Iterator[list[int]]:
        """For each text the numbers of those that are near it, in order."""
        import numpy as np

        sets, candidates = hashed(texts, self._config, self._compiled).as_sets(), [set[int]() for _ in texts]
        bands = bands_of(sets, self._config, self._compiled)
        for column, keys in zip(bands.T.astype(np.uint64), self._bands, strict=True):
            first, behind = (np.searchsorted(keys, value << 32) for value in (column, column + 1))
            for place in np.flatnonzero(first < behind).tolist():
                candidates[place].update((keys[first[place] : behind[place]] & np.uint64(2**32 - 1)).tolist())
        for place, numbers in enumerate(candidates):
            own = sets.of(place)
            yield [
                number for number in sorted(numbers) if jaccard(own, self._texts.of(number)) >= self._config.threshold
            ]


def sorted_band(column: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """The values of one band with the numbers of their texts in their lower halves, sorted."""
    import numpy as np

    keys: NDArray[np.uint64] = column.astype(np.uint64) << np.uint64(32) | np.arange(len(column), dtype=np.uint64)
    keys.sort()
    return keys


def jaccard(left: NDArray[np.uint32], right: NDArray[np.uint32]) -> float:
    """Jaccard similarity of two sets, each given as its members."""
    import numpy as np

    both = np.concatenate((left, right))
    both.sort()
    common = int(np.count_nonzero(both[1:] == both[:-1]))
    return common / (len(both) - common)


def by_chunks(work: Callable[[Sequence[str], bool], R], texts: Iterable[str], threads: int = 1) -> Iterator[R]:
    """Do some work on each chunk of texts, and give the results in their order.

    Args:
        work: takes a chunk, and whether there are so many texts that compiled loops pay.
    """
    characters, waiting = 0, deque[Future[R]]()
    with ThreadPoolExecutor(threads) as pool:
        for chunk in chunks(texts):
            characters += sum(map(len, chunk))
            if threads == 1:
                yield work(chunk, characters > MANY)
                continue
            waiting.append(pool.submit(work, chunk, characters > MANY))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def chunks(items: Iterable[T]) -> Iterator[list[T]]:
    """Items in lists of a size that is hashed together."""
    waiting = iter(items)
    while chunk := list(islice(waiting, CHUNK)):
        yield chunk
