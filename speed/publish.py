"""Put a model, the corpus or the results of a run on the Hugging Face hub, with a card that says where they come from.

python -m speed.publish RUN --stage embedder --licence apache-2.0 --to my_embedder --repo OWNER/NAME
python -m speed.publish RUN --stage dataset --licence cc-by-4.0 --to my_data --repo OWNER/NAME --against my_tasks
python -m speed.publish RUN --stage results --licence cc0-1.0 --to my_results --repo OWNER/NAME
python -m speed.publish RUN --stage embedder --licence apache-2.0 --to my_embedder --repo OWNER/NAME --push

Without --push nothing leaves this machine: the folder is written (`speed.export` does it), and what would be sent is
listed. Read the card, change what is to be changed, and type the same command with --push: the folder is sent as it
stands. The repository is private unless --public is given.

The card names the teacher, the models and files that went in, the licence, and what a search for texts of tests in the
corpus found: that of --against (folders of tasks, as eval=local reads them), or the evaluation's own. What names a
place of this machine is not sent, nor is a folder that was written for another run, stage or licence.
"""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from speed.core.cache import write_aside
from speed.core.errors import UserError
from speed.data.quality.contaminated_records import SIMILARITY, WORDS, record_texts, search
from speed.data.quality.contamination import EvaluationTexts
from speed.decontaminate import say_so_far, tasks_of
from speed.export import STAGES, export, export_dataset, refuse_full
from speed.runs.cards import RECORDS, folder_of, refuse_licence, reported
from speed.runs.entry import one_message
from speed.runs.provenance import (
    HEADING,
    held_by,
    own_paths,
    provenance,
    results_of,
    scores,
    searched_by_evaluation,
    what,
)
from speed.runs.tables import Table

_REPOSITORY = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}/)[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}")


def parser() -> argparse.ArgumentParser:
    """The arguments that can be typed."""
    out = argparse.ArgumentParser(
        prog="python -m speed.publish", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    out.add_argument("run", type=Path, help="folder of a finished run")
    out.add_argument("--stage", choices=(*STAGES, "dataset", "results"), required=True, help="what of the run")
    out.add_argument("--licence", "--license", required=True, help="an identifier of the hub such as apache-2.0")
    out.add_argument("--to", type=Path, required=True, metavar="DIR", help="a new folder, or one that this wrote")
    out.add_argument("--repo", required=True, metavar="OWNER/NAME", help="repository on the hub")
    out.add_argument("--against", type=Path, nargs="+", default=[], metavar="FOLDER", help="tasks to search for")
    out.add_argument("--public", action="store_true", help="make the repository public (default: private)")
    out.add_argument("--push", action="store_true", help="send it (default: list what would be sent)")
    return out


def run(given: argparse.Namespace) -> None:
    """Run the command.

    Raises:
        UserError: for what cannot be published, or a hub that does not take it.
    """
    refuse_name(given.repo)
    refuse_licence(given.licence)
    reported(given.run)
    written = _written_before(given.to)
    if given.push and not written:
        raise UserError(
            f"--push sends a folder whose card was read, and {given.to} is not written yet\n"
            "  type the same command without --push first"
        )
    if not written:
        write(given.run, given.stage, given.licence, given.to, given.against)
    else:
        refuse_another(given.run, given.stage, given.licence, given.to)
    if given.against and written:
        raise UserError(
            f"{given.to} is written already, so --against has no effect: leave it out, or give a new folder"
        )
    if places := own_paths(given.to):
        file, path = places[0]
        raise UserError(
            f"{given.to / file} names a place of this machine, {path}: nothing is sent\n  take it out of the file"
        )
    kind = "dataset" if given.stage in ("dataset", "results") else "model"
    print(listing(given.to, given.repo, kind, given.public))
    if given.push:
        print(f"sent: {push(given.to, given.repo, kind, given.public)}")
    else:
        print("\nNothing was sent. Read the card, and type the same command with --push.")


def refuse_name(repo: str) -> None:
    """Refuse what is no name of a repository.

    Raises:
        UserError: with the form.
    """
    if not _REPOSITORY.fullmatch(repo) or "--" in repo or ".." in repo:
        raise UserError(f"--repo {repo!r} is no repository: give OWNER/NAME, of letters, digits, '-', '_' and '.'")


def _written_before(to: Path) -> bool:
    card = to / "README.md"
    return card.is_file() and HEADING in card.read_text(encoding="utf-8")


def refuse_another(run: Path, stage: str, licence: str, to: Path) -> None:
    """Refuse a folder that holds something else than what was typed.

    Raises:
        UserError: naming both.
    """
    from huggingface_hub import RepoCard

    card = RepoCard((to / "README.md").read_text(encoding="utf-8"), ignore_metadata_errors=True)
    asked, held = what(run, stage), held_by(card.text)
    if held != asked:
        raise UserError(
            f"{to} holds {held or 'what its card no longer says'}, and {asked} was asked for: nothing is sent\n"
            "  give a new folder, or type the run and the stage that it was written for"
        )
    if card.data.get("license") != licence:
        raise UserError(
            f"the card in {to} has the licence {card.data.get('license')}, and --licence {licence} was typed: nothing "
            "is sent\n  type the one that the card has, or give a new folder"
        )


def write(run: Path, stage: str, licence: str, to: Path, against: Sequence[Path]) -> None:
    """The folder with its card, whole or not at all.

    Raises:
        UserError: for what cannot be exported.
    """
    refuse_full(to)
    found = searched(run, against) if against else searched_by_evaluation(run)
    told = provenance(run, stage, licence, found)
    with write_aside(to) as aside:
        if stage == "dataset":
            export_dataset(run, licence, aside)
        elif stage == "results":
            write_results(run, aside)
        else:
            export(run, stage, aside, adapter=False, precision="fp32")
        add_to_card(aside / "README.md", licence, [told, scores(run) if stage == "embedder" else ""])


def searched(run: Path, against: Sequence[Path]) -> str:
    """What a search for the texts of these tasks in the run's corpus, as its embedder read it, found, in words.

    Raises:
        UserError: for a folder without tasks, or a run without a corpus.
    """
    _, lines = reported(run)
    records = [file for line in lines if (file := folder_of(run, line) / RECORDS).is_file()]
    if not records:
        raise UserError(f"the corpus of {run} is gone from the store: run the same experiment again")
    tasks = tasks_of(against)
    known = EvaluationTexts((task.texts() for task in tasks.values()), WORDS, SIMILARITY)
    tally = search(record_texts(records[-1]), known, None, say_so_far)
    return (
        f"searched for the texts of {len(tasks)} tasks ({', '.join(tasks)}): {tally.contaminated:,} of "
        f"{tally.records:,} records share a run of {WORDS} words with one or nearly repeat it"
    )


def write_results(run: Path, to: Path) -> None:
    """mteb's own files of a run's evaluation, its scores, and a card with their table.

    Raises:
        UserError: for a run that was not evaluated.
    """
    from huggingface_hub import DatasetCard, DatasetCardData

    folder, table = results_of(run), scores(run)
    if folder is None or not table:
        raise UserError(f"{run} has no scores: its evaluation is not built, or gone from the store")
    refuse_full(to)
    shutil.copytree(folder / "results", to / "results")
    shutil.copyfile(folder / "scores.json", to / "scores.json")
    summary, _ = reported(run)
    about = DatasetCardData(tags=["speed", "evaluation", "mteb"])
    text = f"# Results of {summary['name']}\n\nScores of the embedder of one run, and mteb's own files.\n\n{table}"
    DatasetCard(f"---\n{about.to_yaml()}\n---\n{text}").save(to / "README.md")


def add_to_card(file: Path, licence: str, sections: Sequence[str]) -> None:
    """Add sections and the licence. A base that is no model of the hub is no link of the hub's."""
    from huggingface_hub import RepoCard

    card = RepoCard(file.read_text(encoding="utf-8"), ignore_metadata_errors=True)
    card.data["license"] = licence
    base = card.data.get("base_model")
    if isinstance(base, str) and (":" in base or base.count("/") != 1):
        card.data.pop("base_model")
    card.text = "\n\n".join([card.text.rstrip(), *(section.rstrip() for section in sections if section)]) + "\n"
    with write_aside(file) as aside:
        aside.write_text(str(card), encoding="utf-8")


def listing(folder: Path, repo: str, kind: str, public: bool) -> str:
    """What would be sent."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    table = Table("file", "bytes")
    for file in files:
        table.add(file.relative_to(folder).as_posix(), f"{file.stat().st_size:,}")
    table.add("all", f"{sum(file.stat().st_size for file in files):,}")
    seen = "public" if public else "private"
    return f"{folder} as the {kind} repository {repo}, {seen} where it is new:\n\n{table.text()}"


def push(folder: Path, repo: str, kind: str, public: bool) -> str:
    """Send a folder as one commit; returns its address.

    Raises:
        UserError: without a token, off line, or where the hub refuses.
    """
    import httpx
    from huggingface_hub import HfApi, constants, get_token
    from huggingface_hub.errors import HfHubHTTPError

    if constants.HF_HUB_OFFLINE:
        raise UserError("HF_HUB_OFFLINE is set, and --push sends: unset it\n  without --push nothing is sent")
    if not get_token():
        raise UserError("--push needs a token of the hub that may write: set HF_TOKEN, or type `hf auth login`")
    api = HfApi()
    try:
        api.create_repo(repo, repo_type=kind, private=not public, exist_ok=True)
        sent = api.upload_folder(
            repo_id=repo, repo_type=kind, folder_path=folder, commit_message="Published by speed.publish"
        )
    except (HfHubHTTPError, httpx.HTTPError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"the hub does not take {repo}: {reason}\n"
            "  check the name, the token's rights and the card; the same command sends again what is missing"
        ) from error
    return str(sent.commit_url)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry of the command."""
    given = parser().parse_args(arguments)
    with one_message("publishing"):
        run(given)


if __name__ == "__main__":
    main()
