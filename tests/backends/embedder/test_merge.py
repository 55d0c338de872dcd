"""`python -m speed.merge`: weights of several trainings of one base, mixed tensor by tensor, and what is refused."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contrastive_examples import TEXTS, examples, small
from safetensors.torch import load_file, save_file
from tiny_generator import context, make_base
from torch import Tensor

import speed.backends.embedder.merge as module
from speed.backends.embedder.export import export_untrained
from speed.backends.embedder.merge import PARALLEL, mixed
from speed.backends.encoding.encoder import Encoder
from speed.backends.evaluation.evaluated_model import asks_for_instructions
from speed.core.cache import _tidy
from speed.core.content import MERGED_FROM, digests_of_weights, sha256_of
from speed.core.errors import UserError
from speed.merge import main

WEIGHTS = "model.safetensors"
FROZEN = "embed_tokens.weight"


@pytest.fixture(scope="module")
def embedders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `base` and `0`, `1`, `2`: an embedder, and what three trainings that leave the tokens alone made of
    it."""
    folder = tmp_path_factory.mktemp("embedders")
    export_untrained(small(make_base(folder / "generator")), folder / "exported")
    (folder / "exported" / "model").rename(folder / "base")
    for seed in range(3):
        shutil.copytree(folder / "base", folder / str(seed))
        change(folder / str(seed), lambda name, tensor, seed=seed: tensor + moved(name, tensor, seed))
    return folder


def moved(name: str, tensor: Tensor, seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.zeros_like(tensor) if name == FROZEN else 0.1 * torch.randn(tensor.shape, generator=draw)


def change(folder: Path, how: Callable[[str, Tensor], Tensor]) -> None:
    """Write other weights into a model."""
    tensors = {name: how(name, tensor).contiguous() for name, tensor in load_file(folder / WEIGHTS).items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def merge(to: Path, *arguments: object) -> dict[str, Tensor]:
    main([*map(str, arguments), "--to", str(to)])
    return load_file(to / WEIGHTS)


def weights(*folders: Path) -> list[dict[str, Tensor]]:
    return [load_file(folder / WEIGHTS) for folder in folders]


def test_the_mean_of_three_with_shares(embedders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = [embedders / each for each in "012"]
    before = sha256_of(parts[0])
    found = merge(tmp_path / "merged", *parts, "--weights", 2, 1, 1)
    first, second, third = weights(*parts)
    for name, tensor in found.items():
        expected = first[name] / 2 + second[name] / 4 + third[name] / 4
        assert torch.allclose(tensor, expected, atol=1e-6), name
        assert not torch.allclose(tensor, first[name]) or name == FROZEN
    assert torch.equal(found[FROZEN], first[FROZEN])
    assert "1 are the same in all parts" in capsys.readouterr().out
    assert sha256_of(parts[0]) == before


def test_what_comes_out_is_an_embedder_like_its_parts(embedders: Path, tmp_path: Path) -> None:
    """By our encoder and by transformers alone, in their layout; and the card names them."""
    import transformers

    merge(tmp_path / "merged", embedders / "0", embedders / "1")
    files = {file.relative_to(embedders / "0").as_posix() for file in (embedders / "0").rglob("*")}
    made = {file.relative_to(tmp_path / "merged").as_posix() for file in (tmp_path / "merged").rglob("*")}
    assert made == {*files, MERGED_FROM}
    found = Encoder.load(tmp_path / "merged").encode(TEXTS)
    ends = [Encoder.load(embedders / each).encode(TEXTS) for each in "01"]
    assert all(abs(found - end).max() > 1e-3 for end in ends)
    assert asks_for_instructions(tmp_path / "merged")
    model = transformers.AutoModel.from_pretrained(tmp_path / "merged")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "merged")
    with torch.no_grad():
        last = model(**tokenizer("a", return_tensors="pt")).last_hidden_state[0, -1]
    assert np.allclose(torch.nn.functional.normalize(last, dim=0).numpy(), found[1], atol=1e-5)
    card = (tmp_path / "merged" / "README.md").read_text()
    for each in "01":
        assert f"| local/{each} | 0.5 |" in card
        assert sha256_of(embedders / each) in card
    assert str(tmp_path.parent) not in card
    assert "arXiv 2203.05482" in card


def test_a_merge_knows_the_weights_that_went_into_it(embedders: Path, tmp_path: Path) -> None:
    """Also those of a merge that is merged again."""
    merge(tmp_path / "merged", embedders / "0", embedders / "1")
    merge(tmp_path / "again", tmp_path / "merged", embedders / "2")
    parts = {digest for each in "012" for digest in digests_of_weights(embedders / each)}
    assert len(parts) == 3
    assert parts < set(digests_of_weights(tmp_path / "again"))


@pytest.mark.parametrize("text", ["{", "[]", "{}", "null", '{"sha256": null}'])
def test_a_damaged_list_of_what_was_merged_is_told(text: str, tmp_path: Path) -> None:
    (tmp_path / MERGED_FROM).write_text(text)
    with pytest.raises(UserError, match=r"merged_from\.json is damaged .*: merge or fetch the model again"):
        digests_of_weights(tmp_path)


def test_sentence_transformers_loads_it(embedders: Path, tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    merge(tmp_path / "merged", embedders / "0", embedders / "1", "--how", "slerp")
    theirs = library.SentenceTransformer(str(tmp_path / "merged"), device="cpu").encode(list(TEXTS))
    assert abs(Encoder.load(tmp_path / "merged").encode(TEXTS) - theirs).max() < 1e-5


def test_slerp_keeps_to_the_sphere() -> None:
    one, other = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0])
    third, near = mixed([one, other], [2 / 3, 1 / 3], "slerp")
    assert not near
    expected = [2 * math.cos(math.pi / 6), 2 * math.sin(math.pi / 6)]  # a third of the way along the arc
    assert torch.allclose(third, torch.tensor(expected))
    assert abs(float(mixed([one, other], [0.5, 0.5], "mean")[0].norm()) - math.sqrt(2)) < 1e-6


@pytest.mark.parametrize(("angle", "near"), [(1.01, False), (0.99, True)])
def test_slerp_of_almost_parallel_tensors_is_their_mean(angle: float, near: bool) -> None:
    angle *= math.acos(PARALLEL)
    pair = [torch.tensor([1.0, 0.0]), torch.tensor([math.cos(angle), math.sin(angle)])]
    found, fell_back = mixed(pair, [0.5, 0.5], "slerp")
    assert fell_back is near
    assert torch.equal(found, (pair[0] + pair[1]) / 2) is near
    assert torch.equal(mixed([torch.zeros(2), pair[0]], [0.5, 0.5], "slerp")[0], pair[0] / 2)


def test_slerp_goes_tensor_by_tensor(embedders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = merge(tmp_path / "merged", embedders / "0", embedders / "1", "--how", "slerp")
    one, other = weights(embedders / "0", embedders / "1")
    name = "layers.0.mlp.up_proj.weight"
    assert torch.allclose(found[name], mixed([one[name], other[name]], [0.5, 0.5], "slerp")[0])
    assert not torch.allclose(found[name], (one[name] + other[name]) / 2, atol=1e-4)
    assert "almost parallel" in capsys.readouterr().out


def test_an_adapter_is_merged_into_its_base_first(tmp_path: Path) -> None:
    config = small(make_base(tmp_path / "base"), epochs=2)
    for seed in (0, 1):
        out = tmp_path / f"run{seed}" / "stages" / "embedder"
        config.train(examples(tmp_path / "examples.jsonl", 32), out, seed, context(tmp_path / "home"))
    runs = [tmp_path / "run0", tmp_path / "run1"]
    whole = merge(tmp_path / "whole", *runs)
    adapters = merge(tmp_path / "adapters", *(run / "stages" / "embedder" / "adapter" for run in runs))
    assert {file.name for file in (tmp_path / "adapters").iterdir()} == {
        file.name for file in (tmp_path / "whole").iterdir()
    }
    for name, tensor in whole.items():
        assert torch.allclose(adapters[name], tensor, atol=1e-6), name


def test_weights_in_several_files_of_16_bits(embedders: Path, tmp_path: Path) -> None:
    """The layout of large models: the first part's files and type are those of the result."""
    import transformers

    model = transformers.AutoModel.from_pretrained(embedders / "0", dtype=torch.bfloat16)
    shutil.copytree(embedders / "0", tmp_path / "0")
    (tmp_path / "0" / WEIGHTS).unlink()
    model.save_pretrained(tmp_path / "0", max_shard_size="40KB")
    shards = sorted(file.name for file in (tmp_path / "0").glob("*.safetensors"))
    assert len(shards) > 1
    main([str(tmp_path / "0"), str(embedders / "1"), "--to", str(tmp_path / "merged")])
    assert sorted(file.name for file in (tmp_path / "merged").glob("*.safetensors")) == shards
    merged = transformers.AutoModel.from_pretrained(tmp_path / "merged", dtype="auto").state_dict()
    one, other = model.state_dict(), load_file(embedders / "1" / WEIGHTS)
    for name, tensor in merged.items():
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor, ((one[name].float() + other[name]) / 2).to(torch.bfloat16)), name


def rewrite(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


UNLIKE: dict[str, tuple[Callable[[Path], object], str]] = {
    "pooling": (
        lambda folder: rewrite(folder / "1_Pooling" / "config.json", pooling_mode_mean_tokens=True,
                               pooling_mode_lasttoken=False),
        r'differ in pooling: \["last", true\] and \["mean", true\]',
    ),
    "instructions": (
        lambda folder: rewrite(folder / "config_sentence_transformers.json", prompts={}),
        "differ in instructions",
    ),
    "length": (
        lambda folder: rewrite(folder / "sentence_bert_config.json", max_seq_length=32),
        r"differ in reading of a text \(max_seq_length\): 64 and 32",
    ),
    "letters": (
        lambda folder: rewrite(folder / "sentence_bert_config.json", do_lower_case=True),
        r"differ in reading of a text \(do_lower_case\): false and true",
    ),
    "default prompt": (
        lambda folder: rewrite(folder / "config_sentence_transformers.json", default_prompt_name="query"),
        r'differ in instructions \(default_prompt_name\): null and "query"',
    ),
    "special tokens": (
        lambda folder: rewrite(folder / "tokenizer_config.json", add_eos_token=True),
        r"differ in special tokens \(add_eos_token\): null and true",
    ),
    "tokenizer": (
        lambda folder: rewrite(folder / "tokenizer.json", pre_tokenizer=None),
        r"differ in tokenizer \(pre_tokenizer\)",
    ),
    "architecture": (
        lambda folder: rewrite(folder / "config.json", num_attention_heads=8),
        r"differ in architecture \(num_attention_heads\): 4 and 8",
    ),
    "rope": (
        lambda folder: rewrite(
            folder / "config.json", rope_parameters={"rope_type": "default", "rope_theta": 5e5}, rope_theta=1e4
        ),
        r"differ in architecture \(rope_parameters\) \(rope_theta\): 10000\.0 and 500000\.0",
    ),
    "layers": (
        lambda folder: save_file({FROZEN: load_file(folder / WEIGHTS)[FROZEN]}, folder / WEIGHTS),
        r"only one of them has the tensor layers\.0\..* and \d+ others",
    ),
    "shapes": (
        lambda folder: change(folder, lambda _, tensor: tensor[..., :1]),
        r"their tensors .* have the shapes \[.*\] and \[.*1\]",
    ),
    "base": (
        lambda folder: change(folder, lambda name, tensor: torch.randn(tensor.shape)),
        r"the cosine of their weights is -?0\.0\d, so they do not come from one base",
    ),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), r"lacks model\.safetensors: .* in safetensors only"),
    "damaged modules": (lambda folder: (folder / "modules.json").write_text("[7]"), r"modules\.json, or .* is damaged"),
    "half modules": (lambda folder: (folder / "modules.json").write_text("[{"), r"modules\.json, or .* is damaged \("),
    "damaged pooling": (lambda folder: (folder / "1_Pooling" / "config.json").write_text("7"), "is damaged .*: fetch"),
    "damaged index": (
        lambda folder: (folder / "model.safetensors.index.json").write_text('{"weight_map": [1]}'),
        r"index\.json is damaged \(its weight_map\)",
    ),
    "damage": (lambda folder: (folder / WEIGHTS).write_bytes(b"none"), "is damaged .*: fetch or export"),
}  # fmt: skip


@pytest.mark.parametrize("what", UNLIKE)
def test_what_does_not_belong_together_is_refused(
    embedders: Path, tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, told = UNLIKE[what]
    spoil(shutil.copytree(embedders / "1", tmp_path / "other"))
    with pytest.raises(SystemExit) as ended:
        main([str(embedders / "0"), str(tmp_path / "other"), "--to", str(tmp_path / "merged")])
    assert ended.value.code == 1
    assert re.search(told, capsys.readouterr().err.replace("\n", " "))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other"], "nothing is left"


def test_what_changes_no_vector_may_differ(embedders: Path, tmp_path: Path) -> None:
    """Also a key that one version of a library writes as null and another leaves out."""
    other = shutil.copytree(embedders / "1", tmp_path / "other")
    rewrite(other / "config.json", use_cache=False, architectures=["LlamaForCausalLM"], top_p=0.5, rope_scaling=None)
    config = json.loads((other / "config.json").read_text())
    rewrite(other / "config.json", rope_parameters=None, rope_theta=config["rope_theta"])  # as transformers 4 wrote it
    rewrite(other / "config_sentence_transformers.json", __version__={}, default_prompt_name=None)
    written = json.loads((other / "config_sentence_transformers.json").read_text())
    rewrite(other / "config_sentence_transformers.json", prompts=written["prompts"] | {"document": ""})
    rewrite(other / "sentence_bert_config.json", do_lower_case=None)
    rewrite(other / "tokenizer_config.json", model_max_length=7, add_bos_token=None)
    assert merge(tmp_path / "merged", embedders / "0", other)


def test_an_adapter_with_pickled_weights_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its own, or those of its base."""
    base = make_base(tmp_path / "base")
    small(base).train(examples(tmp_path / "e.jsonl", 16), tmp_path / "out", 0, context(tmp_path / "home"))
    one, other = tmp_path / "out" / "model", tmp_path / "out" / "adapter"

    def refused() -> str:
        with pytest.raises(SystemExit):
            main([str(one), str(other), "--to", str(tmp_path / "new" / "merged")])
        assert not list((tmp_path / "new").iterdir()), "nothing is left"
        return " ".join(capsys.readouterr().err.split())

    torch.save(load_file(base / WEIGHTS), base / "pytorch_model.bin")
    (base / WEIGHTS).rename(tmp_path / "kept")
    (other / "base.json").unlink()
    assert "no file named model.safetensors" in refused()
    (tmp_path / "kept").rename(base / WEIGHTS)
    torch.save(load_file(other / "adapter_model.safetensors"), other / "adapter_model.bin")
    (other / "adapter_model.safetensors").unlink()
    assert "lacks adapter_model.safetensors: a merge reads weights in safetensors only" in refused()
    (other / "adapter_config.json").write_text("{")
    assert "adapter_config.json is damaged" in refused()


def test_what_a_killed_merge_left_is_removed(embedders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratches: list[Path] = []
    whole = module._whole
    monkeypatch.setattr(module, "_whole", lambda part, scratch: scratches.append(scratch) or whole(part, scratch))
    merge(tmp_path / "merged", embedders / "0", embedders / "1")
    none = 2**22 + 1  # above the largest number of a process
    killed = scratches[0].parent.name.replace(f"-{os.getpid()}-", f"-{none}-")
    (tmp_path / killed / "0").mkdir(parents=True)
    _tidy.cache_clear()  # as in a process of its own
    merge(tmp_path / "again", embedders / "0", embedders / "1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "merged"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["0"], "--how mean takes at least two embedders, and 1 are given"),
        (["0", "1", "2", "--how", "slerp"], "--how slerp takes exactly two embedders, and 3 are given"),
        (["0", "1", "--weights", "1"], "--weights 1: give a number above 0 for each of the 2"),
        (["0", "1", "--weights", "1", "0"], "--weights 1 0: give a number above 0"),
        (["0", "1", "--to", "2"], "2 already exists: give a new folder"),
    ],
)
def test_mistakes(
    embedders: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(embedders)
    with pytest.raises(SystemExit):
        main([*arguments, *([] if "--to" in arguments else ["--to", str(tmp_path / "merged")])])
    assert told in capsys.readouterr().err
