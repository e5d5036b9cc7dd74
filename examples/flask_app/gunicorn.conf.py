"""gunicorn's configuration: `gunicorn -c examples/flask_app/gunicorn.conf.py`."""  # noqa: N999 # the name is gunicorn's

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import geventpool.gunicorn
from geventpool.gunicorn import worker_exit, worker_int

__all__ = ["worker_exit", "worker_int"]

chdir = str(Path(__file__).resolve().parent.parent)
wsgi_app = "flask_app:create_app()"
worker_class = "gevent"
workers = 2
graceful_timeout = 10
# gunicornc isn't used here, and its socket would be shared by every gunicorn of this user.
control_socket_disable = True
if "ORDER_DESK_BIND" in os.environ:
    bind = os.environ["ORDER_DESK_BIND"]


def on_starting(server: Any) -> None:
    """Make the tables before there are workers, in a process of its own.

    The master stays free of the application: what it imports now, a worker would inherit without
    gevent's patches.
    """
    command = [sys.executable, "-m", "flask", "--app", "flask_app", "seed"]
    done = subprocess.run(command, cwd=chdir, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        reason = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        sys.exit(f"The tables could not be made: {reason}\n{done.stderr}")


def post_fork(server: Any, worker: Any) -> None:
    """Before the worker loads the application."""
    if "+psycopg2" in os.environ.get("DATABASE_URL", ""):
        # psycopg2 waits in C; psycopg 3 and PyMySQL need nothing of the kind.
        from psycogreen.gevent import patch_psycopg

        patch_psycopg()
    geventpool.gunicorn.post_fork(server, worker)


def post_worker_init(worker: Any) -> None:
    """The application is loaded, and gevent runs."""
    from flask_app import observing, recorder

    recorder.start()
    observing.start(worker.wsgi)
