"""The page in a real Chromium: each fault is shown with its culprit, and the page recovers by itself."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from tools import system_packages

SECONDS = 20.0
PROGRAM = Path(__file__).with_name("faulty_program.py")
CULPRITS = {
    "": {
        "leak": "in leaks",
        "idle in transaction": "in leaves_transaction_open",
        "slow query": "in asks_slowly",
        "hub blocked": "in computes",
        "saturated": "in keeps_all",
        "database down": "look at the server",
    },
    "holders": {"idle in transaction": "in leaves_transaction_open", "small": "in keeps_all"},
    "queries": {"select nap": "in asks_slowly", "insert into": "in leaves_transaction_open"},
    "waits": {
        "saturated": "in keeps_all",
        "hub blocked": "in computes",
        "database down": "look at the server",
    },
    "events": {"leak": "in leaks", "slow query": "in asks_slowly", "hub blocked": "in computes"},
    "timeline?pool=small": {"Connections of small": "saturated", "cap": "checkouts/s"},
}
SIZES = ((360, 780), (1280, 900), (2560, 1440))


def start(*command: str, **environ: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environ},
    )


@contextmanager
def dashboard(directory: Path, port: int = 0, **environ: str) -> Iterator[tuple[Any, str]]:
    """The command, and the address that it prints."""
    command = ["-m", "geventpool.cli", "dashboard", "--listen", f"127.0.0.1:{port}"]
    command += ["--snapshots", str(directory / "snapshots"), "--memory", str(directory / "memory")]
    with start(*command, **environ) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(10)


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """Where a program with all faults publishes: in memory, as a busy disk blocks its hub for a second."""
    shared = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=shared, prefix="geventpool-") as path:
        with start(str(PROGRAM), path, "300") as program:
            assert program.stdout is not None
            assert program.stdout.readline() == "ready\n"
            yield Path(path)
            program.kill()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    problem = system_packages.install(["chromium"])
    if problem is not None:
        if os.environ.get("CI"):
            pytest.fail(problem, pytrace=False)
        pytest.skip(problem)
    options = webdriver.ChromeOptions()
    options.binary_location = str(system_packages.find("chromium"))
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = str(system_packages.find("chromedriver"))
    browser = webdriver.Chrome(options=options, service=Service(driver))
    yield browser
    browser.quit()


@pytest.fixture
def fresh(browser: Any) -> Any:
    """With no page of the test before, which may complain that its server has gone."""
    browser.get("about:blank")
    browser.get_log("browser")
    return browser


def text_of(browser: Any) -> str:
    found: str = browser.execute_script("return document.body.innerText")
    return found


def wait_for(is_so: Callable[[], bool], what: Callable[[], str] | str) -> None:
    deadline = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < deadline, what if isinstance(what, str) else what()
        time.sleep(0.1)


def complaints(browser: Any) -> list[str]:
    """What Chromium has to say, such as of the Content-Security-Policy."""
    return [entry["message"] for entry in browser.get_log("browser")]


def test_each_fault_is_shown_with_its_culprit_on_the_page_that_explains_it(
    directory: Path, fresh: Any
) -> None:
    with dashboard(directory) as (_, address):
        for view, culprits in CULPRITS.items():
            fresh.get(address + view)

            def missing(culprits: dict[str, str] = culprits) -> list[str]:
                text = text_of(fresh)
                return [one for pair in culprits.items() for one in pair if one not in text]

            # Kept live by the stream: the page is loaded once.
            wait_for(lambda: not missing(), lambda: f"{missing()} in {text_of(fresh)}")
            text = text_of(fresh)
            assert "hunter2" not in text
            if view and "timeline" not in view:
                assert re.search(r"faulty_program\.py:\d+ in ", text)
        assert complaints(fresh) == []


def test_pages_fit_into_a_telephone_and_a_large_screen(directory: Path, fresh: Any) -> None:
    with dashboard(directory) as (_, address):
        for view in CULPRITS:
            fresh.get(address + view)
            for width, height in SIZES:
                size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
                fresh.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
                wide = fresh.execute_script(
                    "return document.documentElement.scrollWidth - innerWidth"
                )
                assert wide <= 0, f"{view} at {width}"
        fresh.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        assert complaints(fresh) == []


def test_the_page_says_that_it_is_stale_and_recovers_by_itself(directory: Path, fresh: Any) -> None:
    with dashboard(directory) as (process, address):
        port = int(address.rstrip("/").rpartition(":")[2])
        fresh.get(f"{address}holders")
        wait_for(lambda: "live" in text_of(fresh), "it is live")
        fresh.execute_script("document.querySelector('summary').click(); window.marked = true")
        process.kill()
        wait_for(lambda: "stale since" in text_of(fresh), "it is stale")
    with dashboard(directory, port):
        wait_for(lambda: "stale since" not in text_of(fresh), "it has recovered")
        assert fresh.execute_script("return window.marked") is True  # it was not loaded again
        assert fresh.execute_script("return document.querySelector('details').open") is True


def test_there_are_tables_without_javascript_and_a_token_is_wanted_where_it_is_set(
    directory: Path,
) -> None:
    token = "a token for this test alone"
    with dashboard(directory, GEVENTPOOL_DASHBOARD_TOKEN=token) as (_, address):
        base = address.partition("?")[0]
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(base, timeout=10)
        asked = urllib.request.Request(base, headers={"Authorization": f"Bearer {token}"})
        wait_for(
            lambda: b"<td" in urllib.request.urlopen(asked, timeout=10).read(), "there is a table"
        )
