"""gunicorn's configuration: `gunicorn -c examples/django_app/gunicorn.conf.py`."""

# ruff: noqa: E402
from gevent import monkey

monkey.patch_all()

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from geventpool.gunicorn import post_fork as geventpool_post_fork
from geventpool.gunicorn import worker_exit, worker_int

__all__ = ["worker_exit", "worker_int"]

chdir = str(Path(__file__).resolve().parent)
wsgi_app = "desk.wsgi:application"
worker_class = "gevent"
workers = 2
graceful_timeout = 10
control_socket_disable = True
if "ORDER_DESK_BIND" in os.environ:
    bind = os.environ["ORDER_DESK_BIND"]


def on_starting(server: Any) -> None:
    """Make the tables before there are workers, in a process of its own."""
    for command in ("migrate", "seed"):
        done = subprocess.run(
            [sys.executable, "manage.py", command, "-v0"],
            cwd=chdir,
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            sys.exit(f"manage.py {command} failed:\n{done.stderr}")


def post_fork(server: Any, worker: Any) -> None:
    """Before the worker loads the application."""
    if "+psycopg2" in os.environ.get("DATABASE_URL", ""):
        # psycopg2 waits in C; psycopg 3 and PyMySQL need nothing of the kind.
        from psycogreen.gevent import patch_psycopg

        patch_psycopg()
    geventpool_post_fork(server, worker)
