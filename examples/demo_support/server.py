"""What the demo starts and stops: the database, gunicorn, and the clients."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).resolve().parent.parent
APP = EXAMPLES / "flask_app"
START_SECONDS = 60.0
STOP_SECONDS = 30.0
# A worker that hasn't written for so long is gone.
FRESH_SECONDS = 2.0


class DemoError(Exception):
    """The demo can't go on; the text says why and where to look."""


@contextmanager
def undisturbed() -> Iterator[None]:
    """Put off Ctrl-C and SIGTERM until the end of the block, where nothing gets lost.

    A process that has been started but isn't noted down yet would outlive the demo.
    """
    caught: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: caught.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if caught:
        raise KeyboardInterrupt


@contextmanager
def database(kind: str, directory: Path) -> Iterator[str]:
    """The URL of a database: `DATABASE_URL`, else a new private one that ends with the demo."""
    if given := os.environ.get("DATABASE_URL"):
        yield given
        return
    if kind == "sqlite":
        yield f"sqlite:///{directory / 'order_desk.sqlite3'}"
        return
    sys.path.insert(0, str(EXAMPLES.parent))
    from tools.servers import MariaDB, PostgreSQL

    name, driver = {"mysql": ("mariadb", "pymysql"), "postgresql": ("postgresql", "psycopg")}[kind]
    _install(name)
    with ExitStack() as stack:
        with undisturbed():
            server = stack.enter_context(MariaDB() if kind == "mysql" else PostgreSQL())
        try:
            yield server.url(driver)
        finally:
            with undisturbed():
                stack.close()


def _install(name: str) -> None:
    """Install a database server, if it isn't there.

    Raises:
        DemoError: that can't be done here.
    """
    command = [sys.executable, str(EXAMPLES.parent / "tools" / "system_packages.py"), name]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip()
        raise DemoError(f"{said}\nOr let DATABASE_URL name a database that exists.")


@dataclass
class Server:
    """A running gunicorn."""

    url: str
    process: subprocess.Popen[bytes]


@contextmanager
def gunicorn(
    database_url: str,
    workers: int,
    stats: Path,
    log: Path,
    conf: Path = APP / "gunicorn.conf.py",
    snapshots: Path | None = None,
) -> Iterator[Server]:
    """The order desk under gunicorn, on a free port of this machine, until the block ends.

    Args:
        database_url: the database's.
        workers: how many.
        stats: the directory for the workers' figures.
        log: the file for all that gunicorn prints.
        conf: gunicorn's configuration.
        snapshots: the directory where the workers publish what they see, for the page; `None`: they don't.

    Raises:
        DemoError: it doesn't start, or it doesn't end well.
    """
    environ = {**os.environ, "DATABASE_URL": database_url, "ORDER_DESK_STATS": str(stats)}
    if snapshots is not None:
        environ["GEVENTPOOL_SNAPSHOTS"] = str(snapshots)
    command = [sys.executable, "-m", "gunicorn", "--config", str(conf)]
    process = None
    try:
        # The socket is opened here and handed over: nobody can take its port in between.
        with (
            undisturbed(),
            log.open("w") as output,
            socket.create_server(("127.0.0.1", 0)) as listener,
        ):
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            handed = listener.fileno()
            command += ["--bind", f"fd://{handed}", "--workers", str(workers)]
            process = subprocess.Popen(
                command,
                env=environ,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[handed],
                # Ctrl-C in the terminal is for the demo, which then ends gunicorn in good order.
                start_new_session=True,
            )
        _wait_until_up(process, url, log)
        yield Server(url, process)
    finally:
        code = _stop(process)
    if code != 0:
        raise DemoError(f"gunicorn ended with code {code}; its log: {log}")
    if "Traceback" in log.read_text():
        raise DemoError(f"there is a traceback in gunicorn's log: {log}")


@contextmanager
def dashboard(snapshots: Path, directory: Path) -> Iterator[str]:
    """The page with all pools, until the block ends; gives its address.

    Args:
        snapshots: where the workers publish.
        directory: for the page's memory.

    Raises:
        DemoError: it doesn't start.
    """
    command = [sys.executable, "-m", "geventpool.cli", "dashboard", "--listen", "127.0.0.1:0"]
    command += ["--snapshots", str(snapshots), "--memory", str(directory / "page.sqlite3")]
    process = None
    try:
        with undisturbed():
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, text=True, start_new_session=True
            )
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        if not address:
            raise DemoError("the page didn't start: run `geventpool dashboard` to see why")
        yield address
    finally:
        _stop(process)
        if process is not None and process.stdout is not None:
            process.stdout.close()


def _wait_until_up(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    last_lines = "\n".join(log.read_text().splitlines()[-20:])
    raise DemoError(f"gunicorn didn't start; its log is {log} and ends so:\n{last_lines}")


def _stop(process: subprocess.Popen[Any] | None) -> int:
    """End a process and its children, if it was started: politely, then by force."""
    if process is None:
        return 0
    with undisturbed():
        if process.poll() is None:
            process.terminate()
        try:
            return process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            # It leads a process group of its own, in which are only its children.
            os.killpg(process.pid, signal.SIGKILL)
            return process.wait()


@dataclass
class Load:
    """The clients' process and what it said last."""

    process: subprocess.Popen[bytes]
    said: dict[str, Any] = field(default_factory=dict)
    started: float | None = None

    def listen(self) -> None:
        """Take in what the clients say, until they are done."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said = json.loads(line)
            if self.started is None:
                self.started = time.monotonic() - self.said["at"]

    @property
    def is_running(self) -> bool:
        """Whether the clients are still at it."""
        return self.process.poll() is None


@contextmanager
def clients(url: str, seconds: float, log: Path) -> Iterator[Load]:
    """The load, running in a process of its own until it is done.

    Raises:
        DemoError: it broke off.
    """
    script = str(Path(__file__).with_name("load.py"))
    process = None
    try:
        with undisturbed(), log.open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, script, url, str(seconds)],
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        load = Load(process)
        listener = threading.Thread(target=load.listen, daemon=True)
        listener.start()
        yield load
        code = process.wait(STOP_SECONDS)
        listener.join(STOP_SECONDS)
    finally:
        _stop(process)
    if code != 0 or load.said.get("phase") != "done":
        raise DemoError(f"the clients broke off with code {code}; see {log}")


GAUGES = ("in_use", "idle", "size", "level", "waiting", "mean_in_use")
COUNTERS = ("opened", "checkouts", "waits", "timeouts", "open_errors", "pings")


def read_stats(directory: Path) -> dict[int, dict[str, float]]:
    """The figures of each worker by process id, its pools added up."""
    found = {}
    for path in sorted(directory.glob("*.json")):
        written = json.loads(path.read_text())
        figures = dict.fromkeys((*GAUGES, *COUNTERS, "closed", "wait_seconds"), 0.0)
        for pool in written["pools"]:
            for name in COUNTERS:
                figures[name] += pool[name]
            figures["wait_seconds"] += pool["wait_seconds"]
            figures["closed"] += sum(pool["closed"].values())
            if time.time() - written["time"] < FRESH_SECONDS:
                for name in GAUGES:
                    figures[name] += pool[name]
        found[written["pid"]] = figures
    return found


def add_up(workers: dict[int, dict[str, float]]) -> dict[str, float]:
    """The sum over all workers."""
    names = (*GAUGES, *COUNTERS, "closed", "wait_seconds")
    return {name: sum(figures[name] for figures in workers.values()) for name in names}
