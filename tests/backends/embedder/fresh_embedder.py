"""Embeddings of exported folders by other libraries, in a process that has loaded nothing else.

python fresh_embedder.py FOLDER ... < texts.json    a line each, {"sentence_transformers": [...], "auto_model": [...]}
"""

from __future__ import annotations

import json
import sys


def main(folder: str, texts: list[str]) -> None:
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel, AutoTokenizer

    theirs = SentenceTransformer(folder, device="cpu")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    rows, states = [], []
    for text in texts:
        row = tokenizer(text, truncation=True, max_length=64, return_tensors="pt")
        rows.append(row["input_ids"][0].tolist())
        with torch.no_grad():
            states.append(torch.nn.functional.normalize(model(**row).last_hidden_state[0, -1], dim=0).tolist())
    found = {"sentence_transformers": theirs.encode(texts).tolist(), "auto_model": states, "ids": rows}
    print(json.dumps({**found, "prompts": theirs.prompts}))


if __name__ == "__main__":
    given = json.load(sys.stdin)
    for each in sys.argv[1:]:
        main(each, given)
