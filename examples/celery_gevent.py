"""Celery with its gevent pool: one process, many tasks at once, one pool of connections.

cd examples
celery -A celery_gevent worker --pool gevent --concurrency 100      # patches by itself, before this
python celery_gevent.py                                             # sends tasks, waits for the sum

CELERY_BROKER_URL names a broker; without it messages are files in a folder, which is enough to try.
"""

import os
import tempfile
from pathlib import Path

from celery import Celery
from celery.signals import worker_shutdown
from sqlalchemy import create_engine, text

import geventpool
from geventpool.sqlalchemy import GeventPool

engine = create_engine(
    os.environ.get("DATABASE_URL", "sqlite:///example.sqlite3"),
    poolclass=GeventPool,
    profile="background_jobs",  # at most 20 connections, and patience of 300 s: nobody watches
)


def on_files():
    """A broker without a server: messages and results are files of this user."""
    folder = Path(os.environ.get("CELERY_FOLDER", Path(tempfile.gettempdir(), "geventpool-celery")))
    for name in ("queue", "results", "control"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return {
        "broker_url": "filesystem://",
        "broker_transport_options": {
            "data_folder_in": str(folder / "queue"),
            "data_folder_out": str(folder / "queue"),
            "control_folder": str(folder / "control"),
        },
        "result_backend": f"file://{folder / 'results'}",
    }


app = Celery("celery_gevent")
if "CELERY_BROKER_URL" in os.environ:
    app.conf.update(broker_url=os.environ["CELERY_BROKER_URL"], result_backend="rpc://")
else:
    app.conf.update(on_files())


@app.task
def double(number):
    """A transaction each; a time limit that ends a task in the middle harms no connection."""
    with engine.begin() as connection:
        return connection.scalar(text(f"SELECT {number} * 2"))


@app.task
def pool_status():
    """What the worker's pool does."""
    return [pool.status() for pool in geventpool.pools()]


@worker_shutdown.connect
def close(**_):
    """Close the connections in good order."""
    engine.dispose()


if __name__ == "__main__":
    results = [double.delay(number) for number in range(100)]
    print(f"100 tasks, sum {sum(result.get(timeout=60) for result in results)}")
    print(*pool_status.delay().get(timeout=60), sep="\n")
