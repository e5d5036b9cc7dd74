"""Processes that take permits in one file, for `test_fleet_permits.py`.

    python -m tests.property.permit_holders FOLDER

Each line is one command, `WHO WHAT …`, with one line for an answer. `WHO` is the number of a holder; 0 is
the first process, which forks all others and holds none.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from geventpool.fleet.host import Folder, forget_files


def hold(folder: Path, reads: int, writes: int) -> None:
    """A holder, until its pipe is closed."""
    forget_files()
    file = Folder(folder).file
    with open(reads) as commands:
        for line in commands:
            what, *numbers = line.split()
            answer: object = "done"
            if what == "take":
                answer = file.take(int(numbers[0]), float(numbers[1]))
            elif what == "give":
                file.give_back(int(numbers[0]), float(numbers[1]))
            elif what == "settle":
                file.settle(float(numbers[0]))
            elif what == "fork":  # a child that lives on, and does nothing
                inner = os.fork()
                if not inner:
                    os.close(writes)
                    signal.pause()
                answer = inner
            os.write(writes, f"{answer}\n".encode())


def main() -> None:
    """Forks holders, hands commands on to them, and their answers back."""
    folder = Path(sys.argv[1])
    Folder(folder)
    holders: dict[int, tuple[int, int, int]] = {}
    children: list[int] = []
    for line in sys.stdin:
        who, what, *rest = line.split()
        if what == "start":
            reads, to_holder = os.pipe()
            from_holder, writes = os.pipe()
            pid = os.fork()
            if not pid:
                for _, one, other in holders.values():
                    os.close(one)
                    os.close(other)
                os.close(to_holder)
                hold(folder, reads, writes)
                os._exit(0)
            os.close(reads)
            os.close(writes)
            holders[int(who)] = pid, to_holder, from_holder
            answer = "done"
        elif what == "kill":
            pid, to_holder, from_holder = holders.pop(int(who))
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(to_holder)
            os.close(from_holder)
            answer = "done"
        else:
            _, to_holder, from_holder = holders[int(who)]
            os.write(to_holder, f"{what} {' '.join(rest)}\n".encode())
            answer = os.read(from_holder, 100).decode().strip()
            if what == "fork":
                children.append(int(answer))
        print(answer, flush=True)
    for pid, *_ in holders.values():
        os.kill(pid, signal.SIGKILL)
    for child in children:
        os.kill(child, signal.SIGKILL)


if __name__ == "__main__":
    main()
