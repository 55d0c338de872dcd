# %% [markdown]
# # One topic, from its path to an embedding
#
# The files of a run are enough to follow one topic through every box of Figure 2. This page takes the last run in
# `SPEED_HOME` and the first example of its corpus that was written for a task of its own. It goes back to the topic of
# this example and then on to its embedding. The stages that taught the writer (seed data, judged lists, revisions) use
# other topics, so the page shows one row of each.

# %%
import json
from pathlib import Path

import speed.runs
from speed.data.records import Candidates, Example, Kind, Pair, RevisedAnswer, Sample, TaskList, Topic
from speed.data.text_files import text_lines

run = Path(speed.runs.frame().folder.iloc[-1])


def rows(stage, row):
    """Every row of a stage's shards, in order."""
    for shard in sorted((run / "stages" / stage).glob("rows-*.jsonl*")):
        yield from (row.model_validate_json(line.text) for line in text_lines(shard))


def show(title, text):
    print(f"--- {title}\n{text}\n")


corpus = [
    Example.model_validate_json(line) for line in (run / "stages" / "dedup" / "examples.jsonl").read_text().splitlines()
]
has_revisor = (run / "stages" / "revision").exists()
last = [sample for sample in rows("revision" if has_revisor else "synthesis", Sample) if sample.example in corpus]
if not last:
    raise SystemExit("the last run wrote no example of its corpus")
final = next((sample for sample in last if sample.prompt.kind is not Kind.STS), last[0])
written = next(sample for sample in rows("synthesis", Sample) if sample.row == final.row)

# %% [markdown]
# ## A path becomes tasks
#
# Topics come from the Open Directory Project or, here, from the miniature world. The teacher is asked once for a list
# of tasks on a topic, and one of them is kept (paper, Table 3). STS has one task for all topics, and needs no call.

# %%
topic = next(
    topic
    for topic in map(Topic.model_validate_json, (run / "stages" / "topics" / "topics.jsonl").read_bytes().splitlines())
    if topic.topic == final.prompt.topic
)
show("path, as in the source", topic.path)
for brainstormed in rows("tasks-for-synthesis", TaskList):
    if brainstormed.topic == topic.topic and final.prompt.task in brainstormed.tasks:
        show("what the teacher was asked", brainstormed.prompt.text)
        show("what it answered", brainstormed.answer)
show("the task", final.prompt.task)

# %% [markdown]
# ## How the writer was taught
#
# The teacher writes some examples, and the junior learns from them. The junior then answers each prompt several times,
# the teacher names the best and the worst answer, and the senior learns from such pairs. The teacher also revises some
# answers, and the revisor learns from those.

# %%
seed = next(sample for sample in rows("seed-data", Sample) if sample.example)
show("an example by the teacher", seed.text)
pair = next((pair for pair in rows("preferences", Pair) if pair.rejected is None), None)
if pair:
    listed = next(candidates for candidates in rows("root-data", Candidates) if candidates.row == pair.row)
    for place, text in enumerate(listed.texts):
        mark = {pair.best: " (best)", pair.worst: " (worst)"}.get(place, "")
        show(f"candidate {place}{mark}", text)
revision = next((row for row in rows("revisions", RevisedAnswer) if row.rejected is None), None)
if revision:
    show("a root answer", revision.original)
    show("why the teacher changed it", revision.reason)
    show("what it became", revision.revision)

# %% [markdown]
# ## The task becomes an example
#
# The slots of the prompt (lengths, clarity, difficulty) are drawn from the seed. The senior writes (without preferences
# the junior), the guidelines of the prompt are checked, and the revisor, where there is one, revises the answer.

# %%
show("prompt", final.prompt.text)
show("the writer wrote", written.text)
show("guidelines broken", list(written.faults) or "none")
if has_revisor:
    show("after the revisor", final.text if final.revised else "unchanged: the revision could not be read")
show("in the corpus", json.dumps(final.example.fields(), indent=2, ensure_ascii=False))

# %% [markdown]
# ## The example becomes vectors
#
# The embedder is trained on the corpus. A query is encoded with its instruction, a document without. Texts that belong
# together should have the larger cosine.

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
