# %% [markdown]
# # One topic's life, from path to embedding
#
# A run's files are enough to follow one topic through every box of Figure 2. This page takes the last run below
# `SPEED_HOME`, picks the first example of its corpus that was written from a topic of its own, and walks back to the
# topic and on to the embedding. The boxes on the way that taught the writer (seed data, judged lists, revisions) work
# on topics of their own, so there the page shows one row each.

# %%
import json
import os
from pathlib import Path

from speed.data.records import Candidates, Example, Kind, Pair, Revision, Sample, TaskList, Topic

home = Path(os.environ.get("SPEED_HOME", "speed_home"))
run = home / "runs" / json.loads((home / "runs" / "ledger.jsonl").read_text().splitlines()[-1])["run"]


def rows(stage, row):
    """Every row of a stage's shards, in order."""
    for shard in sorted((run / "stages" / stage).glob("rows-*.jsonl")):
        yield from (row.model_validate_json(line) for line in shard.read_bytes().splitlines())


def show(title, text):
    print(f"--- {title}\n{text}\n")


corpus = [
    Example.model_validate_json(line) for line in (run / "stages" / "dedup" / "examples.jsonl").read_text().splitlines()
]
revised = [sample for sample in rows("revision", Sample) if sample.example in corpus]
final = next((sample for sample in revised if sample.prompt.kind is not Kind.STS), revised[0])
written = next(sample for sample in rows("synthesis", Sample) if sample.row == final.row)

# %% [markdown]
# ## A path becomes tasks
#
# Topics come from the Open Directory Project or, here, from a small world of our own. The teacher is asked once for a
# list of tasks on a topic; one of them is kept (paper, Table 3). STS has one task for all topics, and no call.

# %%
topic = next(
    topic
    for topic in map(Topic.model_validate_json, (run / "stages" / "topics" / "topics.jsonl").read_bytes().splitlines())
    if topic.topic == final.prompt.topic
)
show("path, as the source has it", topic.path)
for brainstormed in rows("tasks-for-synthesis", TaskList):
    if brainstormed.topic == topic.topic and final.prompt.task in brainstormed.tasks:
        show("what the teacher was asked", brainstormed.prompt.text)
        show("what it answered", brainstormed.answer)
show("the task", final.prompt.task)

# %% [markdown]
# ## How the writer was taught
#
# The teacher writes a little; the junior learns from it. It then answers each prompt several times, the teacher names
# the best and the worst, and from such pairs the senior learns. The teacher also repairs some answers; the revisor
# learns from those.

# %%
seed = next(sample for sample in rows("seed-data", Sample) if sample.example)
show("an example by the teacher", seed.text)
pair = next((pair for pair in rows("preferences", Pair) if pair.rejected is None), None)
if pair:
    listed = next(found for found in rows("root-data", Candidates) if found.row == pair.row)
    for place, text in enumerate(listed.texts):
        mark = {pair.best: " (best)", pair.worst: " (worst)"}.get(place, "")
        show(f"candidate {place}{mark}", text)
repair = next((found for found in rows("revisions", Revision) if found.rejected is None), None)
if repair:
    show("a root answer", repair.original)
    show("why the teacher changed it", repair.reason)
    show("what it became", repair.revision)

# %% [markdown]
# ## The task becomes an example
#
# The prompt draws its slots (lengths, clarity, difficulty) from the seed; the senior writes; the guidelines that the
# prompt stated are checked; the revisor has a last word.

# %%
show("prompt", final.prompt.text)
show("the senior wrote", written.text)
show("guidelines broken", list(written.faults) or "none")
show("after the revisor", final.text if final.revised else "as it was: the revision could not be read")
show("in the corpus", json.dumps(final.example.fields(), indent=2, ensure_ascii=False))

# %% [markdown]
# ## The example becomes vectors
#
# The corpus trains the embedder. A query stands under its instruction, a document stands alone; what belongs together
# should have the larger cosine.

# %%
from sentence_transformers import SentenceTransformer  # noqa: E402

model = SentenceTransformer(str(run / "stages" / "embedder" / "model"), device="cpu")
example = final.example
query = f"Instruct: {example.task}\nQuery: {example.query}" if example.task else example.query
texts = [query, example.positive, *([example.negative] if example.negative else [])]
vectors = model.encode(texts, normalize_embeddings=True)
print(f"{vectors.shape[1]} dimensions; the first ones: {vectors[0, :6].round(3)}")
for name, vector in zip(("positive", "negative"), vectors[1:], strict=False):
    print(f"cosine of query and {name}: {float(vectors[0] @ vector):.3f}")
others = model.encode([other.positive for other in corpus], normalize_embeddings=True)
nearest = (others @ vectors[0]).argsort()[::-1][:3]
show("nearest positives of the corpus", "\n".join(corpus[place].positive for place in nearest))
