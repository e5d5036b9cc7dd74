"""What Django's cursors have to do for a pool: none goes on with a connection that was given back."""

from __future__ import annotations

import functools
from collections.abc import Hashable
from typing import Any

from django.db.backends.utils import CursorWrapper

from .errors import DjangoPoolClosed

_Base: Any = object


class _OfOneLoan(_Base):
    """To be put before a cursor class of Django's.

    Where each request has a connection of its own, a cursor that is kept for longer finds it closed. Here
    it would ask on a connection that is another's by now.
    """

    def __init__(self, cursor: Any, db: Any) -> None:
        super().__init__(cursor, db)
        self._loan = db._loan

    def callproc(self, *arguments: Any, **keywords: Any) -> Any:
        """As ever."""
        self._check()
        return super().callproc(*arguments, **keywords)

    def _execute(self, *arguments: Any) -> Any:
        if self._loan is not self.db._loan:
            self._check()
        return super()._execute(*arguments)

    def _executemany(self, *arguments: Any) -> Any:
        self._check()
        return super()._executemany(*arguments)

    def _check(self) -> None:
        if self._loan is not self.db._loan:
            raise DjangoPoolClosed(
                "this cursor is of no use any more: its connection was given back to the pool of "
                f"{self.db.alias!r}; make another one by connection.cursor()"
            )


class PooledCursor(_OfOneLoan, CursorWrapper):
    """Django's, of one loan."""


@functools.cache
def of_one_loan(kind: Hashable) -> Any:
    """A cursor class of Django's, such as that of a backend for debugging, of one loan."""
    theirs: Any = kind
    return type(theirs.__name__, (_OfOneLoan, theirs), {"__doc__": theirs.__doc__})
