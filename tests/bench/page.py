"""How long a page takes to make and to open: `python tests/bench/page.py [--quick]`. The last line is one JSON object.

A made-up run of 20,000 examples (with --quick 2,000) with texts of 120 words. `make_s`: to read its records and write
`report.html`; `megabytes`; `open_s`: until chromium has drawn it, `records_s`: until the
records are there to look through, `nodes` then. The last three are null where there is no chromium.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


async def _opened(page: str) -> dict[str, Any]:
    from chromium import tab

    async with tab() as made:
        await made.screen(1400, 900)
        begun = time.monotonic()
        await made.open(page)
        opened = time.monotonic() - begun
        await made.run("document.querySelector('#records').scrollIntoView()")
        await made.until("document.querySelector('#list li') !== null")
        await made.run("document.querySelector('#list button').click()")
        there = time.monotonic() - begun
        nodes = await made.run("document.querySelectorAll('*').length")
    return {"open_s": round(opened, 2), "records_s": round(there, 2), "nodes": nodes}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2,000 examples")
    examples = 2_000 if parser.parse_args().quick else 20_000
    from chromium import FOUND
    from made_up_run import made_up_run

    from speed.runs.page import of_run

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = made_up_run(folder / "home", f"scale.examples={examples}", length=120)
        begun = time.monotonic()
        html = partial(of_run.html, "bench", run.about, run.order, run.store, run.lines, run.scores)
        page = of_run.write(folder, html)
        seconds = time.monotonic() - begun
        assert page is not None
        figures: dict[str, Any] = {
            "examples": examples,
            "make_s": round(seconds, 2),
            "megabytes": round(page.stat().st_size / 1e6, 2),
        }
        none = {"open_s": None, "records_s": None, "nodes": None}
        figures |= asyncio.run(_opened(page.as_uri())) if FOUND else none
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
