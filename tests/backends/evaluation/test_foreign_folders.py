"""Folders that others made: tasks laid out as on the hub; mistakes in tasks and models, one clear error each."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from tiny_generator import context, make_base
from tiny_tasks import WORDS, write

from speed.backends.evaluation.evaluated_model import LocalModel, asks_for_instructions
from speed.backends.evaluation.local_tasks import load, mteb_task
from speed.backends.evaluation.task_folder import task_folders
from speed.core.errors import UserError

ROWS = [{"sentence1": word, "sentence2": f"{word} two", "score": i % 6} for i, word in enumerate(WORDS)]


def with_card(folder: Path, path: str) -> None:
    files = f"configs:\n- config_name: default\n  data_files:\n  - split: test\n    path: {path}\n"
    (folder / "README.md").write_text(f"---\n{files}---\n")


@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "csv"])
@pytest.mark.parametrize("named", ["data/test.SUFFIX", "data/test-*", ""])
def test_a_task_laid_out_as_on_the_hub(tmp_path: Path, suffix: str, named: str) -> None:
    folder = tmp_path / "tasks" / "Mine"
    file = folder / "data" / f"test{'-00000-of-00001' if '*' in named else ''}.{suffix}"
    write(file, ROWS)
    if suffix != "jsonl":
        table = datasets.Dataset.from_list(ROWS)
        (table.to_csv if suffix == "csv" else table.to_parquet)(str(file))
    if named:
        with_card(folder, named.replace("SUFFIX", suffix))
    [task] = task_folders(tmp_path / "tasks")
    task.check()
    target = mteb_task(task)
    load(target, task)
    assert target.dataset["test"].to_list() == [{**row, "score": float(row["score"])} for row in ROWS]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("---\nconfigs: [\n---\n", "README.md: its header is no YAML"),
        ("---\n- a\n- b\n---\n", "README.md: its header must hold `configs`"),
        ("---\njust words\n---\n", "README.md: its header must hold `configs`"),
        ("---\nconfigs: words\n---\n", "README.md: its header must hold `configs`"),
        ("---\nconfigs:\n- data_files: test.jsonl\n---\n", "README.md: its header must hold `configs`"),
        ("---\nconfigs:\n- data_files:\n  - split: test\n    path: ../x\n---\n", "not a file of this task"),
        ("Größe", "README.md is not UTF-8 .byte 2.: save it as UTF-8"),
    ],
)
def test_a_mistaken_readme_is_named(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path / "Mine" / "test.jsonl", ROWS)
    (tmp_path / "Mine" / "README.md").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=message):
        task_folders(tmp_path)


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    write(tmp_path / "Mine" / "test.parquet", ROWS)
    with pytest.raises(UserError, match="test.parquet cannot be read as parquet"):
        task_folders(tmp_path)


def cut_weights(model: Path) -> None:
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-200])


def pickle_weights(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")


def spoil(name: str, text: str) -> Callable[[Path], Any]:
    return lambda model: (model / name).write_text(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (cut_weights, "model .* are damaged or of an unknown form"),
        (pickle_weights, "holds pickled weights"),
        (spoil("config.json", "{oops"), "model .* are damaged or of an unknown form"),
        (spoil("config.json", "[]"), "holds no embedder"),
        (spoil("config_sentence_transformers.json", "[]"), "model .* are damaged or of an unknown form"),
    ],
)
def test_a_damaged_model_is_named(tmp_path: Path, change: Callable[[Path], Any], message: str) -> None:
    model = make_base(tmp_path / "model")
    change(model)
    assert not asks_for_instructions(model)
    with pytest.raises(UserError, match=message) as refused:
        LocalModel(model).load(None, None, "fp32", context(tmp_path / "home"))
    assert str(model) in str(refused.value)


@pytest.mark.parametrize("to", ["/proc/nowhere/model", "FILE/model", "x" * 400])
def test_an_impossible_place_of_an_export_is_named(tmp_path: Path, to: str, capsys: pytest.CaptureFixture[str]) -> None:
    from speed import export

    payload = tmp_path / "payload"
    shutil.copytree(make_base(tmp_path / "base"), payload / "model")
    (payload / "model" / "modules.json").write_text("[]")
    (payload / "model" / "README.md").write_text("text")
    (tmp_path / "FILE").write_text("a file")
    with pytest.raises(SystemExit) as stopped:
        export.main([str(payload), "--to", to if to.startswith("/") else str(tmp_path / to)])
    assert stopped.value.code == 1
    said = capsys.readouterr().err
    assert "cannot be written" in said or "no permission" in said
    assert said.rstrip("\n").count("\n") <= 1
