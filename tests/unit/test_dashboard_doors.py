"""The page within applications of Flask and of Django."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

import geventpool.flask
from geventpool import ConfigError
from geventpool.dashboard import making
from geventpool.dashboard.making import make_page
from geventpool.dashboard.security import COOKIE

TOKEN = "a token that nobody guesses"


@pytest.fixture(autouse=True)
def no_page_goes_on(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An application's page looks once a second for as long as the process lives."""
    pages = []

    def make(*arguments: Any) -> Any:
        pages.append(make_page(*arguments))
        return pages[-1]

    monkeypatch.setattr(making, "make_page", make)
    yield
    for page in pages:
        page.collector.stop()


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    app = Flask(__name__)
    app.config["GEVENTPOOL_SNAPSHOTS"] = str(tmp_path / "snapshots")
    return app


def add(app: Flask, tmp_path: Path, **more: Any) -> Any:
    geventpool.flask.dashboard(app, memory=tmp_path / "memory.sqlite3", **more)
    return app.test_client()


def test_flask_shows_the_page_to_whom_the_application_allows(app: Flask, tmp_path: Path) -> None:
    allowed = [True]
    client = add(app, tmp_path, url_prefix="/inside/pools/", allow=lambda: allowed[0])
    assert client.get("/inside/pools").headers["Location"].endswith("/inside/pools/")
    page = client.get("/inside/pools/holders")
    assert page.status_code == 200
    assert 'href="/inside/pools/timeline"' in page.text
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert client.get("/inside/pools/static/page.js").status_code == 200
    assert json.loads(client.get("/inside/pools/api/fleet").text)["processes"] == 0
    stream = client.get("/inside/pools/stream?view=fleet")
    assert b"".join([next(stream.response), next(stream.response)]).startswith(b"retry:")
    stream.close()
    allowed[0] = False
    for path in ("", "holders", "api/fleet", "stream", "static/page.js"):
        assert client.get(f"/inside/pools/{path}").status_code == 403


def test_flask_asks_for_the_token_if_nothing_else_is_said(
    app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEVENTPOOL_DASHBOARD_TOKEN", TOKEN)
    client = add(app, tmp_path)
    assert client.get("/pools/").status_code == 401
    assert client.post("/pools/login", data={"token": TOKEN}).status_code == 303
    assert client.get_cookie(COOKIE, path="/pools") is not None
    assert client.get("/pools/").status_code == 200


def test_flask_wants_to_be_told_who_may_look(app: Flask, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="GEVENTPOOL_DASHBOARD_TOKEN"):
        add(app, tmp_path)


_DJANGO = """
import sys
from django.conf import settings
settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF="__main__",
    GEVENTPOOL_SNAPSHOTS=sys.argv[1] + "/snapshots",
    GEVENTPOOL_DASHBOARD_MEMORY=sys.argv[1] + "/memory.sqlite3",
    **({"GEVENTPOOL_DASHBOARD_ALLOW": lambda request: "staff" in request.GET} if sys.argv[2] else {}),
)
import django
django.setup()
from django.test import Client
from django.urls import include, path
urlpatterns = [path("inside/pools/", include("geventpool.django.dashboard"))]
client = Client()
assert client.get("/inside/pools/").status_code == 403
if sys.argv[2]:
    page = client.get("/inside/pools/holders?staff=1")
    assert page.status_code == 200, page
    text = b"".join(page.streaming_content).decode()
    assert 'href="/inside/pools/timeline"' in text, text
    assert "default-src 'none'" in page["Content-Security-Policy"]
    assert client.get("/inside/pools/static/page.js?staff=1").status_code == 200
    assert client.get("/inside/pools/static/page.js").status_code == 403
"""


@pytest.mark.parametrize("allow", ["", "yes"])
def test_django_shows_the_page_to_staff_or_to_whom_its_settings_allow(
    allow: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", _DJANGO, str(tmp_path), allow]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
