"""Host memory while two processes of a ZeRO-3 training load a model on the CPU, in copies; prints one JSON object.

A model of random weights lies on disk in bf16 and is trained in fp32, all weights. `embedder` and `generator` (which
DeepSpeed divides, where it is installed): the most memory that both processes have together beyond what they had before
they loaded it, by the bytes of its weights in fp32. It is the sum of what each has for itself and of its share of what
they have together (PSS), sampled many times a second; `_own` leaves out pages of the file, which the system takes back
when it needs them. The C library gives back what is freed from 1 MB on, as it does with the weights of a large model,
which are over 32 MB. Linux only.

    python tests/bench/zero3.py [--quick] [--layers 6] [--whole]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np

sys.path += [str(Path(__file__).parents[1] / "backends"), str(Path(__file__).parents[1] / "backends" / "embedder")]
from contrastive_examples import small
from tiny_generator import context, make_base

WIDE = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_key_value_heads": 16}


def memory(process: int) -> np.ndarray:
    """Bytes of one process now: all of its share, and what no file stands behind."""
    with suppress(OSError):
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        found = {line.split()[0]: 1024 * int(line.split()[1]) for line in lines[1:]}
        return np.array([found["Pss:"], found["Pss_Anon:"]])
    return np.zeros(2, int)


def most(kind: str, base: Path, folder: Path, whole: bool) -> np.ndarray:
    """The most that two ranks take while they load: their shares, and what no file stands behind."""
    folder.mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", __file__]
    environment = os.environ | {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "1000000"}
    job = [*command, "--rank", kind, str(base), str(folder), *(["--whole"] if whole else [])]
    with (folder / "log").open("wb") as log:
        launcher = subprocess.Popen(job, env=environment, stdout=log, stderr=log)
        while len(ready := sorted(folder.glob("ready-*"))) < 2 and launcher.poll() is None:
            time.sleep(0.1)
        ranks = [int(file.name.partition("-")[2]) for file in ready]
        before = sum(map(memory, ranks))
        (folder / "go").touch()
        peak = before
        while launcher.poll() is None:
            peak = np.maximum(peak, sum(map(memory, ranks)))
            time.sleep(0.01)
    if launcher.returncode:
        raise SystemExit((folder / "log").read_text()[-3000:])
    return peak - before


def rank(kind: str, base: Path, folder: Path, whole: bool) -> None:
    """One of the two processes: load the model, and take part in dividing it.

    Args:
        whole: each process loads the whole model and keeps its part.
    """
    import torch

    from speed.backends.alignment import zero3
    from speed.backends.alignment.options import TrlOptions
    from speed.backends.alignment.start import load_start
    from speed.backends.embedder.loop import trainable
    from speed.backends.embedder.ranks import join_ranks
    from speed.backends.engines.weights import load

    if kind == "generator":
        import deepspeed
    torch.set_num_threads(1)
    cpu, ctx = torch.device("cpu"), context(folder, processes=2, strategy="zero3")
    ranks = join_ranks(ctx, cpu)
    (folder / f"ready-{os.getpid()}").touch()
    while not (folder / "go").exists():
        time.sleep(0.01)
    if kind == "embedder":
        rows = SimpleNamespace(table=SimpleNamespace(ids=np.array([1])))
        model = trainable(small(base, lora=None), 0, rows, whole or ranks.reads)
        if whole:
            from torch.distributed.device_mesh import init_device_mesh
            from torch.distributed.fsdp import fully_shard

            mesh = init_device_mesh("cpu", (2,))
            for module in (*model.layers, model):
                fully_shard(module, mesh=mesh)
        else:
            model = ranks.distribute(model, cpu)
        ranks.check(model)
    else:
        options = TrlOptions(method="full", precision="fp32", prompt_format="plain")
        model = load(base, "fp32", "cpu").model if whole else load_start(options, base, "cpu", ctx.runtime).model
        deepspeed.initialize(model=model, config=zero3.settings("fp32") | zero3.NO_TRAINER)
    ranks.barrier()
    torch.distributed.destroy_process_group()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smaller model, and the embedder alone")
    parser.add_argument("--layers", type=int, default=6, help="of the model, 67 MB each")
    parser.add_argument("--whole", action="store_true", help="each process loads the whole model, to compare with")
    parser.add_argument("--rank", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.rank:
        rank(given.rank[0], Path(given.rank[1]), Path(given.rank[2]), given.whole)
        return
    kinds = ["embedder"] if given.quick or find_spec("deepspeed") is None else ["embedder", "generator"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        layers = 1 if given.quick else given.layers
        base = make_base(folder / "base", spread=0.02, num_hidden_layers=layers, dtype="bfloat16", **WIDE)
        size = 2 * (base / "model.safetensors").stat().st_size
        figures: dict[str, float] = {"megabytes": round(size / 1e6)}
        for kind in kinds:
            shares, own = most(kind, base, folder / kind, given.whole) / size
            figures |= {kind: round(shares, 2), f"{kind}_own": round(own, 2)}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
