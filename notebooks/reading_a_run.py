# %% [markdown]
# # Reading a run
#
# Everything that a run did is in files: a line in `runs/ledger.jsonl`, a `summary.json`, and links to the artifacts.
# This page reads the last run in `SPEED_HOME`: a topic with its tasks, and a prompt with the text that answers it.

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
    rows_in, rows_out = ("-" if stage[side] is None else stage[side] for side in ("rows_in", "rows_out"))
    print(f"{stage['label']:20} {rows_in:>8} {rows_out:>8} {stage['rejected']}")

# %% [markdown]
# ## A topic with its tasks, and a prompt with its text

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
