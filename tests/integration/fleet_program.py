"""Workers of one fleet, forked from a master that has made their pool (gunicorn's `preload_app`).

    python -m tests.integration.fleet_program URL DIRECTORY SIZE

Commands are lines; answers, too. `fork`: one worker more, `kill NUMBER`: one less, at once. All else goes
to the worker whose number is first: `load GREENLETS SECONDS`, `borrow NUMBER`, `return`,
`fork`, `stats`.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import os  # noqa: E402
import random  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
import pymysql  # noqa: E402
from gevent import os as gevent_os  # noqa: E402
from gevent.event import Event  # noqa: E402
from sqlalchemy import make_url  # noqa: E402

from geventpool import ConnectionPool  # noqa: E402

BAD = 0.1
"""Of all attempts to connect under load have the wrong password."""


def lines(fd: int) -> Iterator[list[str]]:
    gevent_os.make_nonblocking(fd)
    rest = b""
    while more := gevent_os.nb_read(fd, 4096):
        *whole, rest = (rest + more).split(b"\n")
        for line in whole:
            yield line.decode().split()


def say(*what: Any) -> None:
    os.write(1, (" ".join(map(str, what)) + "\n").encode())


class Worker:
    def __init__(self, pool: ConnectionPool) -> None:
        self.pool = pool
        self.load: tuple[int, float] = (0, 0.0)
        self.greenlets: list[gevent.Greenlet] = []
        self.served = 0
        self.errors: list[str] = []
        self.lent = 0
        self.is_over = Event()

    def serve(self, fd: int) -> None:
        for command, *arguments in lines(fd):
            if command == "load":
                gevent.killall(self.greenlets)
                number, seconds = int(arguments[0]), float(arguments[1])
                self.greenlets = [gevent.spawn(self._run, seconds) for _ in range(number)]
            elif command == "borrow":
                began = time.monotonic()
                number, self.lent, self.is_over = int(arguments[0]), 0, Event()
                holders = [gevent.spawn(self._hold) for _ in range(number)]
                while self.lent < number and not any(one.dead for one in holders):
                    gevent.sleep(0.001)
                say(os.getpid(), "borrowed", self.lent, time.monotonic() - began)
            elif command == "return":
                self.is_over.set()
            elif command == "fork":  # such as a helper that lives on without us
                pid = os.fork()
                if not pid:
                    time.sleep(20)
                    os._exit(0)
                say("forked", pid)
            elif command == "stats":
                stats = self.pool.stats()
                told = {
                    "served": self.served,
                    "errors": self.errors[:3],
                    "in_use": stats.in_use,
                    "size": stats.size,
                    "opened": stats.opened,
                    "closed": sum(stats.closed.values()),
                }
                say(os.getpid(), json.dumps(told))

    def _hold(self) -> None:
        with self.pool.connection():
            self.lent += 1
            self.is_over.wait()

    def _run(self, seconds: float) -> None:
        while True:
            try:
                with self.pool.connection() as connection, connection.cursor() as cursor:
                    cursor.execute("select 1")
                    gevent.sleep(random.expovariate(1 / seconds) if seconds else 0)
                self.served += 1
            except pymysql.OperationalError as error:
                if error.args[0] != 1045:  # access denied, as is to be
                    self.errors.append(repr(error))
            except Exception as error:
                self.errors.append(repr(error))
            gevent.sleep(random.expovariate(1 / 0.01))


def main() -> None:
    url, directory, size = make_url(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    worker: Worker | None = None

    def connect() -> Any:
        is_bad = worker is not None and worker.greenlets and random.random() < BAD
        return pymysql.connect(
            host=url.host,
            port=url.port or 3306,
            user=url.username,
            password="wrong" if is_bad else str(url.password),
            database=url.database,
            autocommit=True,
        )

    pool = ConnectionPool(connect, fleet=directory, fleet_size=size, fleet_name="test", timeout=20)
    pipes: dict[int, int] = {}
    say("ready")
    for number, *command in lines(0):
        if number == "fork":
            reads, writes = os.pipe()
            pid = os.fork()
            if not pid:
                worker = Worker(pool)
                random.seed()
                try:
                    for other in (0, writes, *pipes.values()):
                        os.close(other)
                    worker.serve(reads)
                finally:
                    os._exit(0)
            os.close(reads)
            pipes[pid] = writes
            say("forked", pid)
        elif number == "kill":
            pid = int(command[0])
            os.kill(pid, signal.SIGKILL)
            os.close(pipes.pop(pid))
            os.waitpid(pid, 0)
            say("killed", pid)
        else:
            os.write(pipes[int(number)], (" ".join(command) + "\n").encode())


if __name__ == "__main__":
    main()
