"""One scenario with one pool, in this process; the verdict is the last line of what it prints."""

from tests import patch_first  # noqa: F401, I001  # before anything else is imported

import faulthandler
import json
import os
import sys
import traceback

from .base import MARK, Context
from .catalogue import find


def main() -> None:
    """Arguments: scenario, label of the row, pool, URL of the shared server, scale, time limit."""
    name, label, pool, url, scale, limit = sys.argv[1:]
    faulthandler.dump_traceback_later(max(1.0, float(limit) - 1), exit=False)
    scenario, row = find(name, label)
    context = Context(pool, row, url, scale)
    try:
        scenario.run(context)
    except BaseException as error:
        traceback.print_exc()
        context.failures.clear()
        context.expect(False, f"{type(error).__name__}: {error}")
    print(f"\n{MARK}{json.dumps(context.verdict())}", flush=True)
    # What a pool has left behind (threads, greenlets, connections) need not end in order.
    os._exit(0)


if __name__ == "__main__":
    main()
