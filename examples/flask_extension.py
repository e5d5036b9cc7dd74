"""Flask-SQLAlchemy with two binds, in one file; `flask_app/` is a whole application.

gunicorn -k gevent --chdir examples flask_extension:app          # DATABASE_URL names the database
python examples/flask_extension.py                               # a few requests, without a server
"""

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402

import gevent  # noqa: E402
from flask import Flask  # noqa: E402
from flask_sqlalchemy import SQLAlchemy  # noqa: E402
from sqlalchemy import text  # noqa: E402

from geventpool.flask import GeventPool  # noqa: E402

URL = os.environ.get("DATABASE_URL", "sqlite:///example.sqlite3")

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = URL
app.config["SQLALCHEMY_BINDS"] = {"reports": URL}
app.config["GEVENTPOOL_MAX_SIZE"] = 10  # of each bind; or nothing at all

db = SQLAlchemy(app)
pool = GeventPool(app, db)


@app.get("/")
def index():
    """The session of a request gives its connection back when the request ends."""
    return {"answer": db.session.scalar(text("SELECT 42"))}


@app.get("/report")
def report():
    """The other bind has a pool of its own."""
    with db.engines["reports"].connect() as connection:
        return {"answer": connection.scalar(text("SELECT 7"))}


@app.get("/pools")
def pools():
    """What the pools of this process do."""
    return {bind or "default": one.status() for bind, one in pool.pools.items()}


def main():
    """50 requests at once, as a gevent server would run them."""

    def get(path):
        return app.test_client().get(path).get_json()["answer"]

    requests = [gevent.spawn(get, path) for path in ["/", "/report"] * 25]
    print(f"{len(requests)} requests, sum {sum(request.get() for request in requests)}")
    for bind, status in app.test_client().get("/pools").get_json().items():
        print(f"{bind}: {status}")


if __name__ == "__main__":
    main()
