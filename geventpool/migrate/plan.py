"""A source file, what is to be changed in it, and why."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import without_passwords

_WIDTH = 88
_TAKES_PASSWORDS = ("URL", "connect", "create")
"""Functions whose third argument is a password: SQLAlchemy's `URL.create`, DBAPIs' `connect`."""


@dataclass(frozen=True, order=True)
class Reason:
    """Why a line is changed, or what else is to be thought of there.

    Attributes:
        line: its number, from 1.
        text: in a sentence.
    """

    line: int
    text: str


@dataclass
class Plan:
    """One file.

    Attributes:
        name: its path, as the user knows it.
        before: its text.
        reasons: of the changes, and notes where nothing is changed.
        pools: caps that were found, as `QueuePool` has them: size and overflow.
    """

    name: str
    before: str
    reasons: list[Reason] = field(default_factory=list)
    pools: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._data = self.before.encode()
        self._starts = [0]
        for line in self._data.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))
        self._edits: list[tuple[int, int, str]] = []
        self._imports: set[str] = set()
        self.tree = ast.parse(self.before)

    @property
    def after(self) -> str:
        """Its text with all changes."""
        data = self._data
        for start, end, text in sorted(self._edits, reverse=True):
            data = data[:start] + text.encode() + data[end:]
        return data.decode()

    @property
    def is_changed(self) -> bool:
        """Is there anything to change?"""
        return bool(self._edits)

    def diff(self) -> list[str]:
        """Before and after, line by line, without passwords: for reading, not for `patch`."""
        lines = difflib.unified_diff(
            self._shown(self.before).splitlines(),
            self._shown(self.after).splitlines(),
            f"{self.name} (now)",
            f"{self.name} (with geventpool)",
            n=0,
            lineterm="",
        )
        return list(lines)

    def _shown(self, text: str) -> str:
        """Without passwords: those with a name or in a URL, and those given by their place."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call) and last_name(node.func) in _TAKES_PASSWORDS:
                for secret in filter(None, map(string, node.args[2:])):
                    text = text.replace(repr(secret), "'***'").replace(f'"{secret}"', '"***"')
        return without_passwords(text)

    def say(self, node: ast.AST, text: str) -> None:
        """A reason, or a note."""
        self.reasons.append(Reason(getattr(node, "lineno", 1), text))

    def text_of(self, node: ast.AST) -> str:
        """The source of an expression."""
        start, end = self.span(node)
        return self._data[start:end].decode()

    def span(self, node: Any) -> tuple[int, int]:
        """Where an expression or a statement begins and ends, in bytes."""
        return (
            self._starts[node.lineno - 1] + node.col_offset,
            self._starts[node.end_lineno - 1] + node.end_col_offset,
        )

    def replace(self, node: ast.AST, text: str) -> None:
        """Puts a text in the place of an expression."""
        self._edits.append((*self.span(node), text))

    def insert_after(self, node: ast.AST, text: str) -> None:
        """Adds a text right after an expression."""
        end = self.span(node)[1]
        self._edits.append((end, end, text))

    def insert_before(self, node: ast.AST, text: str) -> None:
        """Adds a text right before an expression."""
        start = self.span(node)[0]
        self._edits.append((start, start, text))

    def insert_line_before(self, statement: Any, text: str) -> None:
        """Adds a line above a statement, as far indented as that."""
        start = self.span(statement)[0]
        self._edits.append((start, start, f"{text}\n{' ' * statement.col_offset}"))

    def insert_line_after(self, statement: Any, text: str) -> None:
        """Adds a line below a statement, as far indented as that."""
        end = self.span(statement)[1]
        stop = self._data.find(b"\n", end)
        rest = self._data[end : len(self._data) if stop < 0 else stop]
        if rest.strip().startswith(b"#"):
            end += len(rest)
        self._edits.append((end, end, f"\n{' ' * statement.col_offset}{text}"))

    def remove_statement(self, statement: ast.AST) -> None:
        """Takes away a statement that has its lines for itself."""
        self._remove(*self.span(statement))

    def remove_entry(self, key: ast.AST, value: ast.AST) -> None:
        """Takes away an entry of a dict, with its comma."""
        start, end = self.span(key)[0], self.span(value)[1]
        rest = self._data[end:]
        gap = len(rest) - len(rest.lstrip())
        if rest[gap : gap + 1] == b",":
            end += gap + 1
        self._remove(start, end)

    def _remove(self, start: int, end: int) -> None:
        """With its line, if nothing else is there but a comment."""
        line = self._data.rfind(b"\n", 0, start) + 1
        stop = self._data.find(b"\n", end)
        stop = len(self._data) if stop < 0 else stop + 1
        rest = self._data[end:stop].strip()
        if not self._data[line:start].strip() and (not rest or rest.startswith(b"#")):
            start, end = line, stop
        else:
            spaces = self._data[end:stop]
            end += len(spaces) - len(spaces.lstrip(b" "))
        self._edits.append((start, end, ""))

    def need(self, module: str, names: str) -> None:
        """Adds an import, once, below the first of its kind, or below the imports at the top."""
        line = f"from {module} import {names}"
        if line in self._imports or line in self.before:
            return
        self._imports.add(line)
        above = [one for one in self.tree.body if isinstance(one, (ast.Import, ast.ImportFrom))]
        alike = [one for one in above if "sqlalchemy" in ast.unparse(one)]
        if alike or above:
            self.insert_line_after((alike or above)[0 if alike else -1], line)
        elif self.tree.body:
            first = self.tree.body[0]
            is_doc = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            add = self.insert_line_after if is_doc else self.insert_line_before
            add(first, line)


def string(node: ast.AST | None) -> str | None:
    """The text of a literal; `None`: it is something else."""
    is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return node.value if is_text else None  # type: ignore[union-attr]


def number(node: ast.AST | None, default: int) -> int:
    """The whole number of a literal, also a negative one."""
    try:
        value = ast.literal_eval(node) if node is not None else default
    except ValueError:
        return default
    return value if isinstance(value, int) else default


def display(head: str, settings: Mapping[str, str], indent: int) -> str:
    """A dict's display behind what it is given to; on lines of its own if it is long."""
    pairs = [f'"{name}": {value}' for name, value in settings.items()]
    line = f"{head}{{{', '.join(pairs)}}}"
    if indent + len(line) <= _WIDTH:
        return line
    gap = "\n" + " " * indent
    inside = "".join(f"{gap}    {pair}," for pair in pairs)
    return f"{head}{{{inside}{gap}}}"


def last_name(node: ast.AST | None) -> str:
    """`b` of `a.b` and of `b`; empty: it is something else."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def entries(node: ast.Dict) -> dict[str, tuple[ast.expr, ast.expr]]:
    """The entries of a dict's display whose keys are literal: key and value."""
    pairs = zip(node.keys, node.values, strict=True)
    return {text: (key, value) for key, value in pairs if key and (text := string(key)) is not None}
