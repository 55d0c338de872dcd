"""A few steps of contrastive training on random tokens, all texts as long as they may be: memory and speed."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

import numpy as np
import torch

from speed.backends.embedder.forward import Forward
from speed.backends.embedder.loop import Rows, distributed
from speed.backends.embedder.plan import Plan
from speed.backends.embedder.ranks import join_ranks
from speed.backends.embedder.records import CORPUS
from speed.backends.embedder.settings import Batching, ContrastiveSettings
from speed.backends.embedder.step import Steps
from speed.backends.embedder.token_table import RECORD, TokenTable
from speed.backends.encoding.embedding_model import tokenizer_of
from speed.backends.encoding.token_rows import training_frame
from speed.backends.runtime.at_once import AtOnce
from speed.backends.runtime.device import device_of
from speed.backends.runtime.peak_memory import forget_peak
from speed.backends.runtime.probe_steps import STEPS, leave
from speed.core.content import locate_model
from speed.data.records import LEVELS
from speed.runtime import Context


def measure_steps(config: ContrastiveSettings, out: Path, ctx: Context) -> None:
    """Take the steps in this process, which may be one of several ranks, and leave what they took among the metrics of
    the build. The model of `masks.guide` is not among it.

    Raises:
        UserError: where single texts do not fit into memory.
        DoesNotFit: in one of several processes, where smaller chunks are to be tried.
    """
    torch.set_num_threads(ctx.grant.threads)
    device = torch.device(device_of(ctx))
    plain = {"sources": (), "development": None, "epochs": 1, "max_steps": None, "batching": Batching()}
    config = config.model_copy(update=plain)
    with TemporaryDirectory() as folder:
        rows = random_records(config, Path(folder))
        ranks = join_ranks(ctx, device)
        forget_peak(device.type)
        model = distributed(config, 0, rows, ranks, device)
        forward = Forward(config, model, rows.table, rows.tokenizer.pad_token_id or 0, device, ranks)
        what = ["embedder", str(out.resolve()), ctx.grant.processes]
        at_once = AtOnce(ctx, what, config.chunk_tokens, "tokens", "embedder.chunk_tokens")
        steps = Steps(config, forward, Plan(rows.table, config, 0), 0, None, at_once)
        speeds = [steps.take(step, out, out)["tokens_per_second"] for step in range(STEPS)]
        at_once.tell()
        leave(device.type, fmean(speeds[1:]), ctx)
        ranks.barrier()


def random_records(config: ContrastiveSettings, folder: Path) -> Rows:
    """Records for `STEPS` batches, each with as many hard negatives as a step takes, and with graded documents where
    these are trained on."""
    source, revision = locate_model(config.base.name)
    tokenizer = tokenizer_of(source, revision)
    frame = training_frame(tokenizer, config.pooling, config.bos)
    draw, width = np.random.default_rng(0), config.max_length
    graded = len(LEVELS) if config.listwise else 0
    records, each = STEPS * config.batch_size, 2 + config.hard_negatives + graded
    ids = draw.integers(0, tokenizer.vocab_size, (records * each, width), np.int32)
    for place, special in enumerate(frame.before):
        ids[:, place] = special
    for place, special in enumerate(reversed(frame.after), 1):
        ids[:, -place] = special
    table = np.zeros(records, RECORD)
    table["first"], table["number"], table["source"] = np.arange(records) * each, np.arange(1, records + 1), CORPUS
    (folder / "ids.bin").write_bytes(ids.astype("<i4").tobytes())
    (folder / "starts.bin").write_bytes((np.arange(records * each + 1) * width).astype("<i8").tobytes())
    (folder / "texts.bin").write_bytes(np.arange(1, records * each + 1).astype("<i8").tobytes())
    (folder / "labels.bin").write_bytes(np.zeros(records * each, "<i8").tobytes())
    (folder / "records.bin").write_bytes(table.tobytes())
    (folder / "graded.bin").write_bytes(np.full(records, graded, "<i1").tobytes())
    return Rows(TokenTable(folder), tokenizer, frame)
