"""distilabel's bookkeeping over a model that answers at once; run by the Python of an environment that has distilabel.

    HF_HUB_OFFLINE=1 python rival_distilabel.py ROWS BATCH FOLDER      prints {"rows": ..., "wall_s": ..., "cpu_s": ...}

It has no --quick: ROWS says how long it takes, and no test runs it, since distilabel is not among our packages.
CPU seconds are those of all its processes, from the pipeline's start to its end; imports are left out.
"""

import json
import resource
import sys
import time

from distilabel.models.llms.base import LLM  # type: ignore[import-not-found]
from distilabel.pipeline import Pipeline  # type: ignore[import-not-found]
from distilabel.steps import LoadDataFromDicts  # type: ignore[import-not-found]
from distilabel.steps.tasks import GenerateTextRetrievalData  # type: ignore[import-not-found]

TEXT = json.dumps(
    {"user_query": "a query", "positive_document": "word " * 200, "hard_negative_document": "word " * 200}
)


class Instant(LLM):  # type: ignore[misc]
    """Answers at once and without transport."""

    def load(self) -> None:
        super().load()

    @property
    def model_name(self) -> str:
        return "instant"

    def generate(self, inputs, num_generations=1):  # type: ignore[no-untyped-def]
        usage = {"input_tokens": [400] * num_generations, "output_tokens": [500] * num_generations}
        return [{"generations": [TEXT] * num_generations, "statistics": usage} for _ in inputs]


def cpu() -> float:
    """CPU seconds of this process and of its children that have ended."""
    used = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def main(rows: int, batch: int, folder: str) -> None:
    tasks = [{"task": f"Given a question about topic {row}, retrieve documents that answer it."} for row in range(rows)]
    with Pipeline(name=f"bench-{rows}-{batch}", cache_dir=folder) as pipeline:
        load = LoadDataFromDicts(data=tasks, batch_size=batch)
        load >> GenerateTextRetrievalData(name="retrieval", llm=Instant(), input_batch_size=batch)
    before, begun = cpu(), time.perf_counter()
    made = pipeline.run(use_cache=True)
    found = {"rows": len(made["default"]["train"]), "wall_s": time.perf_counter() - begun, "cpu_s": cpu() - before}
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
