"""The embedder's training on a tiny base: what goes in, what is learnt, resuming to the bit, what comes out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contrastive_examples import TEXTS, WORDS, examples, exported, figures, small
from tiny_generator import context, make_base
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModel, LlamaConfig, LlamaModel, PreTrainedTokenizerFast

from speed.backends.embedder.export import export, framed
from speed.backends.embedder.forward import Forward
from speed.backends.embedder.loop import table_of
from speed.backends.embedder.plan import Plan, batch_of
from speed.backends.embedder.ranks import Ranks
from speed.backends.embedder.records import CORPUS, Labelled, labelled
from speed.backends.embedder.settings import Lora, Masks
from speed.backends.embedder.step import Steps, schedule
from speed.backends.embedder.token_table import query_text
from speed.backends.embedder.trainer import ContrastiveTrainer
from speed.backends.encoding.embedding_model import transformer
from speed.backends.encoding.encoder import Encoder
from speed.backends.encoding.token_rows import Frame, token_rows, training_frame
from speed.core.content import ModelReference
from speed.core.errors import UserError
from speed.core.spec import digest
from speed.data.records import Example, Kind
from speed.model.loss import blocked


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def trainer(base: Path) -> Callable[..., ContrastiveTrainer]:
    return lambda **changes: small(**({"base": base} | changes))


# -- tokens ------------------------------------------------------------------------------------------------------------


def words_tokenizer(post: str | None, pad: str | None, **flags: Any) -> PreTrainedTokenizerFast:
    words = Tokenizer(
        models.WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2, "<pad>": 3, "x": 4, "a": 5}, unk_token="<unk>")
    )
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if post:
        special = [("<s>", 1), ("</s>", 2)]
        words.post_processor = processors.TemplateProcessing(single=post, special_tokens=special)
    return PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token=pad, **flags
    )


@pytest.mark.parametrize(
    ("tokenizer", "bos"),
    [
        (words_tokenizer("<s> $A </s>", "<pad>"), True),
        (words_tokenizer("<s> $A", None), True),
        (words_tokenizer("<s> $A", "</s>", add_eos_token=True, add_bos_token=True), True),
        (words_tokenizer(None, "</s>"), False),
        (words_tokenizer("$A </s>", None), False),
    ],
    ids=["adds both", "adds BOS, no pad", "as e5-mistral", "adds none, pad is EOS", "adds EOS"],
)
def test_every_row_ends_in_exactly_one_eos_within_the_limit(tokenizer: Any, bos: bool) -> None:
    frame = training_frame(tokenizer, "last", "as_base")
    for length in (0, 1, 13, 14, 15, 16, 160):
        [row] = token_rows(tokenizer, ["x " * length], frame, max_length=16)
        assert row.tolist() == [1] * bos + [4] * min(length, 15 - bos) + [2]
    assert training_frame(tokenizer, "last", "always").before == (1,)
    assert training_frame(tokenizer, "last", "never").before == ()


def test_a_text_of_ten_megabytes_costs_no_more_than_its_beginning() -> None:
    tokenizer = words_tokenizer("<s> $A", None)
    frame = training_frame(tokenizer, "last", "as_base")
    [row] = token_rows(tokenizer, ["x " * 5_000_000], frame, max_length=32)
    assert len(row) == 32
    [blank] = token_rows(tokenizer, [" " * 100_000 + "x"], frame, max_length=32)
    assert blank.tolist() == [1, 4, 2], "what the cut leaves out is looked at when there is room for it"
    assert token_rows(tokenizer, ["\ud800 x"], frame, 8)[0][-1] == 2


def test_a_tokenizer_without_eos_is_refused_for_last_token_pooling() -> None:
    bare = PreTrainedTokenizerFast(tokenizer_object=words_tokenizer(None, None).backend_tokenizer, unk_token="<unk>")
    with pytest.raises(UserError, match="EOS"):
        training_frame(bare, "last", "as_base")
    assert training_frame(bare, "mean", "as_base").after == ()
    with pytest.raises(UserError, match="BOS"):
        training_frame(bare, "mean", "always")


def test_the_instruction_stands_on_the_query_only() -> None:
    record = Labelled(CORPUS, 1, 0, Kind.STS, "Find {query} like it.", "a", "b", ())
    template = ContrastiveTrainer(base="org/name").instruction
    assert query_text(record, template) == "Instruct: Find {query} like it.\nQuery: a"
    assert query_text(record._replace(task=""), template) == "a"


def test_only_labels_of_classification_are_compared_as_labels(base: Path, tmp_path: Path) -> None:
    given = [
        Example(kind=Kind.CLASSIFICATION, task="t", query="a", positive="Very good", negative="bad"),
        Example(kind=Kind.CLASSIFICATION, task="t", query="b", positive="very  good", negative="good"),
        Example(kind=Kind.RETRIEVAL, task="t", query="c", positive="very good"),
    ]
    file = tmp_path / "examples.jsonl"
    file.write_text("".join(example.model_dump_json() + "\n" for example in given))
    config = ContrastiveTrainer(base=str(base))
    rows = table_of(config, file, context(tmp_path / "home"))
    batch = batch_of(Plan(rows.table, config, 0), np.arange(3), 0, torch.device("cpu"))
    decoded = rows.tokenizer.batch_decode([rows.table.row(row) for row in batch.rows])
    assert decoded[0] == "<s>Instruct: t\nQuery: a</s>"
    assert decoded[3:] == [f"<s>{text}</s>" for text in ("Very good", "very  good", "very good", "bad", "good")]
    assert batch.ids.label[0] == batch.ids.label[1] != 0
    assert batch.ids.label[2] == 0
    assert blocked(batch.ids, batch.targets).int().tolist() == [[0, 1, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]]


# -- training ----------------------------------------------------------------------------------------------------------


def test_training_lowers_the_loss_and_leaves_only_the_model(trainer: Any, tmp_path: Path) -> None:
    ctx = context(tmp_path / "home")
    out = tmp_path / "out"
    config = trainer(epochs=3)
    config.train(examples(tmp_path / "examples.jsonl", 60), out, 0, ctx)
    losses = figures(ctx, "loss")
    assert len(losses) == config.steps(60) == 24
    assert np.mean(losses[-8:]) < np.mean(losses[:8]) - 0.2
    assert figures(ctx, "learning_rate")[0] > 0
    assert all(0 <= share < 0.9 for share in figures(ctx, "masked"))
    assert sorted(path.name for path in out.iterdir()) == ["adapter", "model"]
    assert ctx.tally.metrics["steps"] == 24
    assert ctx.tally.metrics["first_loss"] == losses[0]
    assert ctx.tally.metrics["late_loss"] == np.median(losses[-6:]) < losses[0], "one batch alone tells little"


def test_one_step_is_no_fall_and_none_that_failed(trainer: Any, tmp_path: Path) -> None:
    ctx = context(tmp_path / "home")
    trainer(max_steps=1).train(examples(tmp_path / "examples.jsonl", 24), tmp_path / "out", 0, ctx)
    assert "first_loss" not in ctx.tally.metrics


def test_a_checkpoint_of_another_training_is_not_continued(trainer: Any, tmp_path: Path) -> None:
    data = examples(tmp_path / "examples.jsonl", 24)

    class Killed(BaseException):
        pass

    def die(event: dict[str, Any]) -> None:
        if event["event"] == "metric" and event["step"] == 1:
            raise Killed

    broken = context(tmp_path / "home", checkpoint_seconds=0.0)
    broken.send = die
    with pytest.raises(Killed):
        trainer().train(data, tmp_path / "out", 5, broken)
    other = context(tmp_path / "home")
    trainer().train(data, tmp_path / "out", 6, other)
    assert len(figures(other, "loss")) == 3


def test_the_step_does_not_depend_on_how_it_is_cut(trainer: Any, tmp_path: Path) -> None:
    data = examples(tmp_path / "examples.jsonl", 16)
    losses, norms = [], []
    for cut in ({"chunk_tokens": 64, "kept_tokens": 0}, {"chunk_tokens": 4096, "kept_tokens": 100_000}):
        ctx = context(tmp_path / "home")
        lora = Lora(r=4, alpha=8, dropout=0.0)
        trainer(lora=lora, batch_size=16, **cut).train(data, tmp_path / str(cut["kept_tokens"]), 0, ctx)
        losses += figures(ctx, "loss")
        norms += figures(ctx, "gradient_norm")
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


@pytest.mark.parametrize("family", ["MistralConfig", "Qwen2Config", "GemmaConfig", "BertConfig"])
def test_any_decoder_or_encoder_trains_and_exports_the_same_model_twice(family: str, tmp_path: Path) -> None:
    """The export itself compares the saved model with the trained one."""
    encoder = family == "BertConfig"
    more = {} if encoder else {"head_dim": 8}
    base = make_base(tmp_path / "base", family, spread=0.02, **more)
    config = ContrastiveTrainer(
        base=str(base),
        lora=Lora(r=2, targets=("all-linear",)),
        pooling="cls" if encoder else "last",
        batch_size=8,
        max_length=64,
    )
    for out in (tmp_path / "one", tmp_path / "two"):
        config.train(examples(tmp_path / "examples.jsonl", 16), out, 0, context(tmp_path / "home"))
    assert exported(tmp_path / "one") == exported(tmp_path / "two")


def test_mean_pooling_without_normalisation_trains_and_exports(trainer: Any, tmp_path: Path) -> None:
    ctx = context(tmp_path / "home")
    config = trainer(pooling="mean", normalize=False, temperature=1.0, hard_negatives=0, masks=Masks(score_margin=0.1))
    config.train(examples(tmp_path / "examples.jsonl", 16), tmp_path / "out", 0, ctx)
    vectors = Encoder.load(tmp_path / "out" / "model").encode(["one two", "water"])
    assert abs(np.linalg.norm(vectors, axis=1) - 1).min() > 1e-3


def test_the_rate_rises_over_a_share_of_the_steps_and_never_is_zero() -> None:
    config = ContrastiveTrainer(base="org/name", warmup_ratio=0.25)
    assert [round(schedule(config, step, 8), 3) for step in range(8)] == [
        0.5,
        1.0,
        1.0,
        0.833,
        0.667,
        0.5,
        0.333,
        0.167,
    ]


def test_lora_on_mistral_7b_trains_41_943_040_parameters() -> None:
    from transformers import MistralConfig, MistralModel

    from speed.backends.embedder.loop import adapted

    with torch.device("meta"):
        model = adapted(MistralModel(MistralConfig()), ContrastiveTrainer(base="org/name"), seed=0)
    assert sum(weight.numel() for weight in model.parameters() if weight.requires_grad) == 41_943_040


# -- export ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def embedder(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embedder")
    config = ContrastiveTrainer(
        base=str(base), lora=Lora(r=4, alpha=8), learning_rate=5e-3, batch_size=8, max_length=64, epochs=2
    )
    config.train(examples(folder / "examples.jsonl", 32), folder, 0, context(folder / "home"))
    return folder / "model"


def test_the_export_is_not_the_base(embedder: Path, base: Path) -> None:
    trained, untrained = AutoModel.from_pretrained(embedder), AutoModel.from_pretrained(base)
    changed = [
        name for (name, w), (_, v) in zip(trained.named_parameters(), untrained.named_parameters(), strict=True)
        if not torch.equal(w, v)
    ]  # fmt: skip
    assert len(changed) == 14, "seven linear layers in each of two blocks"


def test_vectors_do_not_depend_on_order_neighbours_or_cuts(embedder: Path) -> None:
    encoder = Encoder.load(embedder)
    texts = [" ".join(WORDS[: 1 + i % 9]) + f" {i % 30}" for i in range(90)]
    whole = encoder.encode(texts)
    alone = np.concatenate([encoder.encode([text]) for text in texts])
    assert abs(whole - alone).max() < 1e-5
    encoder.chunk_tokens = 1
    assert abs(encoder.encode(texts[::-1])[::-1] - whole).max() < 1e-5
    encoder.chunk_tokens = 16_384
    assert abs(encoder.encode(texts, prefix="Query: ") - encoder.encode(["Query: " + t for t in texts])).max() == 0
    with pytest.raises(UserError, match="takes .* tokens, and the embedder reads 64"):
        encoder.encode(texts, prefix="instruction " * 60)
    twice = encoder.encode(texts[:5] + texts[:5])
    assert (twice[:5] == twice[5:]).all()
    assert abs(twice[:5] - whole[:5]).max() < 1e-5
    seen: list[int] = []
    encoder.chunk_tokens = 64
    encoder.encode(texts, progress=seen.append)
    assert seen[-1] == 90
    assert seen == sorted(seen)


def test_left_padding_of_the_saved_tokenizer_changes_nothing(embedder: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(str(embedder), device="cpu")
    right = theirs.encode(list(TEXTS))
    theirs.tokenizer.padding_side = "left"
    assert abs(theirs.encode(list(TEXTS)) - right).max() < 1e-4


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds 0 examples"),
        ('{"kind": "sts", "task": "", "query": "a", "positive": "b"}\n', "holds 1 examples"),
        ('{"kind": "sts", "task": "", "query": "a"}\n', "line 1.*positive"),
        ('{"kind": "sts", "task": "", "query": " ", "positive": "b"}\n', "line 1: query is empty"),
        ("not json\n", "line 1"),
    ],
)
def test_records_that_cannot_be_used_are_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "examples.jsonl"
    file.write_text(text)
    with pytest.raises(UserError, match=message):
        list(labelled(file, ()))


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": 0.0}, {"learning_rate": -1}, {"batch_size": 1}, {"warmup_ratio": 2}, {"instruction": "{task}"},
     {"instruction": "{query}: {task}"}, {"lora": {"rank": 4}}, {"pooling": "max"}],
)  # fmt: skip
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="1 validation error"):
        ContrastiveTrainer(**{"base": "org/name", **wrong})


def test_a_loss_that_is_no_number_stops_with_step_records_and_checkpoint(trainer: Any, tmp_path: Path) -> None:
    data = examples(tmp_path / "examples.jsonl", 24)
    ctx = context(tmp_path / "home", checkpoint_seconds=0.0)
    with pytest.raises(UserError, match=r"step [12], on the records of lines \d+.*step-00000000[12]"):
        trainer(learning_rate=1e30, max_gradient_norm=None).train(data, tmp_path / "out", 0, ctx)
    assert (tmp_path / "out" / "checkpoints").is_dir()


def test_what_this_machine_or_base_cannot_do_is_said(trainer: Any, tmp_path: Path) -> None:
    data = examples(tmp_path / "examples.jsonl", 8)
    ctx = context(tmp_path / "home")
    for wrong, message in [
        ({"lora": Lora(targets=("c_attn",))}, "lora.targets"),
        ({"precision": "fp16"}, "needs a GPU"),
        ({"max_length": 8, "base": "no such base!"}, "no base model"),
    ]:
        with pytest.raises(UserError, match=message):
            trainer(**wrong).train(data, tmp_path / "out", 0, ctx)


def test_a_base_enters_the_key_by_its_content(base: Path, tmp_path: Path) -> None:
    import shutil

    moved = shutil.copytree(base, tmp_path / "moved")
    keys = [digest(ContrastiveTrainer(base=str(folder)).recipe()) for folder in (base, moved)]
    assert keys[0] == keys[1]
    (moved / "config.json").write_text(json.dumps({**json.loads((moved / "config.json").read_text()), "x": 1}))
    assert digest(ContrastiveTrainer(base=str(moved)).recipe()) != keys[0]


def test_causal_models_need_no_mask_for_padding_on_the_right() -> None:
    from speed.backends.encoding.embedding_model import vectors

    torch.manual_seed(0)
    size = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2}
    model = LlamaModel(LlamaConfig(**size, num_attention_heads=4, num_key_value_heads=2)).eval()
    rows = [np.arange(3, 3 + length, dtype=np.int32) for length in (1, 5, 9)]
    with torch.no_grad():
        found = [vectors(model, rows, 0, causal, "last", True) for causal in (True, False)]
        alone = torch.cat([vectors(model, [row], 0, True, "last", True) for row in rows])
    torch.testing.assert_close(found[0], found[1], atol=1e-6, rtol=0)
    torch.testing.assert_close(found[0], alone, atol=1e-6, rtol=0)


def test_weights_below_two_dimensions_are_not_decayed(base: Path, tmp_path: Path) -> None:
    config = ContrastiveTrainer(base=str(base), lora=None)
    table = table_of(config, examples(tmp_path / "examples.jsonl", 8), context(tmp_path / "home")).table
    cpu = torch.device("cpu")
    forward = Forward(config, AutoModel.from_pretrained(base), table, 2, cpu, Ranks())
    decayed, plain = Steps(config, forward, Plan(table, config, 0), 0).optimizer.param_groups
    assert decayed["weight_decay"] == 0.1
    assert plain["weight_decay"] == 0.0
    assert all(weight.ndim == 1 for weight in plain["params"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_export_that_embeds_otherwise_is_refused(
    dtype: torch.dtype, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the EOS is lost on the way. In half precision vectors differ a little, and that is no reason."""
    config = small(base, lora=None)
    model, tokenizer = transformer(str(base), None, dtype)
    frame = training_frame(tokenizer, config.pooling, config.bos)
    export(config, model, tokenizer, frame, 0, tmp_path / "right", dtype, {"steps": 0})
    assert (tmp_path / "right" / "model").is_dir()

    def without_end(tokenizer: Any, frame: Frame, max_length: int) -> Any:
        return framed(tokenizer, Frame(frame.before, ()), max_length)

    monkeypatch.setattr("speed.backends.embedder.export.framed", without_end)
    with pytest.raises(RuntimeError, match="of their length away from the trained one's"):
        export(config, model, tokenizer, frame, 0, tmp_path / "wrong", dtype, {"steps": 0})
    assert not (tmp_path / "wrong" / "model").exists()


def test_the_base_without_training_is_exported_as_it_is(trainer: Any, tmp_path: Path) -> None:
    """Its vectors are those of the base under the trainer's pooling and special tokens; nothing is trained on it."""
    made = trainer()
    assert made.untrained(tmp_path / "one", context(tmp_path / "home")) == tmp_path / "one" / "model"
    before, again = (made.model_copy(update=more) for more in ({}, {"lora": None}))
    assert again.untrained(tmp_path / "two", context(tmp_path / "home"))
    one, two = (Encoder.load(tmp_path / name / "model") for name in ("one", "two"))
    assert np.array_equal(one.encode(["a query", "another"]), two.encode(["a query", "another"]))
    assert one.how == before.pooling
    assert one.prompts == two.prompts
    large = made.model_copy(update={"base": ModelReference(name="mistralai/Mistral-7B-v0.1")})
    assert large.untrained(tmp_path / "large", context(tmp_path / "home")) is None
