# %% [markdown]
# # The law of scores by data size
#
# After `python -m speed.run --config-dir sweeps --config-name scaling seed=0,1,2`: the runs of Figure 4 among those in
# `SPEED_HOME`, three forms fitted to their scores, and what the next doubling brings. Below five sizes a curve cannot
# be told from a line. The same on a terminal: `python -m speed.report figure4`.

# %%
import os
from pathlib import Path

import pandas as pd

from speed.runs.finished_runs import finished_runs
from speed.studies.collect import answer
from speed.studies.definition import studies

runs, _ = finished_runs(Path(os.environ.get("SPEED_HOME", "speed_home")))
figure = answer(studies()["figure4"], runs)
points = [
    {"examples": row.size, "seed": run.seed, "mean": run.figures["mean"]} for row in figure.rows for run in row.runs
]
if points:
    means = pd.DataFrame(points).astype({"mean": float})
    print(means.pivot_table(index="examples", columns="seed", values="mean").round(2))
else:
    print("no run of Figure 4 is there")

# %%
laws = figure.laws
if laws is None:
    print("a law needs at least two sizes")
else:
    curves = {law.form: {size: point.value for size, point in law.curve.items()} for law in laws.laws}
    print(pd.DataFrame(curves).rename_axis("examples").round(2))
    for law in laws.laws:
        print(f"{law.form}: {law.points_a_doubling.value:+z.2f} points by the next doubling")
    print(laws.remark)
