"""A load as it was: when a connection was asked for, and for how long it was held.

The file format is CSV with the columns `t,hold`, in seconds; `t` from any origin. A header line names
them, in any order and among others; without one the first two columns are meant. The rows need not be
sorted: a recorder knows a hold only when it has ended.
"""

from __future__ import annotations

import csv
import gzip
import io
import sys
import zlib
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Final

from ..errors import ConfigError

SUFFIXES: Final = (".csv", ".csv.gz")

_SHORTEST_HOLD: Final = 1e-6
_LATEST: Final = 1e10  # beyond it a double cannot tell microseconds apart
_LONGEST_HOLD: Final = 1e9
_GZIP: Final = b"\x1f\x8b"


class Trace:
    """Requests in the order of their time; 16 bytes for each.

    Args:
        name: what it is called in tables.
        requests: pairs of `t` and `hold` in any order; a hold of less than a microsecond counts as one.

    Attributes:
        times: when a connection is asked for, ascending.
        holds: for how long each is held then.
    """

    def __init__(self, name: str, requests: Iterable[tuple[float, float]]) -> None:
        self.name = name
        self.times = array("d")
        self.holds = array("d")
        is_sorted, before = True, -_LATEST
        for time, hold in requests:
            self.times.append(time)
            self.holds.append(hold if hold > _SHORTEST_HOLD else _SHORTEST_HOLD)
            is_sorted = is_sorted and time >= before
            before = time
        if not is_sorted:
            order = sorted(range(len(self.times)), key=self.times.__getitem__)
            self.times = array("d", map(self.times.__getitem__, order))
            self.holds = array("d", map(self.holds.__getitem__, order))

    def __len__(self) -> int:
        return len(self.times)

    def __iter__(self) -> Iterator[tuple[float, float]]:
        return zip(self.times, self.holds, strict=True)

    def __repr__(self) -> str:
        if not self.times:
            return f"<Trace {self.name}: empty>"
        return f"<Trace {self.name}: {len(self)} requests in {self.last_return - self.start:.6g} s>"

    @property
    def start(self) -> float:
        """When the first connection is asked for."""
        return self.times[0]

    @property
    def last_return(self) -> float:
        """When the last connection is returned, if nobody has to wait."""
        return max(map(float.__add__, self.times, self.holds))

    def events(self) -> Iterator[tuple[float, bool]]:
        """When use changes, and whether it rises; a return comes before a request of the same time."""
        returns = array("d", sorted(map(float.__add__, self.times, self.holds)))
        times, place, many = self.times, 0, len(self.times)
        for back in returns:
            while place < many and times[place] < back:
                yield times[place], True
                place += 1
            yield back, False

    def write(self, file: IO[str]) -> None:
        """Writes it as CSV with a header, microseconds exact."""
        file.write("t,hold\n")
        file.writelines(f"{time:.6f},{hold:.6f}\n" for time, hold in self)


def read_traces(source: str) -> Iterator[Trace]:
    """Reads what a user names: a file, `-` for standard input, or a directory for each file in it.

    In a directory, files without rows are passed over: a recorder may only have begun them.

    Raises:
        ConfigError: there is nothing to read, or a row is not as it should be; with the line.
    """
    if source == "-":
        if sys.stdin is None:
            raise ConfigError("trace", source, "standard input is closed: name a file")
        yield _full(source, _read("standard input", sys.stdin.buffer))
        return
    path = Path(source)
    if not path.is_dir():
        yield _full(source, _open(path))
        return
    is_empty = True
    for file in sorted(path.iterdir()):
        if not file.name.endswith(SUFFIXES) or not file.is_file():
            continue  # a pipe would keep the reader for ever
        trace = _open(file)
        if trace:
            is_empty = False
            yield trace
    if is_empty:
        cure = f"no {' or '.join(SUFFIXES)} file with rows is in it"
        raise ConfigError("trace", source, cure)


def _full(source: str, trace: Trace) -> Trace:
    if not trace:
        cure = "has no rows: give CSV with the columns t,hold, in seconds"
        raise ConfigError("trace", source, cure)
    return trace


def _open(path: Path) -> Trace:
    try:
        with path.open("rb") as stream:
            return _read(str(path), stream)
    except OSError as error:
        raise ConfigError("trace", str(path), f"cannot be read: {error.strerror}") from None


def _read(name: str, stream: Any) -> Trace:
    """Reads one file; the stream is the caller's, and buffered."""
    binary: Any = stream
    if stream.peek(2)[:2] == _GZIP:
        binary = gzip.GzipFile(fileobj=stream)
    text = io.TextIOWrapper(binary, "utf-8-sig", newline="")
    lines = csv.reader(text)
    try:
        trace = Trace(Path(name).name.partition(".csv")[0], _requests(name, lines))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        cure = f"the gzip stream breaks off or is damaged ({error}): copy it again"
        raise ConfigError("trace", _place(name, lines), cure) from None
    except (UnicodeDecodeError, csv.Error) as error:
        cure = f"not text ({error}): give CSV with the columns t,hold"
        raise ConfigError("trace", _place(name, lines), cure) from None
    finally:
        text.detach()
    return trace


def _requests(name: str, lines: Any) -> Iterator[tuple[float, float]]:
    t_at, hold_at = 0, 1
    is_first = True
    for row in lines:
        if not row:
            continue
        if is_first:
            is_first = False
            names = [cell.strip().lower() for cell in row]
            if "t" in names and "hold" in names:
                t_at, hold_at = names.index("t"), names.index("hold")
                continue
        try:
            time, hold = float(row[t_at]), float(row[hold_at])
        except (ValueError, IndexError):
            time = hold = -1.0
            problem = "give two numbers, t and hold, in seconds"
        else:
            # Written so that what is not a number fails.
            if -_LATEST <= time <= _LATEST and 0.0 <= hold <= _LONGEST_HOLD:
                yield time, hold
                continue
            problem = f"give t within ±{_LATEST:g} s and a hold from 0 to {_LONGEST_HOLD:g} s"
        raise ConfigError("trace", f"{_place(name, lines)}: {','.join(row)[:80]}", problem)


def _place(name: str, lines: Any) -> str:
    return f"{name}, line {lines.line_num}"
