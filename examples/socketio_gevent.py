"""Flask-SocketIO: one websocket and one greenlet for each client, one pool of connections for all.

cd examples
gunicorn -k gevent -w 1 socketio_gevent:app       # DATABASE_URL names the database
python socketio_gevent.py http://127.0.0.1:8000   # 20 clients, 5 messages each

A websocket lives for hours, a transaction for milliseconds: borrow for a message, not for a client.
"""

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402
import sys  # noqa: E402

import gevent  # noqa: E402
import socketio as client_side  # noqa: E402
from flask import Flask  # noqa: E402
from flask_socketio import SocketIO  # noqa: E402
from sqlalchemy import create_engine, text  # noqa: E402

from geventpool.sqlalchemy import GeventPool  # noqa: E402

engine = create_engine(
    os.environ.get("DATABASE_URL", "sqlite:///example.sqlite3"), poolclass=GeventPool, max_size=5
)
app = Flask(__name__)
socketio = SocketIO(app, async_mode="gevent")


@socketio.on("double")
def double(number):
    """What is returned is the client's answer."""
    with engine.begin() as connection:
        return connection.scalar(text(f"SELECT {int(number)} * 2"))


@app.get("/pool")
def pool():
    """What the pool has done."""
    return engine.pool.status()


def main(url):
    """All clients are connected before the first of them asks."""
    clients = [client_side.SimpleClient() for _ in range(20)]
    for client in clients:
        client.connect(url, transports=["websocket"])
    asking = [
        gevent.spawn(lambda client: [client.call("double", n) for n in range(5)], client)
        for client in clients
    ]
    print(f"100 messages, sum {sum(sum(one.get()) for one in asking)}")
    for client in clients:
        client.disconnect()


if __name__ == "__main__":
    main(sys.argv[1])
