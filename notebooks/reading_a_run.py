# %% [markdown]
# # Reading a run
#
# Everything that a run did is in files. `speed.runs` gives them as pandas tables: the runs of a root, their scores, and
# the rows of each stage. This page reads the last run in `SPEED_HOME`.

# %%
import json
from pathlib import Path

import speed.runs

runs = speed.runs.frame()
run = Path(runs.folder.iloc[-1])
print(runs.tail(1).drop(columns=["key", "folder"]).T.to_string(header=False))

# %% [markdown]
# ## What went in, what came out

# %%
for stage in json.loads((run / "summary.json").read_text())["stages"]:
    rows_in, rows_out = ("-" if stage[side] is None else stage[side] for side in ("rows_in", "rows_out"))
    print(f"{stage['label']:20} {rows_in:>8} {rows_out:>8} {stage['rejected']}")

# %% [markdown]
# ## A topic with its tasks, and a prompt with its text

# %%
tasks = speed.runs.rows(run, "tasks-for-synthesis").iloc[0]
print(f"topic  {tasks.topic}\ntasks  {tasks.tasks}")

# %%
written = speed.runs.rows(run, "synthesis")
accepted = written[written.example.notna()].iloc[0]
print(f"{accepted.prompt['text']}\n\n-> {accepted.text}\n\nguidelines broken: {accepted.faults or 'none'}")

# %% [markdown]
# ## The corpus: how long its texts are, by kind of task

# %%
corpus = speed.runs.rows(run, "dedup")
words = corpus[["query", "positive", "negative"]].map(lambda text: len(text.split()), na_action="ignore")
print(words.groupby(corpus.kind).describe().T.xs("mean", level=1).round(1))
