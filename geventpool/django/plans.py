"""Prepared plans for Django: `add_prepare_target(queryset or SQL)`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from django.core.exceptions import EmptyResultSet, FullResultSet
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.models import QuerySet

from geventpool.errors import ConfigError
from geventpool.plans import PlanLost, Target, Targets, execute

from .alias_pool import Loan
from .errors import DjangoPlanLost

_targets: dict[str, Targets] = {}


def add_prepare_target(statement: Any, alias: str | None = None) -> Target:
    """Has a statement prepared once in each connection of an alias, and run by its plan.

    Connects only if Django has to know the server's version to write a queryset's SQL. The statement is
    recognised by its text: a queryset of the same shape with other values, and another page of it, is
    the same one.

    Args:
        statement: a queryset; or SQL as it is given to `cursor.execute`, with its placeholders.
        alias: by default the queryset's own, or `"default"`.

    Raises:
        ConfigError: it cannot be prepared, or the alias has no pool.
    """
    if isinstance(statement, QuerySet):
        alias = alias or statement.db
        try:
            statement, _ = statement.query.get_compiler(using=alias).as_sql()
        except (EmptyResultSet, FullResultSet):
            cure = "give a queryset that asks the database something"
            raise ConfigError("statement", statement.query, cure) from None
    alias = alias or DEFAULT_DB_ALIAS
    if not hasattr(connections[alias], "open_connection"):
        raise ConfigError("alias", alias, "its ENGINE has no geventpool; give it one of ours")
    return _targets.setdefault(alias, Targets()).add(statement)


def targets_of(alias: str) -> Targets | None:
    """What is to be prepared in an alias's connections."""
    return _targets.get(alias)


class PreparingCursor:
    """A backend's cursor, but targets are run by their plans.

    Args:
        make: makes the cursor for everything else.
        make_planned: makes the one for targets.
        loan: the connection.
        targets: see above.
    """

    def __init__(
        self,
        make: Callable[[], Any],
        make_planned: Callable[[], Any],
        loan: Loan,
        targets: Targets,
    ) -> None:
        self._usual = self._cursor = make()
        self._planned: Any = None
        self._make_planned = make_planned
        self._loan = loan
        self._targets = targets

    def execute(self, sql: Any, params: Any = None) -> Any:
        """Runs it, by its plan if it is a target. Switches greenlets.

        Raises:
            DjangoPlanLost: the plan is gone, and the transaction with it; an `OperationalError`.
        """
        found = self._targets.find(sql, params)
        if found is None:
            self._cursor = self._usual
            return self._usual.execute(sql, params)
        if self._planned is None:
            self._planned = self._make_planned()
        self._cursor = self._planned
        loan = self._loan
        try:
            return execute(self._planned, loan.connection, *found, loan.session.prepared)
        except PlanLost as error:
            loan.session.has_lost_plan = True
            raise DjangoPlanLost(str(error)) from error.__cause__

    def close(self) -> None:
        """Closes both."""
        self._usual.close()
        if self._planned is not None:
            self._planned.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._cursor)

    def __enter__(self) -> PreparingCursor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
