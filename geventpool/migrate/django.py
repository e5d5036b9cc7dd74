"""Django's `DATABASES`, of Django's own backends, django-db-geventpool and django-db-connection-pool."""

from __future__ import annotations

import ast
from collections import defaultdict
from typing import Final

from .plan import Plan, display, entries, number, string

_POSTGRESQL, _MYSQL = "geventpool.django.postgresql", "geventpool.django.mysql"
_POSTGIS, _MYSQL_GIS = "geventpool.django.postgis", "geventpool.django.mysql_gis"
ENGINES: Final = {
    "django.db.backends.postgresql": _POSTGRESQL,
    "django.db.backends.postgresql_psycopg2": _POSTGRESQL,
    "django.db.backends.mysql": _MYSQL,
    "django.contrib.gis.db.backends.postgis": _POSTGIS,
    "django.contrib.gis.db.backends.mysql": _MYSQL_GIS,
    "django_db_geventpool.backends.postgresql_psycopg2": _POSTGRESQL,
    "django_db_geventpool.backends.postgresql_psycopg3": _POSTGRESQL,
    "django_db_geventpool.backends.postgis": _POSTGIS,
    "dj_db_conn_pool.backends.postgresql": _POSTGRESQL,
    "dj_db_conn_pool.backends.mysql": _MYSQL,
    "dj_db_conn_pool.backends.postgis": _POSTGIS,
}
"""Backends, and ours in their place."""

_POOL_OPTIONS = {
    "pool_size": "pool_size",
    "max_overflow": "max_overflow",
    "recycle": "recycle",
    "timeout": "timeout",
    "pre_ping": "pre_ping",
    "reset_on_return": "reset_on_return",
    "echo": None,
}
"""django-db-connection-pool's `POOL_OPTIONS`, in either case, with or without `POOL_`; ours."""

_PSYCOPG_POOL = {
    "min_size": "min_idle",
    "max_size": "max_size",
    "timeout": "timeout",
    "max_lifetime": "recycle",
    "max_waiting": "max_waiting",
}
"""Of Django's own `OPTIONS["pool"]`; ours."""


def propose_django(plan: Plan) -> None:
    """Gives each alias our ENGINE, and a `POOL` with what its pool was told."""
    for node in ast.walk(plan.tree):
        if isinstance(node, ast.Dict) and "ENGINE" in entries(node):
            _alias(plan, node)
    _assigned(plan)
    if not plan.is_changed:
        for node in ast.walk(plan.tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "env.db",
                "dj_database_url.config",
                "dj_database_url.parse",
            ):
                plan.say(
                    node,
                    'set ["ENGINE"] = "geventpool.django.postgresql" (or ".mysql") on what this '
                    'returns, and its ["CONN_MAX_AGE"] = 0',
                )


def _ours(plan: Plan, node: ast.AST) -> str | None:
    """Our ENGINE in the place of another; `None`: it has none, or is one."""
    before = string(node)
    if before is None or before.startswith("geventpool."):
        return None
    ours = ENGINES.get(before)
    if ours is None:
        if "sqlite" not in before and "." in before:
            plan.say(node, f"stays: there is no backend of ours in the place of {before}")
        return None
    plan.say(node, f"{before} connects anew or pools without cancelling: {ours} has a pool of ours")
    if ours in (_MYSQL, _MYSQL_GIS):
        plan.say(
            node,
            "mysqlclient blocks all greenlets: put pymysql.install_as_MySQLdb() into the settings",
        )
    return ours


def _alias(plan: Plan, node: ast.Dict) -> None:
    """An alias that is a dict's display."""
    found = entries(node)
    key, engine = found["ENGINE"]
    ours = _ours(plan, engine)
    if ours is None:
        return
    pool = _pool_settings(plan, found)
    text = repr_like(plan, engine, ours)
    if pool:
        is_alone = node.lineno != key.lineno
        gap = "\n" + " " * key.col_offset if is_alone else " "
        text += f",{gap}" + display('"POOL": ', pool, key.col_offset)
    plan.replace(engine, text)


def repr_like(plan: Plan, node: ast.AST, text: str) -> str:
    """A text in the quotes that are used there."""
    return f"'{text}'" if plan.text_of(node).startswith("'") else f'"{text}"'


def _pool_settings(plan: Plan, found: dict[str, tuple[ast.expr, ast.expr]]) -> dict[str, str]:
    """Takes away what the other pool was told, and returns what ours is to be told."""
    pool: dict[str, str] = {}
    for name, why in (
        ("CONN_MAX_AGE", "a greenlet would keep its connection between two requests"),
        ("CONN_HEALTH_CHECKS", "the pool sees by itself which connections have died"),
    ):
        if name in found:
            key, value = found[name]
            if name == "CONN_MAX_AGE" and number(value, -1) == 0:
                continue
            plan.remove_entry(key, value)
            plan.say(key, f"{name} goes: {why}")
    if "POOL_OPTIONS" in found:
        key, value = found["POOL_OPTIONS"]
        if isinstance(value, ast.Dict):
            _pool_options(plan, value, pool)
            plan.remove_entry(key, value)
        else:
            plan.say(key, "its settings belong into POOL, in small letters")
    if "OPTIONS" in found:
        key, value = found["OPTIONS"]
        if isinstance(value, ast.Dict) and _options(plan, value, pool):
            plan.remove_entry(key, value)
    return pool


def _pool_options(plan: Plan, node: ast.Dict, pool: dict[str, str]) -> None:
    for name, (key, value) in entries(node).items():
        small = name.lower()
        small = small if small in _POOL_OPTIONS else small.removeprefix("pool_")
        ours = _POOL_OPTIONS.get(small)
        if ours is None:
            plan.say(key, f"{name} goes: it has no meaning here")
        else:
            pool[ours] = plan.text_of(value)
    size = {name: value for name, (_, value) in entries(node).items()}
    lower = {name.lower(): value for name, value in size.items()}
    plan.pools.append((number(lower.get("pool_size"), 5), number(lower.get("max_overflow"), 10)))
    plan.say(
        node, "pool_size + max_overflow is the hard cap in each process; how many idle is measured"
    )


def _options(plan: Plan, node: ast.Dict, pool: dict[str, str]) -> bool:
    """Takes pools' settings out of `OPTIONS`; is nothing left in it?"""
    found = entries(node)
    gone: list[str] = []
    if "MAX_CONNS" in found:
        pool["max_size"] = plan.text_of(found["MAX_CONNS"][1])
        plan.pools.append((number(found["MAX_CONNS"][1], 4), 0))
        plan.say(found["MAX_CONNS"][0], "MAX_CONNS is max_size, which holds also under load")
        gone.append("MAX_CONNS")
    if "REUSE_CONNS" in found:
        plan.say(found["REUSE_CONNS"][0], "REUSE_CONNS goes: how many are kept is measured")
        gone.append("REUSE_CONNS")
    if "pool" in found:
        key, value = found["pool"]
        if isinstance(value, ast.Dict):
            for name, (_, one) in entries(value).items():
                if name in _PSYCOPG_POOL:
                    pool[_PSYCOPG_POOL[name]] = plan.text_of(one)
                else:
                    plan.say(one, f"{name} goes: it has no meaning here")
        plan.say(key, 'OPTIONS["pool"] goes: this ENGINE has a pool of its own, told by POOL')
        gone.append("pool")
    if gone and len(gone) == len(node.keys):
        return True
    for name in gone:
        plan.remove_entry(*found[name])
    return False


def _assigned(plan: Plan) -> None:
    """Aliases whose entries are assigned one by one: `DATABASES["default"]["ENGINE"] = …`."""
    aliases: dict[str, dict[str, ast.Assign]] = defaultdict(dict)
    for node in ast.walk(plan.tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
            target = node.targets[0]
            name = string(target.slice)
            if name in ("ENGINE", "OPTIONS", "CONN_MAX_AGE", "POOL_OPTIONS"):
                aliases[plan.text_of(target.value)][name] = node
    for base, found in aliases.items():
        ours = _ours(plan, found["ENGINE"].value) if "ENGINE" in found else None
        if ours is None:
            continue
        plan.replace(found["ENGINE"].value, repr_like(plan, found["ENGINE"].value, ours))
        age = found.get("CONN_MAX_AGE")
        if age is not None and number(age.value, -1) != 0:
            plan.replace(age.value, "0")
            plan.say(age, "CONN_MAX_AGE: a greenlet would keep its connection between requests")
        pool: dict[str, str] = {}
        last: ast.Assign | None = None
        for name, take in (("OPTIONS", _options), ("POOL_OPTIONS", _pool_options)):
            statement = found.get(name)
            if statement is not None and isinstance(statement.value, ast.Dict):
                is_empty = take(plan, statement.value, pool)
                if is_empty or name == "POOL_OPTIONS":
                    plan.replace(statement.value, "{}")
                last = statement
        if pool and last is not None:
            plan.insert_line_before(last, display(f'{base}["POOL"] = ', pool, last.col_offset))
