"""Four functions in the layout of the authors' released repository, with words of our own and the tables that they draw
from. They are read, never run."""

import random

import numpy as np


def get_create_retrieval_data_prompt(task: str, language: str | None = None) -> list[dict]:
    if language is None:
        language = "English"
    num_words: int = random.choice([50, 100, 200, 300, 400, 500])
    difficulty: str = random.choice(["high school", "college", "PhD"])
    query_length: str = random.choices(
        ["less than 5 words", "5 to 15 words", "at least 10 words"], weights=[0.4, 0.4, 0.2]
    )[0]
    clarity: str = random.choices(["clear", "understandable with some effort", "ambiguous"], weights=[0.6, 0.2, 0.2])[0]
    query_type: str = random.choices(["extremely long-tail", "long-tail", "common"], weights=[0.4, 0.5, 0.1])[0]

    guidelines: list[str] = [
        f"- Ask something {query_type}, {query_length}, {clarity}.",
        f"- Write {num_words} words.",
        f"- Write in {language}.",
    ]
    if random.random() < 0.5:
        guidelines.append(f"- For readers with {difficulty} level education.")
    np.random.shuffle(guidelines)

    str_guideline: str = "\n".join(guidelines)

    prompt = f"""Task: {task}

Rules:
{str_guideline}

The keys are \"user_query\", "positive_document" and "hard_negative_document"."""

    messages: list[dict] = [{"role": "system", "content": "x"}, {"role": "user", "content": prompt}]
    return messages


def get_sts_prompt_with_topic(topic, language: str | None = None) -> list[dict]:
    high_score: float = random.choice([4, 4.5, 5])
    low_score: float = random.choice([2.5, 3, 3.5])
    unit: str = random.choices(["sentence", "phrase", "passage"], weights=[0.9, 0.05, 0.05], k=1)[0]
    difficulty: str = random.choice(["elementary school", "high school", "college"])

    guidelines: list[str] = [f"- In {language}.", f"- S1 and S2: {high_score}.", f"- S1 and S3: {low_score}."]
    if random.random() < 0.5:
        guidelines.append(f"- For readers with {difficulty} level education.")

    str_guideline: str = "\n".join(guidelines)

    prompt: str = f"""Write three {unit}s about {topic}.
{str_guideline}

Only S1, S2 and S3."""
    return [{"role": "user", "content": prompt}]


def get_create_classify_data_prompt(task: str, language: str | None = None) -> list[dict]:
    num_words: str = random.choices(
        ["less than 10", "at least 10", "at least 50", "at least 100", "at least 200"],
        weights=[0.1, 0.3, 0.2, 0.2, 0.2],
    )[0]
    difficulty: str = random.choice(["high school", "college", "PhD"])
    clarity: str = random.choices(["clear", "understandable with some effort", "ambiguous"], weights=[0.6, 0.2, 0.2])[0]
    guidelines: list[str] = [f"- A text of {num_words} words.", f"- In {language}."]
    if random.random() < 0.5:
        guidelines.append(f"- {clarity}, for {difficulty} level education.")
    np.random.shuffle(guidelines)
    str_guideline: str = "\n".join(guidelines)
    prompt = f"""Task: {task}

Rules:
{str_guideline}

The keys are "input_text", "label" and "misleading_label"."""
    return [{"role": "user", "content": prompt}]


def get_create_s2s_p2p_data_prompt(task: str, task_type: str, language: str | None = None) -> list[dict]:
    assert task_type in ["s2s", "p2p"]
    if task_type == "s2s":
        length_requirement: str = "short"
    else:
        length_requirement: str = "long (at least 300 words)"
    guidelines: list[str] = [f"- In {language}.", f"- Both should be {length_requirement}."]
    str_guideline: str = "\n".join(guidelines)
    prompt = f"""Task: {task}

Rules:
{str_guideline}

The keys are "input" and "positive_document"."""
    return [{"role": "user", "content": prompt}]
