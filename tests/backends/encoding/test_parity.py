"""An exported embedder whose vectors differ in another program is refused, with what is likely."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from served_embedder import EmbeddingServer, around_every, made

from speed.backends.encoding.encoder import Encoder
from speed.backends.encoding.probe_texts import PROBES
from speed.core.errors import UserError
from speed.export import export


def changed(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def sent_to(payload: Path, to: Path, **how: Any) -> Path:
    return export(payload, None, to, False, "fp32", **how)


@pytest.mark.parametrize("pooling", ["last", "mean", "cls"])
def test_every_program_agrees_and_the_card_says_how_nearly(
    tmp_path: Path, pooling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    payload = made(tmp_path / "payload", pooling=pooling, normalize=pooling != "mean")
    card = ModelCard((sent_to(payload, tmp_path / "out") / "README.md").read_text())
    rows = re.findall(
        r"\| (speed|sentence-transformers|transformers)\b.* \| (\d\.\d+) \| (\d\.\d+) \| (\d+) \|", card.text
    )
    assert [row[0] for row in rows] == ["speed", "sentence-transformers", "transformers"]
    assert all(float(low) > 0.99999 and float(mean) >= float(low) and int(texts) == 64 for _, low, mean, texts in rows)
    assert card.text.index("## Parity") < card.text.index("## Origin")
    written = next(part for part in re.findall(r"```python\n(.*?)```", card.text, re.S) if "AutoModel" in part)
    (tmp_path / "copied_from_a_card.py").write_text(written.replace("path/of/this/folder", str(tmp_path / "out")))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "copied_from_a_card", raising=False)
    copied = importlib.import_module("copied_from_a_card")
    texts = [probe.text for probe in PROBES if len(probe.text) > 1][:20]
    assert abs(copied.embed(texts).numpy() - Encoder.load(tmp_path / "out").encode(texts)).max() < 1e-5


def test_on_cores_16_bits_round_nothing_but_the_weights(tmp_path: Path) -> None:
    """A model's arithmetic in 16 bits would differ from batch to batch by as much as some faults do."""
    payload = made(tmp_path / "payload")
    weights = payload / "model" / "model.safetensors"
    save_file({name: tensor.bfloat16() for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})
    changed(payload / "model" / "config.json", dtype="bfloat16")
    assert Encoder.load(payload / "model").model.dtype is torch.bfloat16
    card = (sent_to(payload, tmp_path / "out") / "README.md").read_text()
    lowest = re.findall(r"\| (?:speed|sentence-transformers|transformers)\b.* \| (\d\.\d+) \| \d\.\d+ \| 64 \|", card)
    assert len(lowest) == 3
    assert all(float(low) > 0.999998 for low in lowest), lowest


def wrong_pooling(model: Path) -> None:
    changed(model / "1_Pooling" / "config.json", pooling_mode_lasttoken=False, pooling_mode_mean_tokens=True)


def lost_eos(model: Path) -> None:
    around_every(model, "<s> $A")


def two_bos(model: Path) -> None:
    around_every(model, "<s> <s> $A </s>")


def lost_prompt(model: Path) -> None:
    changed(model / "config_sentence_transformers.json", prompts={})


def cut_early(model: Path) -> None:
    changed(model / "sentence_bert_config.json", max_seq_length=32)


@pytest.mark.parametrize(
    ("fault", "likely"),
    [
        (wrong_pooling, r"wrong pooling: the mean over tokens in the place of the last token"),
        (lost_eos, r"lost EOS"),
        (two_bos, r"BOS twice"),
        (lost_prompt, r"missing prompt: 'Instruct: "),
        (cut_early, r"long texts are cut elsewhere: the training reads 64 tokens"),
    ],
)
def test_a_fault_of_the_folder_is_refused_by_name(tmp_path: Path, fault: Callable[[Path], None], likely: str) -> None:
    payload = made(tmp_path / "payload")
    fault(payload / "model")
    with pytest.raises(
        UserError, match=r"(?s)^speed embeds otherwise than .* cosine of -?\d\.\d+ for the text '.*" + likely
    ):
        sent_to(payload, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[EmbeddingServer]:
    server = EmbeddingServer(sent_to(made(tmp_path / "payload"), tmp_path / "out"))
    yield server
    server.close()


def test_a_server_of_the_exported_folder_gets_a_row_of_its_card(served: EmbeddingServer, tmp_path: Path) -> None:
    weights = (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns
    for _ in range(2):  # the section is written anew, not once more
        sent_to(tmp_path / "payload", tmp_path / "out", url=served.url, served="mine")
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.count("## Parity") == card.count("## Origin") == card.count("/mine at http://127.0.0.1") == 1
    assert (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns == weights
    served.longest = 300
    sent_to(tmp_path / "payload", tmp_path / "other", url=served.url, served="mine")
    card = (tmp_path / "other" / "README.md").read_text()
    (texts,) = re.findall(r"/mine at .* \| (\d+) \|", card)
    assert 30 < int(texts) < 64, "texts that it refuses as too long are left out"


def test_a_server_with_a_fault_is_refused_and_the_card_stays(served: EmbeddingServer, tmp_path: Path) -> None:
    card = (tmp_path / "out" / "README.md").read_text()

    def refused(likely: str) -> None:
        with pytest.raises(UserError, match=r"(?s)^127\.0\.0\.1/mine at http.* embeds otherwise than .*" + likely):
            sent_to(tmp_path / "payload", tmp_path / "out", url=served.url, served="mine")
        assert (tmp_path / "out" / "README.md").read_text() == card

    frame = served.encoder.frame
    served.encoder.frame = frame._replace(after=())
    refused("lost EOS")
    served.encoder.frame = frame._replace(before=frame.before * 2)
    refused("BOS twice")
    served.encoder.frame, served.encoder.how = frame, "cls"
    refused("wrong pooling: the first token in the place of the last")
    served.encoder.how = "last"
    served.read = lambda text: text.rpartition("Query: ")[2]
    refused("missing prompt")
    served.read = lambda text: text[::-1]
    refused("none of wrong pooling, lost EOS, missing prompt")


def test_a_url_is_for_an_embedder(tmp_path: Path) -> None:
    (tmp_path / "junior" / "model").mkdir(parents=True)
    with pytest.raises(UserError, match="--url is for an embedder"):
        sent_to(tmp_path / "junior", tmp_path / "out", url="http://127.0.0.1:9/v1")


def test_there_are_64_probes_of_many_lengths() -> None:
    assert len({(probe.text, probe.instructed) for probe in PROBES}) == len(PROBES) == 64
    lengths = sorted(len(probe.text.split()) for probe in PROBES)
    assert (lengths[0], lengths[-12] > 400, lengths[-1] > 512) == (1, True, True)
    assert sum(probe.instructed for probe in PROBES) >= 16
