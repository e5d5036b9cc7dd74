"""Writes RESULTS.md and the plots: python -m benchmarks.sizing [--quick]

Everything is seeded and in virtual time, so that the figures are the same on each machine; only the
simulator's own speed is measured. `--quick` prints the figures of one seed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from ..measure import FULL, QUICK
from ..run import arguments
from .document import write
from .figures import sections
from .study import UNSEEN, study


def main() -> None:
    """Runs all and writes it."""
    parser = argparse.ArgumentParser(description="what sizing costs")
    arguments(parser)
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the figures to a file, too"
    )
    options = parser.parse_args()
    scale = QUICK if options.quick else FULL
    is_full = scale.is_full
    found = study(len(UNSEEN) if is_full else 1, is_full=is_full, rounds=2 if is_full else 1)
    told = sections(found)
    if options.json is not None:
        options.json.write_text(json.dumps([dataclasses.asdict(section) for section in told]))
    if is_full:
        write(found)
    elif options.json is None:
        print("\n\n".join(section.markdown() for section in told))


if __name__ == "__main__":
    main()
