# %% [markdown]
# # Reading a run
#
# Everything that a run did lies in files: one line in `runs/ledger.jsonl`, a `summary.json`, links to the artifacts.
# This page reads the last run below `SPEED_HOME` and follows one example from its topic to the corpus.

# %%
import json
import os
from pathlib import Path

from speed.data.records import Sample, TaskList

home = Path(os.environ.get("SPEED_HOME", "speed_home"))
ledger = [json.loads(line) for line in (home / "runs" / "ledger.jsonl").read_text().splitlines()]
run = home / "runs" / ledger[-1]["run"]
summary = json.loads((run / "summary.json").read_text())
print(f"{run.name}: {summary['scores']['mean']:.2f} over {len(summary['scores']['tasks'])} tasks")

# %% [markdown]
# ## What went in, what came out

# %%
for stage in summary["stages"]:
    came, went = (stage[side] if stage[side] is not None else "-" for side in ("rows_in", "rows_out"))
    print(f"{stage['label']:20} {came:>8} {went:>8} {stage['rejected']}")

# %% [markdown]
# ## One example's life: from a topic to a task, a prompt and a text

# %%
shard = min((run / "stages" / "tasks-for-synthesis").glob("*.jsonl"))
tasks = TaskList.model_validate_json(shard.read_bytes().splitlines()[0])
print(f"topic  {tasks.topic}\ntasks  {list(tasks.tasks)}")

# %%
rows = [
    Sample.model_validate_json(line)
    for shard in sorted((run / "stages" / "synthesis").glob("*.jsonl"))
    for line in shard.read_bytes().splitlines()
]
accepted = next(row for row in rows if row.example is not None)
print(accepted.prompt.text)
print(f"\n-> {accepted.text}\n\nguidelines broken: {list(accepted.faults) or 'none'}")
