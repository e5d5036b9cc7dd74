"""Call sites: the innermost lines of the program's own code, below the pool and its drivers.

Two routes may share the function that queries, so a site is up to three lines that call one another, and
it ends where a framework's code begins. Lines of code are never shown, as a secret may be written there:
only files, numbers and names.
"""

from __future__ import annotations

import os
import re
import sysconfig
from types import CodeType, FrameType

from ..core import stacks
from ..errors import printable

Line = tuple[str, int, str]
"""A file, a line number, and a function's name."""

Site = tuple[Line, ...]
"""Innermost line first; empty: no code but ours, the driver's or gevent's was on the stack."""

_LONGEST = 3
_DEEPEST = 80
_MACHINERY, _LIBRARY, _OWN = range(3)
_HELPERS = {"contextlib", "flask_sqlalchemy", "functools", "greenlet", "threading"}
_PACKAGE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "")
# Packages are installed within the standard library's folder, so that they are looked for first.
_INSTALLED = re.compile(r".*[/\\](?:site|dist)-packages[/\\]")
_STANDARD = tuple(
    {
        os.path.join(path, "")
        for name in ("stdlib", "platstdlib")
        if (path := sysconfig.get_path(name))
    }
)
# By file name: code objects hash slowly.
_ranks: dict[str, int] = {}


def site_of(frame: FrameType | None) -> Site:
    """The site of a frame: about 0.1 µs for each frame walked. Never switches."""
    own: list[Line] = []
    library: list[Line] = []
    left = _DEEPEST
    while frame is not None and left:
        left -= 1
        code = frame.f_code
        file = code.co_filename
        rank = _ranks.get(file)
        if rank is None:
            rank = _rank(file)
        if rank == _OWN:
            own.append((file, frame.f_lineno, code.co_name))
            if len(own) == _LONGEST:
                break
        elif own:
            break
        elif rank == _LIBRARY and not library:
            library.append((file, frame.f_lineno, code.co_name))
        frame = frame.f_back
    return tuple(own or library)


def site_of_capture(stack: stacks.Stack | None) -> Site:
    """The site of a captured stack; empty if there is none. Never switches."""
    own: list[Line] = []
    library: list[Line] = []
    for code, at in stack or ():
        rank = _rank_of(code.co_filename)
        if rank == _OWN:
            own.append(_line(code, at))
            if len(own) == _LONGEST:
                break
        elif own:
            break
        elif rank == _LIBRARY and not library:
            library.append(_line(code, at))
    return tuple(own or library)


def tell_site(site: Site) -> str:
    """A site in one line of text, the innermost first."""
    if not site:
        return "outside of the program's own code"
    return ", called by ".join(tell_line(line) for line in site)


def tell_line(line: Line) -> str:
    """`desk/orders.py:60 in list_orders`, with the file's whole path."""
    file, number, function = line
    return printable(f"{file}:{number} in {function}")


def lines_of_capture(stack: stacks.Stack | None) -> list[Line]:
    """A captured stack, outermost first, from the innermost code on that is not the pool's."""
    if stack is None:
        return []
    return [_line(code, at) for code, at in reversed(_cut(stack))]


def lines_of_greenlet(greenlet: object) -> list[Line]:
    """The stack of a live greenlet as it is now, outermost first."""
    frame = stacks.frame_of(greenlet)
    lines: list[Line] = []
    while frame is not None and len(lines) < stacks.SHOWN:
        lines.append((frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name))
        frame = frame.f_back
    return lines[::-1]


def tell_stack(lines: list[Line]) -> str:
    """A stack as text, like a traceback without the lines of code."""
    return "".join(
        f'  File "{printable(file)}", line {number}, in {printable(function)}\n'
        for file, number, function in lines
    )


def _cut(stack: stacks.Stack) -> stacks.Stack:
    """From the program's code on, if there is any."""
    for depth, (code, _) in enumerate(stack):
        if _rank_of(code.co_filename) != _MACHINERY:
            return stack[depth : depth + stacks.SHOWN]
    return stack[: stacks.SHOWN]


def _line(code: CodeType, at: int) -> Line:
    return code.co_filename, stacks.line_of(code, at), code.co_name


def _rank_of(file: str) -> int:
    rank = _ranks.get(file)
    return _rank(file) if rank is None else rank


def _rank(file: str) -> int:
    installed = _INSTALLED.match(file)
    folder = installed[0] if installed else next(filter(file.startswith, _STANDARD), "")
    if file.startswith(_PACKAGE):
        rank = _MACHINERY
    elif folder:
        package = re.split(r"[/\\.]", file[len(folder) :], maxsplit=1)[0]
        rank = _MACHINERY if package in stacks.MACHINERY or package in _HELPERS else _LIBRARY
    elif file.startswith("<"):  # there is no file
        is_machinery = not stacks.MACHINERY.isdisjoint(re.findall(r"\w+", file))
        is_library = re.match(r"<frozen|.*generated|<decorator-gen", file, re.IGNORECASE)
        rank = _MACHINERY if is_machinery else _LIBRARY if is_library else _OWN
    else:
        rank = _OWN
    if len(_ranks) > 10_000:  # a program that makes code, with a file name for each
        _ranks.clear()
    return _ranks.setdefault(file, rank)
