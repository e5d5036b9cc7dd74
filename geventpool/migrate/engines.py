"""SQLAlchemy's `create_engine` and Flask-SQLAlchemy's configuration."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from .plan import Plan, display, entries, last_name, number, string

DOOR: Final = "geventpool.sqlalchemy"
_ON_PURPOSE = ("NullPool", "StaticPool", "SingletonThreadPool", "AssertionPool")
_OPTIONS = "SQLALCHEMY_ENGINE_OPTIONS"
_URI = "SQLALCHEMY_DATABASE_URI"
_OLD = {
    "SQLALCHEMY_POOL_SIZE": "pool_size",
    "SQLALCHEMY_MAX_OVERFLOW": "max_overflow",
    "SQLALCHEMY_POOL_TIMEOUT": "pool_timeout",
    "SQLALCHEMY_POOL_RECYCLE": "pool_recycle",
}
"""Settings of Flask-SQLAlchemy before 3.0, and what they are among the engine's options."""

_STAYS = {
    "pool_pre_ping": "stays, and costs no round trip on a connection that is warm",
    "pool_recycle": "stays; an old connection's replacement is opened ahead of time",
    "pool_timeout": "stays; it covers waiting, connecting and checking together",
    "pool_use_lifo": "can go: the connection returned last is lent first anyway",
}


def propose_create_engine(plan: Plan) -> None:
    """Gives each call a `poolclass`."""
    if not re.search(r"\bsqlalchemy\b", plan.before):
        return
    for call in ast.walk(plan.tree):
        if not isinstance(call, ast.Call):
            continue
        name = last_name(call.func)
        if name == "create_async_engine":
            plan.say(call, "stays: an asyncio engine cannot use gevent")
        elif name == "engine_from_config":
            given = {one.arg: one.value for one in call.keywords}
            if not _is_left(plan, call, None, given.get("poolclass")):
                plan.say(call, "add poolclass=GeventPool here, or ?plugin=geventpool to the URL")
        elif name == "create_engine" and call.args:
            _engine(plan, call)


def _engine(plan: Plan, call: ast.Call) -> None:
    given = {one.arg: one.value for one in call.keywords if one.arg is not None}
    if "pool" in given:
        plan.say(call, "stays: it is given a pool that is made elsewhere")
        return
    if _is_left(plan, call, string(call.args[0]), given.get("poolclass")):
        return
    if "poolclass" in given:
        plan.replace(given["poolclass"], "GeventPool")
    else:
        last = max([*call.args, *(one.value for one in call.keywords)], key=plan.span)
        gap = ", "
        if last.lineno > call.lineno:
            gap = ",\n" + " " * _indent(plan, last)
        plan.insert_after(last, f"{gap}poolclass=GeventPool")
    if any(one.arg is None for one in call.keywords):
        plan.say(call, "the call takes **options: see that these have no poolclass of their own")
    plan.need(DOOR, "GeventPool")
    _explain(plan, call, given)


def _indent(plan: Plan, node: Any) -> int:
    line = plan.before.splitlines()[node.lineno - 1]
    return len(line) - len(line.lstrip())


def _is_left(plan: Plan, node: ast.AST, url: str | None, poolclass: ast.AST | None) -> bool:
    """Is it better left as it is? Says why."""
    name = last_name(poolclass)
    if name == "GeventPool":
        return True
    if name in _ON_PURPOSE:
        plan.say(node, f"stays: {name} is meant where connections must not be kept or shared")
        return True
    if url is not None and url.startswith("sqlite"):
        plan.say(node, "stays: SQLite has no server that connections would have to be saved of")
        return True
    if url is not None and re.match(r"mysql(\+mysqldb)?:", url):
        plan.say(
            node, "mysqlclient blocks all greenlets: use mysql+pymysql:// (pip install PyMySQL)"
        )
    if url is not None and re.match(r"postgres(ql)?(\+psycopg2)?:", url):
        plan.say(
            node, "psycopg2 needs psycogreen.gevent.patch_psycopg(), or use postgresql+psycopg://"
        )
    return False


def _explain(plan: Plan, node: ast.AST, given: Mapping[str, Any]) -> None:
    """What becomes of the arguments that QueuePool had."""
    size, overflow = given.get("pool_size"), given.get("max_overflow")
    pair = (number(size, 5), number(overflow, 10))
    plan.pools.append(pair)
    if size is None and overflow is None:
        plan.say(node, "the cap is 20 instead of 5 + 10; how many are kept is measured")
    elif pair[0] == 0 or pair[1] == -1:
        plan.say(node, "no cap, as before: better give a max_size that the server has room for")
    else:
        both = "pool_size + max_overflow"
        known = all(one is None or isinstance(one, ast.Constant) for one in (size, overflow))
        told = f"{both}, {sum(pair)}," if known else both
        plan.say(node, f"{told} is the hard cap; how many idle is measured, not pool_size")
    for name in given.keys() & _STAYS.keys():
        plan.say(given[name], f"{name} {_STAYS[name]}")


@dataclass
class _Given:
    """A setting as it is given: `NAME = …`, `x["NAME"] = …`, `f(NAME=…)` or `{"NAME": …}`."""

    name: str
    value: ast.expr
    statement: ast.stmt | None
    target: str
    scope: ast.AST


def propose_flask(plan: Plan) -> None:
    """Gives the engines of Flask-SQLAlchemy their pool."""
    found = list(_settings(plan, {_OPTIONS, _URI, *_OLD}))
    options = [one for one in found if one.name == _OPTIONS]
    old = [one for one in found if one.name in _OLD]
    for one in options:
        _engine_options(plan, one)
    if options:
        for one in old:
            plan.say(one.value, f"{one.name} is ignored by Flask-SQLAlchemy since 3.0: remove it")
        return
    scopes: set[int] = set()
    for one in found:
        if one.name != _URI or id(one.scope) in scopes:
            continue
        if (string(one.value) or "").startswith("sqlite"):
            plan.say(one.value, "stays: SQLite has no server that connections would be saved of")
            continue
        scopes.add(id(one.scope))
        _is_left(plan, one.value, string(one.value), None)
        _new_options(plan, one, [it for it in old if it.scope is one.scope])


def _engine_options(plan: Plan, one: _Given) -> None:
    if not isinstance(one.value, ast.Dict):
        plan.say(one.value, 'add "poolclass": GeventPool to these options')
        return
    given = {name: value for name, (_, value) in entries(one.value).items()}
    if _is_left(plan, one.value, None, given.get("poolclass")):
        return
    if "poolclass" in given:
        plan.replace(given["poolclass"], "GeventPool")
    elif one.value.values:
        first = one.value.keys[0]
        if first is None:
            plan.say(one.value, 'add "poolclass": GeventPool to these options')
            return
        gap = "\n" + " " * _indent(plan, first) if first.lineno > one.value.lineno else " "
        plan.insert_before(first, f'"poolclass": GeventPool,{gap}')
    else:
        plan.replace(one.value, '{"poolclass": GeventPool}')
    plan.need(DOOR, "GeventPool")
    _explain(plan, one.value, given)


def _new_options(plan: Plan, one: _Given, old: list[_Given]) -> None:
    """Options below the URI, with what old settings have meant."""
    if one.statement is None:
        plan.say(one.value, f'add {_OPTIONS} = {{"poolclass": GeventPool}} beside it')
        return
    options = {"poolclass": "GeventPool"}
    options.update({_OLD[it.name]: plan.text_of(it.value) for it in old})
    last = max((it.statement for it in [one, *old] if it.statement is not None), key=plan.span)
    kept = last if last is one.statement or not old else one.statement
    for it in old:
        if it.statement is not None:
            plan.remove_statement(it.statement)
            plan.say(
                it.value,
                f"{it.name} is ignored by Flask-SQLAlchemy since 3.0; the option is {_OLD[it.name]}",
            )
    target = one.target.replace(_URI, _OPTIONS)
    plan.insert_line_after(kept, display(f"{target} = ", options, kept.col_offset))
    plan.need(DOOR, "GeventPool")
    _explain(plan, one.value, {_OLD[it.name]: it.value for it in old})


def _settings(plan: Plan, names: set[str]) -> Iterator[_Given]:
    """Wherever one of these names is given a value, in the order of the source."""
    for scope in [plan.tree, *(one for one in ast.walk(plan.tree) if _is_scope(one))]:
        for statement in _body_of(scope):
            if isinstance(statement, ast.Assign):
                for target in statement.targets:
                    name = _name_of(target)
                    if name in names:
                        text = plan.text_of(target)
                        yield _Given(name, statement.value, statement, text, scope)
            for node in ast.walk(statement) if not _is_scope(statement) else ():
                if isinstance(node, ast.Dict):
                    for name, (_, value) in entries(node).items():
                        if name in names:
                            yield _Given(name, value, None, "", scope)
                elif isinstance(node, ast.Call):
                    for keyword in node.keywords:
                        if keyword.arg in names:
                            yield _Given(str(keyword.arg), keyword.value, None, "", scope)


def _is_scope(node: ast.AST) -> bool:
    return isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))


def _body_of(scope: Any) -> Iterator[ast.stmt]:
    """Its statements, also those in blocks, but not those of scopes inside."""
    waiting: list[Any] = list(scope.body)
    while waiting:
        statement = waiting.pop(0)
        yield statement
        if not _is_scope(statement):
            for name in ("body", "orelse", "finalbody"):
                waiting += getattr(statement, name, [])


def _name_of(target: ast.AST) -> str:
    if isinstance(target, ast.Subscript):
        return string(target.slice) or ""
    return last_name(target)
