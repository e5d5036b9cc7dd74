"""The page as a WSGI application: who may look, what is shown, and what hostile input does to it."""

from __future__ import annotations

import json
import os
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gevent
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import geventpool.observe
from geventpool import ConfigError, ConnectionPool
from geventpool.advise.command import advise
from geventpool.cli import main
from geventpool.dashboard import views
from geventpool.dashboard.app import Page
from geventpool.dashboard.collector import Collector
from geventpool.dashboard.making import make_page
from geventpool.dashboard.memory import Memory
from geventpool.dashboard.problems import Problem, worst_first
from geventpool.dashboard.security import Gate, is_loopback, token_from_environment
from geventpool.dashboard.sources import Published
from geventpool.observe.snapshot import snapshot
from geventpool.simulator.trace import read_traces
from geventpool.testing import FakeDriver

pytestmark = pytest.mark.usefixtures("no_pools_of_other_tests")

TOKEN = "a token that nobody guesses"
HOSTILE = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)>\x1b[2J\u202e"
PAGES = ["/", *(f"/{name}" for name in views.VIEWS)]
ROUTES = [
    *PAGES,
    *(f"/api/{name}" for name in views.VIEWS),
    "/export.csv",
    "/export.json",
    "/trace.csv",
    "/stream",
    "/static/page.js",
    "/static/style.css",
    "/static/icon.svg",
    "/login",
    "/nothing",
]


class Fixed:
    """A source of what a test puts there."""

    def __init__(self, *published: Published) -> None:
        self.published = list(published)
        self.error: Exception | None = None

    def read(self) -> list[Published]:
        if self.error is not None:
            raise self.error
        return self.published


class Client:
    """Asks a page, as a server would."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.status = ""
        self.headers: dict[str, str] = {}

    def get(self, url: str, method: str = "GET", body: bytes = b"", **environ: str) -> str:
        path, _, query = url.partition("?")
        given: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "HTTP_HOST": "localhost:8765",
            "REMOTE_ADDR": "10.0.0.1",
            "wsgi.input": BytesIO(body),
            "wsgi.url_scheme": "http",
            "CONTENT_LENGTH": str(len(body)),
            **environ,
        }
        parts = self.page(given, self._start)
        if self.headers["Content-Type"].startswith("text/event-stream"):
            stream = iter(parts)
            found = b"".join([next(stream), next(stream)])
            stream.close()  # type: ignore[attr-defined]
            return found.decode()
        return b"".join(parts).decode()

    def _start(self, status: str, headers: list[tuple[str, str]]) -> None:
        self.status, self.headers = status[:3], dict(headers)


@pytest.fixture
def pool() -> Any:
    pool = ConnectionPool(FakeDriver().connect, name="desk", max_size=2, timeout=0.01)
    observer = geventpool.observe.attach(pool)
    yield pool
    observer.detach()
    pool.close()


@pytest.fixture
def source() -> Fixed:
    return Fixed()


@pytest.fixture
def collector(source: Fixed, tmp_path: Path) -> Any:
    memory = Memory(tmp_path / "memory.sqlite3")
    collector = Collector([source], memory)
    collector.start = lambda: None  # type: ignore[method-assign]
    yield collector
    memory.close()


@pytest.fixture
def client(collector: Collector) -> Client:
    return Client(Page(collector, Gate(None)))


def publish(source: Fixed, host: str = "here", **more: Any) -> dict[str, Any]:
    said = json.loads(json.dumps({**snapshot(), **more}))
    one = Published(host, said, mark=object())
    source.published = [*(x for x in source.published if x.key != one.key), one]
    return said


@pytest.mark.parametrize("route", ROUTES)
def test_no_route_answers_without_the_token(route: str, collector: Collector) -> None:
    client = Client(Page(collector, Gate(TOKEN)))
    for method in ("GET", "POST", "HEAD", "PUT", "OPTIONS"):
        text = client.get(route, method)
        assert client.status == "401"
        assert "<table" not in text
        assert "static" not in text
    client.get(route, HTTP_COOKIE="geventpool_dashboard=wrong; other=1")
    assert client.status == "401"


def test_the_token_opens_and_is_taken_out_of_the_address(collector: Collector) -> None:
    client = Client(Page(collector, Gate(TOKEN)))
    client.get(f"/holders?pool=desk&token={quote(TOKEN)}")
    assert client.status == "303"
    assert client.headers["Location"] == "/holders?pool=desk"
    cookie = client.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite" in cookie
    assert TOKEN not in cookie
    client.get("/holders", HTTP_COOKIE=cookie.partition(";")[0])
    assert client.status == "200"
    client.get("/holders", HTTP_AUTHORIZATION=f"Bearer {TOKEN}")
    assert client.status == "200"
    client.get("/login", "POST", f"token={quote(TOKEN)}".encode())
    assert client.status == "303"


def test_an_address_that_guesses_is_locked_out_and_others_are_not(collector: Collector) -> None:
    client = Client(Page(collector, Gate(TOKEN)))
    for _ in range(10):
        client.get("/?token=guess")
        assert client.status == "401"
    client.get(f"/?token={quote(TOKEN)}")
    assert client.status == "429"
    client.get(f"/?token={quote(TOKEN)}", REMOTE_ADDR="10.0.0.2")
    assert client.status == "303"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8765", "", "127.0.0.1.evil.example"]
)
def test_without_a_token_another_web_site_cannot_have_it_read(host: str, client: Client) -> None:
    client.get("/", HTTP_HOST=host)
    assert client.status == "403"


@pytest.mark.parametrize("host", ["localhost", "localhost:1", "127.0.0.1:80", "[::1]:80", "[::1]"])
def test_names_of_this_machine_are_answered(host: str, client: Client) -> None:
    client.get("/", HTTP_HOST=host)
    assert client.status == "200"


def test_loopback_is_told_from_the_rest() -> None:
    assert is_loopback("127.8.8.8")
    assert is_loopback("::1")
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("localhost.example")


def test_a_short_token_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEVENTPOOL_DASHBOARD_TOKEN", "short")
    with pytest.raises(ConfigError) as caught:
        token_from_environment()
    assert "short'" not in str(caught.value)


@pytest.mark.parametrize("route", ROUTES)
def test_nothing_may_be_loaded_from_elsewhere_or_run_inline(route: str, client: Client) -> None:
    text = client.get(route)
    policy = client.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert client.headers["X-Content-Type-Options"] == "nosniff"
    for inline in (" style=", " onclick=", "javascript:", "<style"):
        assert inline not in text
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in text


def test_only_get_is_answered(client: Client) -> None:
    client.get("/", "POST")
    assert client.status == "405"
    assert client.get("/", "HEAD") == ""
    assert client.status == "200"


def hostile_snapshot(source: Fixed) -> None:
    said = publish(source)
    [pool] = said["pools"]
    line = [HOSTILE, 1, HOSTILE]
    holder = {
        "pool": HOSTILE,
        "connection": 1,
        "state": "idle in transaction",
        "owner": HOSTILE,
        "held_for": 1e300,
        "idle_for": 1e300,
        "in_transaction_for": -1.0,
        "queries": 1,
        "query": HOSTILE,
        "site": HOSTILE,
        "execute_site": HOSTILE,
        **{name: [line] for name in ("taken_at", "cursor_at", "executed_at", "now_at")},
    }
    query = dict.fromkeys(
        ("calls", "errors", "rows", "total", "mean", "p50", "p95", "p99", "longest"), 1e300
    )
    site = dict.fromkeys(("count", "held", "busy", "busy_share", "longest"), 1e300)
    block = {"seconds": 1e300, "at": said["time"], "site": HOSTILE, "stack": [line]}
    pool |= {
        "name": HOSTILE,
        "wait_reasons": {HOSTILE: 3},
        "timeout_reasons": {HOSTILE: 4},
        "checkouts_per_second": 1e300,
        "waiting": 3,
        "max_size": 0,
    }
    pool["observed"] |= {
        "recent": [{"at": 1e300, "what": HOSTILE, "site": HOSTILE}],
        "holders": [holder],
        "queries": {"top": [{**query, "query": HOSTILE, "site": HOSTILE}]},
        "sites": [{**site, "site": HOSTILE}],
    }
    said |= {
        "program": HOSTILE,
        "hub": {
            "threshold": 1,
            "blocks": 1e300,
            "blocked_seconds": 1e300,
            "longest": block,
            "last": block,
        },
    }
    source.published = [Published(HOSTILE, said, 1)]


@pytest.mark.parametrize("route", [*PAGES, "/stream"])
def test_hostile_texts_are_shown_and_mean_nothing(
    route: str, client: Client, source: Fixed, collector: Collector, pool: ConnectionPool
) -> None:
    hostile_snapshot(source)
    collector.look()
    hostile_snapshot(source)
    source.published[0].said["pools"][0]["timeout_reasons"] = {HOSTILE: 9}
    collector.look()
    for parameters in ("", f"?view=holders&pool={quote(HOSTILE)}&order={quote(HOSTILE)}"):
        text = client.get(route + parameters)
        assert client.status == "200"
        for markup in ("<script>alert", "<img", "\x1b", "\u202e"):
            assert markup not in text


@pytest.mark.parametrize("route", ROUTES)
@settings(suppress_health_check=list(HealthCheck), max_examples=10, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            ["pool", "process", "from", "to", "window", "order", "page", "what", "view"]
        ),
        st.one_of(st.text(), st.floats().map(str), st.integers().map(str)),
    )
)
def test_whatever_is_asked_no_answer_is_an_error(
    client: Client,
    source: Fixed,
    collector: Collector,
    pool: ConnectionPool,
    route: str,
    parameters: dict[str, str],
) -> None:
    if not source.published:
        publish(source)
        collector.look()
    text = "&".join(
        f"{name}={quote(value, errors='replace')}" for name, value in parameters.items()
    )
    client.get(f"{route}?{text}")
    assert client.status in ("200", "404")


@pytest.mark.parametrize(
    "cookie", ["geventpool_dashboard", "=;=;", '"\\', "a=b; geventpool_dashboard=\u00e9"]
)
def test_a_broken_cookie_is_none(cookie: str, collector: Collector) -> None:
    client = Client(Page(collector, Gate(TOKEN)))
    client.get("/", HTTP_COOKIE=cookie)
    assert client.status == "401"


def test_planted_secrets_are_in_no_answer(
    source: Fixed, collector: Collector, client: Client, tmp_path: Path
) -> None:
    def fail() -> None:
        raise OSError("mysql://desk:hunter2-in-url@host/ password=hunter2-in-key")

    pool = ConnectionPool(FakeDriver().connect, name="shop", max_size=1, timeout=0.01)
    broken = ConnectionPool(fail, name="broken", timeout=0.01)
    observers = [geventpool.observe.attach(one) for one in (pool, broken)]
    with pool.connection() as connection:
        connection.cursor().execute("select 'hunter2-literal' where a = 'hunter2-other'")
        with pytest.raises(OSError, match="mysql"), broken.connection():
            pass
        for _ in range(2):
            publish(source)
            collector.look()
    source.error = PermissionError(13, "denied", str(tmp_path / "hunter2-path"))
    collector.look()
    for route in ROUTES:
        text = client.get(route)
        assert "hunter2" not in text
        assert str(tmp_path) not in text
    assert "the log of the dashboard says why" in client.get("/")
    for observer in observers:
        observer.detach()
    pool.close()
    broken.close()


def test_the_fleet_agrees_with_the_pools(
    client: Client, source: Fixed, collector: Collector, pool: ConnectionPool
) -> None:
    with pool.connection():
        publish(source, "one")
        publish(source, "other")
        collector.look()
        collector.look()
        found = json.loads(client.get("/api/fleet"))
        assert found["hosts"] == found["processes"] == 2
        [total] = found["sums"]
        assert total["in_use"] == 2 * pool.stats().in_use
        assert total["max_size"] == 4


def test_a_full_pool_is_told_with_its_culprit_and_the_cure(
    client: Client, source: Fixed, collector: Collector, pool: ConnectionPool
) -> None:
    with pool.connection(), pool.connection():
        waiting = gevent.spawn(lambda: pool.connection(timeout=1).__enter__())
        gevent.sleep(0)
        publish(source)
        waiting.kill()
        collector.look()
        [problem] = json.loads(client.get("/api/fleet"))["problems"]
        assert problem["what"] == "saturated"
        assert f"{os.path.basename(__file__)}:" in problem["site"]
        assert "raise max_size" in problem["cure"]
        [event] = json.loads(client.get("/api/events"))["rows"]
        assert event["what"] == "saturated"


def test_who_publishes_no_more_is_stale_and_who_has_ended_is_gone(
    client: Client, source: Fixed, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("geventpool.dashboard.collector.time.monotonic", lambda: now)
    publish(source)
    collector.look()
    now += 4
    collector.look()
    assert not json.loads(client.get("/api/fleet"))["problems"]
    now += 4
    collector.look()
    [problem] = json.loads(client.get("/api/fleet"))["problems"]
    assert problem["what"] == "stale"
    publish(source)
    collector.look()
    assert not json.loads(client.get("/api/fleet"))["problems"]
    source.published = []
    collector.look()
    assert json.loads(client.get("/api/fleet"))["processes"] == 0
    assert json.loads(client.get("/api/events"))["rows"][0]["what"] == "ended"


def test_an_idle_process_that_publishes_is_not_stale(tmp_path: Path, pool: ConnectionPool) -> None:
    publisher = geventpool.observe.publish(tmp_path / "snapshots", interval=60)
    publisher.write()
    before = publisher.path.stat()
    os.utime(publisher.path, ns=(0, 0))
    publisher.write()
    after = publisher.path.stat()
    assert after.st_ino == before.st_ino  # nothing was written
    assert after.st_mtime_ns >= before.st_mtime_ns
    publisher.stop()


def test_a_resize_is_an_event(
    client: Client, source: Fixed, collector: Collector, pool: ConnectionPool
) -> None:
    publish(source)
    collector.look()
    pool.resize(5)
    publish(source)
    collector.look()
    [event] = json.loads(client.get("/api/events"))["rows"]
    assert (event["what"], event["told"]) == ("resize", "the cap was 2 and is 5")


def test_a_stream_sends_what_has_changed_and_then_waits(client: Client) -> None:
    text = client.get("/stream?view=fleet")
    assert text.startswith("retry: ")
    said = json.loads(text.partition("data: ")[2])
    assert "No process publishes here" in said["html"]


def test_a_stretch_of_time_is_exported(
    client: Client, source: Fixed, collector: Collector, pool: ConnectionPool, tmp_path: Path
) -> None:
    publish(source)
    collector.look()
    for _ in range(5):
        with pool.connection():
            pass
    publish(source)
    # Another second, as the memory has one row for each.
    collector.now.at -= 1
    collector.look()
    rows = json.loads(client.get("/export.json"))["rows"]
    assert rows[-1]["checkouts"] == 5
    header, *lines = client.get("/export.csv").splitlines()
    assert header.startswith("at,seconds,pool,in_use")
    assert len(lines) == len(rows)
    trace = tmp_path / "trace.csv"
    trace.write_text(client.get("/trace.csv"))
    [read] = read_traces(str(trace))
    assert len(read) == 5
    advised = CliRunner().invoke(advise, ["--trace", str(trace)]).output
    assert "trace: 5 requests" in advised
    assert "simulated" in advised


def test_a_formula_in_a_name_is_none_in_the_spreadsheet(
    client: Client, source: Fixed, collector: Collector
) -> None:
    pool = ConnectionPool(FakeDriver().connect, name="=cmd()")
    publish(source)
    collector.look()
    assert ",'=cmd()," in client.get("/export.csv")
    pool.close()


def test_long_tables_have_pages(client: Client, source: Fixed, collector: Collector) -> None:
    pools = [ConnectionPool(FakeDriver().connect, name=f"pool {n}") for n in range(views.ROWS + 1)]
    publish(source)
    collector.look()
    assert "page=2" in client.get("/")
    assert "page=1" in client.get("/?page=2")
    assert len(json.loads(client.get("/api/fleet?page=2"))["rows"]) == 1
    for pool in pools:
        pool.close()


def test_the_worst_comes_first() -> None:
    found = worst_first(
        [Problem("slow query", ""), Problem("mine", ""), Problem("database down", "")]
    )
    assert [one.what for one in found] == ["database down", "slow query", "mine"]


@pytest.mark.parametrize("listen", ["here", "127.0.0.1:port", ":80", "127.0.0.1:70000"])
def test_an_address_that_is_none_is_refused(listen: str, tmp_path: Path) -> None:
    arguments = ["dashboard", "--listen", listen, "--memory", str(tmp_path / "memory")]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 1
    assert "give HOST:PORT" in done.output


def test_directories_may_be_named_after_their_hosts(tmp_path: Path) -> None:
    paths = (Path("shop=/tmp/somewhere"), Path("/tmp/a=b"))
    page = make_page(paths, tmp_path / "memory")
    named, other = page.collector.sources
    assert (named.host, str(named.path)) == ("shop", "/tmp/somewhere")  # type: ignore[attr-defined]
    assert str(other.path) == "/tmp/a=b"  # type: ignore[attr-defined]
    page.collector.memory.close()
