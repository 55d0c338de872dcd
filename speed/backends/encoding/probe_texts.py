"""The 64 texts on which every program that loads an embedder must agree: short and long, plain and with accents."""

from __future__ import annotations

from typing import NamedTuple

SENTENCES = (
    "a",
    "3.14",
    "?",
    "water",
    "Où est la bibliothèque la plus proche ?",
    "Größe und Straße, Äpfel und Öl",
    "Zażółć gęślą jaźń",
    "Điều này có nghĩa là gì?",
    "Καλημέρα κόσμε",
    "Привет, мир",
    "東京は日本の首都です。",
    "مرحبا بالعالم",
    "na\u0308ive in two code points, naïve in one",
    "def area(r):\n    return 3.14159 * r ** 2",
    "https://example.org/a?b=c&d=%20e#f",
    "An emoji 🦉 and a sign €, § or ½.",
    "the quick brown fox jumps over the lazy dog",
    "How do I reset the password of an account that has no e-mail address?",
    "Rome lies on the Tiber, some 24 kilometres from the sea.",
    "The patient was given 5 mg twice daily; symptoms ceased within three days.",
)
"""Short texts; longer ones are put together from them."""


class Probe(NamedTuple):
    """A text, and how it is sent."""

    text: str
    instructed: bool = False
    """Whether the model's own instruction stands in front of it, as before a query."""


def _paragraph(start: int, sentences: int) -> str:
    return " ".join(SENTENCES[(start + step) % len(SENTENCES)] for step in range(sentences))


PROBES = (
    *(Probe(text) for text in SENTENCES),
    *(Probe(text, instructed=True) for text in SENTENCES[:16]),
    *(Probe(_paragraph(start, 2 + start)) for start in range(16)),
    *(Probe(_paragraph(start, 90), instructed=start % 2 == 1) for start in range(8)),
    *(Probe("long text " * words + str(words), instructed=words > 300) for words in (200, 300, 400, 500)),
)
"""Eight paragraphs and three runs of words are longer than 512 tokens of any tokenizer."""
