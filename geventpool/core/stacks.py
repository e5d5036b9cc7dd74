"""Where greenlets are: stacks captured cheaply, and formatted only when somebody reads them."""

from __future__ import annotations

import sys
from types import CodeType, FrameType
from typing import Any

from gevent import getcurrent

from ..errors import printable

Stack = list[tuple[CodeType, int]]
"""Code, and where in it a frame was, as `f_lasti` tells: a line number costs half as much again."""

_DEEPEST = 40
SHOWN = 12
MACHINERY = {"gevent", "geventpool"}
"""Packages whose frames are ours or a library's, not the program's; whoever knows another adds it."""


def capture(skip: int) -> Stack:
    """The calling stack, innermost first: about 0.1 µs for each frame. `line_of` tells the lines.

    Args:
        skip: innermost frames to leave out.
    """
    stack: Stack = []
    try:
        frame: FrameType | None = sys._getframe(skip + 1)
    except ValueError:  # the pool's own method is what the greenlet runs
        return stack
    while frame is not None and len(stack) < _DEEPEST:
        stack.append((frame.f_code, frame.f_lasti))
        frame = frame.f_back
    return stack


def line_of(code: CodeType, at: int) -> int:
    """The line number of an instruction, as `traceback` finds it."""
    for start, end, line in code.co_lines():
        if start <= at < end:
            return code.co_firstlineno if line is None else line
    return code.co_firstlineno


def format_capture(stack: Stack) -> str:
    """A captured stack as text, outermost first, like a traceback.

    Without the lines of code, because a secret may be written there.
    """
    return "".join(_line(code, line_of(code, at)) for code, at in reversed(stack[:SHOWN]))


def format_frames(frame: Any) -> str:
    """The stack of a frame, or of what gevent keeps in place of one, as `format_capture` writes it."""
    lines: list[str] = []
    while frame is not None and len(lines) < SHOWN:
        lines.append(_line(frame.f_code, frame.f_lineno))
        frame = frame.f_back
    return "".join(reversed(lines))


def _line(code: CodeType, number: int) -> str:
    return f'  File "{printable(code.co_filename)}", line {number}, in {printable(code.co_name)}\n'


def frame_of(greenlet: Any) -> FrameType | None:
    """The innermost frame of a live greenlet that is the program's own; else the innermost."""
    innermost: FrameType | None = getattr(greenlet, "gr_frame", None)
    if greenlet is getcurrent():
        innermost = sys._getframe(1)
    frame = innermost
    while frame is not None:
        if str(frame.f_globals.get("__name__")).partition(".")[0] not in MACHINERY:
            return frame
        frame = frame.f_back
    return innermost


def format_greenlet(greenlet: Any) -> str:
    """The stack of a live greenlet as it is now, outermost first, from the program's own code on."""
    return format_frames(frame_of(greenlet))


def name_of(greenlet: Any) -> str:
    """A greenlet by its name and function. Its own `repr` would show arguments, which may be secret."""
    run = getattr(greenlet, "_run", None)
    function = getattr(run, "__qualname__", None)
    name = getattr(greenlet, "name", None) or f"greenlet {id(greenlet):#x}"
    is_told = function and function != "Greenlet._run"  # which it is once the greenlet has ended
    return printable(f"<{name}: {function}>" if is_told else f"<{name}>")


def place_of(greenlet: Any) -> str:
    """Where in the program's own code a live greenlet is, in a few words."""
    frame = frame_of(greenlet)
    if frame is None:
        return "somewhere"
    return printable(f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}")
