"""The `geventpool` command as a user types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from geventpool.simulator import DEFAULTS, KEYS, make_trace

PROGRAM = """
import sys
from gevent import monkey
monkey.patch_all()
assert "sqlalchemy" not in sys.modules, "imported before the program could patch"
import gevent
from geventpool.sqlalchemy import GeventPool
from sqlalchemy import create_engine, text

ours = create_engine(sys.argv[1], poolclass=GeventPool)
theirs = create_engine(sys.argv[1])

def work(engine):
    for _ in range(20):
        with engine.connect() as connection:
            connection.execute(text("select 1"))
            gevent.sleep(0.005)

gevent.joinall([gevent.spawn(work, e) for e in (ours, theirs) for _ in range(5)], raise_error=True)
"""


def geventpool(*arguments: str, data: bytes | None = None, code: int = 0) -> Any:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("geventpool")), *arguments],
        input=data,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stderr.decode()
    return done


def test_a_trace_is_made_simulated_and_drawn(tmp_path: Path) -> None:
    trace, figures, picture = (str(tmp_path / name) for name in ("a.csv", "a.json", "a.png"))
    geventpool("trace", "near-idle", "--seed", "3", "--out", trace)
    done = geventpool("simulate", trace, "--json", figures, "--plot", picture)
    told = json.loads(Path(figures).read_text())
    assert [row["policy"] for row in told] == list(DEFAULTS)
    assert all(tuple(row) == KEYS for row in told)
    assert Path(picture).read_bytes().startswith(b"\x89PNG")
    for policy in DEFAULTS:
        assert policy in done.stdout.decode()


def test_a_trace_goes_through_pipes() -> None:
    made = geventpool("trace", "sequential")
    done = geventpool("simulate", "-", "--policy", "adaptive", "--json", "-", data=made.stdout)
    (row,) = json.loads(done.stdout)
    assert (row["trace"], row["policy"]) == ("standard input", "adaptive")


def test_a_directory_is_replayed_file_by_file(tmp_path: Path) -> None:
    for seed in (1, 2):
        with (tmp_path / f"near-idle-{seed}.csv").open("w") as file:
            make_trace("near-idle", seed).write(file)
    with (tmp_path / "cron-7-1.csv").open("w") as file:
        make_trace("cron", 1).write(file)
    done = geventpool("simulate", str(tmp_path), "--policy", "idle:5", "--json", "-")
    told = json.loads(done.stdout)
    rows, means = told[:3], told[3:]
    assert [row["trace"] for row in rows] == ["cron-7-1", "near-idle-1", "near-idle-2"]
    assert [(row["family"], row["traces"]) for row in means] == [
        ("cron", 1),
        ("near-idle", 2),
        ("*", 3),
    ]
    near_idle = (rows[1]["ratio"] + rows[2]["ratio"]) / 2
    assert means[1]["ratio"] == pytest.approx(near_idle)
    assert means[2]["ratio"] == pytest.approx((rows[0]["ratio"] + near_idle) / 2)


def test_a_horizon_before_the_last_return_is_told_of(tmp_path: Path) -> None:
    trace = tmp_path / "a.csv"
    trace.write_text("t,hold\n0,1\n50,1\n")
    done = geventpool("simulate", str(trace), "--policy", "idle:99", "--horizon", "20")
    assert b"before the last return: charged up to that, 51 s" in done.stdout
    assert b"before the last return" not in geventpool("simulate", str(trace)).stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["simulate", "/none/such.csv"], "cannot be read"),
        (["simulate", "-"], "has no rows"),
        (["simulate", "-", "--policy", "adaptve"], "did you mean adaptive?"),
        (["simulate", "-", "--breakeven", "0"], "breakeven=0.0"),
        (["simulate", "never-read.csv", "--plot", "a.doc"], "ends in .png"),
        (["simulate", "never-read.csv", "--plot", "none/a.png"], "no directory none"),
        (["simulate", "never-read.csv", "--json", "none/a.json"], "cannot be written"),
        (["record", "/none/such", "--files", "0", "python"], "Error"),
        (["record", "traces", "no-such-program"], "no such script or command"),
        (["record", "traces", "ls"], "no Python program"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    arguments: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = geventpool(*arguments, data=b"", code=1)
    assert told in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


def test_a_program_on_a_real_server_is_recorded_and_simulated(mariadb: Any, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    traces = tmp_path / "traces"
    geventpool("record", str(traces), str(program), mariadb.url("pymysql"))
    done = geventpool("simulate", str(traces), "--policy", "adaptive", "--json", "-")
    rows = [row for row in json.loads(done.stdout) if "trace" in row]
    assert len(rows) == len(list(traces.iterdir())) == 2
    assert {row["trace"].partition("-")[0] for row in rows} == {"mysql", "QueuePool"}
    assert sum(len(file.read_text().splitlines()) - 1 for file in traces.iterdir()) == 200


def test_what_lies_in_the_working_directory_takes_no_modules_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command finds its modules where it was installed, as without us."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.defpath]))
    for name in ("flask.py", "werkzeug.py", "flask"):
        Path(name).write_text("raise SystemExit('taken from the working directory')\n# python")
    assert b"Werkzeug" in geventpool("record", "traces", "flask", "--version").stdout
    Path("program.py").write_text("import helper")
    Path("helper.py").write_text("print('a module beside the script')")
    for program in (["program.py"], ["-m", "program"]):
        assert b"beside the script" in geventpool("record", "traces", *program).stdout
    done = geventpool("record", "traces", "helper", code=1)
    assert "no such script or command" in done.stderr.decode()


def test_the_name_of_a_trace_is_neither_markup_nor_a_control_sequence(tmp_path: Path) -> None:
    with (tmp_path / "[red]a\x1b[2J$x^$.csv").open("w") as file:
        make_trace("near-idle", 1).write(file)
    arguments = ["simulate", str(tmp_path), "--policy", "idle:5", "--plot", str(tmp_path / "a.png")]
    done = geventpool(*arguments)
    assert b"[red]a?[2J$x^$: " in done.stdout
