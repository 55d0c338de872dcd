# %% [markdown]
# # Comparing two runs
#
# The last two runs in `SPEED_HOME`: what was set differently, and what became of each task. Two runs differ by their
# seeds alone already, so a difference is believed when it is larger than what other seeds do (`docs/studies.md`). The
# same on a terminal: `python -m speed.compare RUN RUN`.

# %%
import speed.runs
from speed.studies.statistics import difference

runs = speed.runs.frame().tail(2)
if len(runs) < 2:
    raise SystemExit("only one run has finished: there is nothing to compare")
told = runs.drop(columns=["key", "folder"])
print(told.loc[:, told.astype(str).nunique() > 1].T.to_string())

# %%
scores = speed.runs.scores(*runs.folder)
one, two = scores.columns[1:]
scores["difference"] = scores[two] - scores[one]
print(scores.round(2).to_string())

# %% [markdown]
# ## Would other tasks say the same?

# %%
known = scores.dropna()
if known.empty:
    print("no task has a score in both")
else:
    found = difference({0: known[two].to_dict()}, {0: known[one].to_dict()})
    print(f"{found.mean:+z.2f} over {len(known)} tasks; {found.verdict()}")
