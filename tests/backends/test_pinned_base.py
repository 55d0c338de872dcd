"""A base of one commit of the hub, `org/name@commit`: what is trained on it goes on from that commit when it is read.

The commit alone lies in the cache, as `hf download --revision` leaves it, and nothing can be fetched.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from conftest import ROOT
from tiny_generator import make_base

COMMIT = "93efa2f097d58c2a74874c7e644dbc9b0cee75a2"
TRAINED = """
import json, sys
from pathlib import Path
from peft import AutoPeftModelForCausalLM
from tiny_generator import completions, context
from contrastive_examples import examples, small
from speed.backends.alignment.trainer import TrlTrainer
from speed.backends.encoding.encoder import Encoder
from speed.data.trainings import Sft
from speed.export import export

base, out = sys.argv[1], Path(sys.argv[2])
trainer = TrlTrainer(method="lora", r=4, alpha=8, precision="fp32", prompt_format="inst", embeddings=False)
sft = Sft(learning_rate=1e-2, batch_size=4, epochs=1, max_length=64, warmup_ratio=0.0)
trainer.sft(base, completions(8), sft, out / "junior", context(out))
AutoPeftModelForCausalLM.from_pretrained(export(out / "junior", None, out / "adapter", True, "fp32"))
export(out / "junior", None, out / "merged", False, "fp32")
small(base, max_steps=1).train(examples(out / "examples.jsonl", 8), out / "embedder", 0, context(out))
for layout in ("model", "adapter"):
    print(Encoder.load(out / "embedder" / layout).encode(["a text"]).shape)
"""


def test_what_is_trained_on_a_commit_of_the_hub_finds_it_again(tmp_path: Path) -> None:
    snapshot = tmp_path / "hub" / "models--org--base" / "snapshots" / COMMIT
    snapshot.parent.mkdir(parents=True)
    shutil.copytree(make_base(tmp_path / "base"), snapshot)
    paths = [ROOT, ROOT / "tests" / "backends", ROOT / "tests" / "backends" / "embedder"]
    environment = os.environ | {
        "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(map(str, paths))
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", TRAINED, f"org/base@{COMMIT}", str(tmp_path / "out")],
        env=environment, cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(done.stdout.splitlines()) >= 2
    for folder in ("adapter", "embedder/adapter"):
        described = json.loads((tmp_path / "out" / folder / "adapter_config.json").read_text())
        assert (described["base_model_name_or_path"], described["revision"]) == ("org/base", COMMIT)
    for folder in ("adapter", "merged", "embedder/adapter", "embedder/model"):
        head = (tmp_path / "out" / folder / "README.md").read_text().split("---")[1]
        assert "base_model: org/base\n" in head, "a link of the hub's is a name without a commit"
