"""Ask some rows in batches; the last line is their texts.

python batch_program.py URL HOME ROWS
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from quick_batches import batching
from quick_teacher import ask, fine

from speed.core.store import Store
from speed.runtime import Context, Runtime


def main(url: str, home: Path, rows: int) -> None:
    ctx = Context(Store(home).open(), Runtime(home=home, api_base=url))
    requests = ((ask(f"row {row}"), fine) for row in range(rows))
    print(json.dumps([answer.text for answer in batching().ask(requests, ctx)]))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
