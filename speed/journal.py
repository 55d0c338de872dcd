"""The journal for people: every answer that was ever paid for, listed, found, exported, checked, merged.

    python -m speed.journal list [--purpose seed] [--kind sts] [--model NAME] [--cause timeout] [--limit 20]
    python -m speed.journal search WORDS            entries whose prompt or answer holds the words
    python -m speed.journal show KEY                one entry, whole; the beginning of its key is enough
    python -m speed.journal ledger                  requests, tokens and dollars by purpose, kind, model and cause
    python -m speed.journal export FILE             JSON lines; - is the screen
    python -m speed.journal verify                  every line against its checksum, every key against its content
    python -m speed.journal merge OTHER             the answers of another root or journal that this one lacks
    python -m speed.journal batches [--take]        requests that servers answer in batches; takes what has ended
    python -m speed.journal compress                says why there is nothing to compress any more
    python -m speed.journal rebuild                 the index, from the files

The root is `--home DIR`, by default SPEED_HOME or speed_home. All are safe while runs go on, and read the files line by
line, so a journal may be larger than the memory.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

from speed.core.errors import UserError, explained
from speed.core.escape import escape, on_one_line
from speed.core.locks import is_owned
from speed.runs.ledger_table import ledger_table
from speed.runs.tables import Table, money
from speed.teaching.entry import Entry, entry_of, key
from speed.teaching.journal import Journal
from speed.teaching.lines import ARCHIVE, lines_from
from speed.teaching.openai_batch import take_all
from speed.teaching.pending import Pending
from speed.teaching.spending import ledger_of


def folder_of(place: Path) -> Path:
    """The journal's folder below a root, or the folder itself.

    Raises:
        UserError: when there is no journal.
    """
    for folder in (place / "journal", place):
        if any(folder.glob("*.jsonl")) or any(folder.glob(f"*{ARCHIVE}")) or any(folder.glob("index-*")):
            return folder
    raise UserError(f"{place} holds no journal: give the root of a run (--home DIR, or SPEED_HOME)")


def chosen(journal: Journal, options: argparse.Namespace) -> Iterator[Entry]:
    """The entries that the options ask for, as they lie in the files."""
    words = getattr(options, "words", "").casefold()
    for entry in journal:
        facts = ("purpose", "kind", "model", "cause")
        if any(getattr(options, fact) not in (None, getattr(entry, fact)) for fact in facts):
            continue
        texts = (entry.text, *(message["content"] for message in entry.messages))
        if not words or any(words in text.casefold() for text in texts):
            yield entry


def line(entry: Entry) -> str:
    """An entry on one line."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.time)) if entry.time else "-"
    dollars = "unknown" if entry.dollars is None else f"${entry.dollars:.5f}"
    facts = f"{entry.purpose:10} {entry.kind:14} {entry.model} {entry.cause}"
    tokens = f"{entry.tokens_in}+{entry.tokens_out} tokens {dollars}"
    return f"{entry.key[:12]} {when} {escape(facts)} {tokens}  {on_one_line(entry.text or entry.detail, 80)}"


def whole(entry: Entry) -> str:
    """An entry with everything that is known of it."""
    facts = entry.model_dump(mode="json", exclude={"messages", "text"}, exclude_defaults=True)
    parts = ["\n".join(f"{name}: {escape(str(value))}" for name, value in facts.items())]
    parts += [f"--- {message['role']}\n{escape(message['content'])}" for message in entry.messages]
    return "\n".join([*parts, "--- answer", escape(entry.text)])


def list_entries(journal: Journal, options: argparse.Namespace) -> int:
    for entry in islice(chosen(journal, options), options.limit):
        print(line(entry))
    return 0


def show(journal: Journal, options: argparse.Namespace) -> int:
    found = [entry for entry in journal if entry.key.startswith(options.key)]
    if not found:
        raise UserError(f"no entry's key begins with {options.key}; `list` and `search` show the keys")
    print("\n\n".join(map(whole, found)))
    return 0


def show_ledger(journal: Journal, options: argparse.Namespace) -> int:
    print(ledger_table(ledger_of(journal)).text())
    return 0


def export(journal: Journal, options: argparse.Namespace) -> int:
    target = sys.stdout if options.file == "-" else Path(options.file).open("x", encoding="ascii")  # noqa: SIM115
    count = 0
    try:
        for entry in chosen(journal, options):
            target.write(json.dumps(entry.model_dump()) + "\n")
            count += 1
    finally:
        if target is not sys.stdout:
            target.close()
    print(f"{count:,} entries", file=sys.stderr)
    return 0


def verify(journal: Journal, options: argparse.Namespace) -> int:
    """1 where anything is damaged."""
    table = Table("file", "bytes", "entries", "answers", "damaged", "")
    damaged_at_all = entries = 0
    for name, size in journal.files().items():
        sound = answers = damaged = 0
        for found in lines_from(journal.folder / name):
            entry = None if found.entry is None else entry_of(found.entry)
            if entry is None or entry.key != key(entry.model, entry.messages, entry.params, entry.index):
                damaged += 1
                print(f"damaged: {name}, byte {found.offset}, {found.length} bytes", file=sys.stderr)
                continue
            sound += 1
            answers += entry.answered
        state = "being written" if is_owned(journal.folder / name) else "closed"
        table.add(name, f"{size:,}", f"{sound:,}", f"{answers:,}", f"{damaged:,}", state)
        entries += sound
        damaged_at_all += damaged
    answers, keys = journal.select("SELECT count(*), count(DISTINCT key) FROM entry WHERE answered")[0]
    print(table.text())
    print(f"{entries:,} sound entries, {damaged_at_all:,} damaged; index: {answers:,} answers to {keys:,} questions")
    return int(damaged_at_all > 0)


def merge(journal: Journal, options: argparse.Namespace) -> int:
    copied = known = 0
    with closing(Journal(folder_of(Path(options.other)), _say)) as other:
        for entry in other:
            if not entry.answered:
                continue
            if journal.get(entry.key) is not None:
                known += 1
                continue
            journal.append(entry)
            copied += 1
    journal.flush()
    print(f"{copied:,} answers came in, {known:,} were here already")
    return 0


def show_batches(journal: Journal, options: argparse.Namespace) -> int:
    """What servers have in batches now, and what came of those that have ended."""
    if options.take:
        take_all(journal, _say)
    pending = Pending(journal.folder)
    table = Table("batch", "at the server", "of", "begun", "requests", "answered", "failed", "dollars", "state")
    ended = pending.ended()
    under_way = [{**batch.model_dump(), "status": "under way", "dollars": None} for batch in pending.all()]
    for each in (*ended, *under_way):
        begun = time.strftime("%Y-%m-%d %H:%M", time.localtime(each["begun"]))
        known = "answered" in each
        table.add(
            each["id"], escape(each.get("server_id") or "-"), escape(f"{each['model']} at {each['endpoint']}"), begun,
            f"{each['requests']:,}", f"{each['answered']:,}" if known else "-", f"{each['failed']:,}" if known else "-",
            money(each["dollars"]) if known else "-", escape(each["status"]),
        )  # fmt: skip
    print(table.text() if ended or under_way else "no requests were ever sent in batches")
    return 0


def compress(journal: Journal, options: argparse.Namespace) -> int:
    print(
        "nothing to do: the journal's files stay plain JSON lines now, and those that an earlier version compressed "
        "have been unpacked\n  to save room on disk, compress a copy (`zstd -r`), or let the file system do it"
    )
    return 0


def rebuild(journal: Journal, options: argparse.Namespace) -> int:
    journal.rebuild()
    print(f"{len(journal):,} entries in the index")
    return int(journal.damaged > 0)


def _say(message: str) -> None:
    print(message, file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    """What can be typed."""
    out = argparse.ArgumentParser(
        prog="python -m speed.journal", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    out.add_argument("--home", default=os.environ.get("SPEED_HOME", "speed_home"), help="root of a run")
    verbs = out.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, does: Callable[[Journal, argparse.Namespace], int], filtered: bool) -> argparse.ArgumentParser:
        made = verbs.add_parser(name)
        made.set_defaults(does=does)
        for fact in ("purpose", "kind", "model", "cause") if filtered else ():
            made.add_argument(f"--{fact}")
        return made

    verb("list", list_entries, filtered=True).add_argument("--limit", type=int)
    search = verb("search", list_entries, filtered=True)
    search.add_argument("words")
    search.add_argument("--limit", type=int)
    verb("show", show, filtered=False).add_argument("key")
    verb("ledger", show_ledger, filtered=False)
    verb("export", export, filtered=True).add_argument("file")
    verb("verify", verify, filtered=False)
    verb("merge", merge, filtered=False).add_argument("other")
    taking = verb("batches", show_batches, filtered=False)
    taking.add_argument(
        "--take", action="store_true", help="ask the servers, and write down the answers that are there"
    )
    verb("compress", compress, filtered=False)
    verb("rebuild", rebuild, filtered=False)
    return out


def main(arguments: list[str] | None = None) -> int:
    """The command; its exit status."""
    options = parser().parse_args(arguments)
    try:
        with closing(Journal(folder_of(Path(options.home)), _say)) as journal:
            return int(options.does(journal, options))
    except UserError as error:
        print(error, file=sys.stderr)
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(explained(error, "reading the journal") or f"{error.strerror}: {error.filename}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
