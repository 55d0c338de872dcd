"""Four functions in the layout of the authors' released repository, with words of our own. They are read, never run."""

import numpy as np


def get_brainstorm_retrieval_tasks_prompt_with_topic_ICL(topic) -> list[dict]:  # noqa: N802
    example_tasks: list[str] = [
        "- Find a bus by its number.",
        "- Find a song by its first line.",
        "- Find a law by what it forbids.",
    ]
    np.random.shuffle(example_tasks)
    str_tasks: str = "\n".join(example_tasks)

    prompt = f"""Think of retrieval tasks about {topic}.

Such as:
{str_tasks}

A list, with about 5 elements. {{"no": "more"}}"""

    messages: list[dict] = [{"role": "system", "content": "x"}, {"role": "user", "content": prompt}]
    return messages


def get_brainstorm_classify_tasks_prompt_with_topic(topic) -> list[dict]:
    prompt = f"""Think of classification tasks about {topic}, with about 5 elements."""
    return [{"role": "user", "content": prompt}]


def get_brainstorm_s2s_tasks_prompt_with_topic(topic) -> list[dict]:
    prompt = f"""Think of short matches about {topic}, with about 5 elements."""
    return [{"role": "user", "content": prompt}]


def get_brainstorm_p2p_tasks_prompt_with_topic(topic) -> list[dict]:
    prompt = f"""Think of long matches about {topic}, with about 5 elements."""
    return [{"role": "user", "content": prompt}]
