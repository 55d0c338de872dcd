"""What each judge protocol makes of a teacher that errs, as a Markdown table.

    python tests/bench/judges.py [--quick]

Each list holds one right answer, three about something else and one that cannot be read, by the miniature's hidden
truth; a share of the teacher's verdicts is a blind guess. Truthful are pairs of a truly best and a truly worst answer.
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "stages"))

from scripted_judge import PROMPTS, Lists, built, known_list, truthful

from speed.core.store import Store
from speed.data.answers.accept_or_reject import KEEP
from speed.data.judging.votes import Judge
from speed.miniature.teacher import RulesTeacher
from speed.stages.preferences import Preferences

PROTOCOLS = {
    "single": Judge(),
    "swap": Judge(votes=2),
    "vote": Judge(votes=3, decide="majority"),
    "margin": Judge(votes=3, decide="margin", margin=0.8),
    "verified": Judge(verified=True),
}
"""The options of conf/judge."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the lists")
    count = 20 if parser.parse_args().quick else 200
    given = Lists(tuple(known_list(row) for row in range(count)))
    shown: dict[str, float] = {}
    print("| blind guesses | judge | calls a list | lists kept | truthful | swap flips |")
    print("|---:|---|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as home:
        store = Store(Path(home)).open()
        for error in (0.1, 0.33):
            teacher = RulesTeacher(error_rate=error, length_bias=0.5)
            for name, judge in PROTOCOLS.items():
                pool = Preferences(given, teacher, judge, PROMPTS.of("judge"), 200, 0, KEEP)
                rows, manifests = built(store, pool, count)
                right, kept = truthful(rows, list(given.given))
                figures = manifests[0].metrics
                flips = "-" if figures["swap_flips"] is None else f"{figures['swap_flips']:.1%}"
                calls = f"{figures['calls_per_list']:.2f}"
                print(f"| {error:.0%} | {name} | {calls} | {kept:.1%} | {right:.1%} | {flips} |", flush=True)
                shown |= {f"{name}_{error}_kept": round(kept, 4), f"{name}_{error}_truthful": round(right, 4)}
    print(json.dumps(shown))


if __name__ == "__main__":
    main()
