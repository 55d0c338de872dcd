# %% [markdown]
# # Comparing two runs
#
# The last two runs in `SPEED_HOME`: what was set differently, and what became of each task. Two runs differ by their
# seeds alone already, so a difference is believed when it is larger than what other seeds do (`docs/studies.md`). The
# same on a terminal: `python -m speed.compare RUN RUN`.

# %%
import speed.compare
import speed.runs

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
# ## Would other tasks or queries say the same?

# %%
found = speed.compare.frame(*reversed(list(runs.folder)))
print("no task has a score in both" if found.empty else found.round(3).to_string(index=False))
