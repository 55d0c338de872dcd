"""Two functions in the layout of the authors' released repository, with words of our own. They are read, never run."""


def get_create_dpo_data_prompt(prompt: str, data: list[str]) -> list[dict]:
    prompt = f"""Asked: {prompt}

Answered: {data}

Which is best?"""
    return [{"role": "user", "content": prompt}]


def get_create_all_revise_data_prompt(prompt: str, data: str) -> list[dict]:
    prompt = f"""Asked: {prompt}

Answered: {data}

Mend it."""
    return [{"role": "user", "content": prompt}]
