"""What errors of MySQL and MariaDB mean, whatever DBAPI they come through."""

from __future__ import annotations

import re

# Too many connections, of all, of this user.
_TOO_MANY = (1040, 1203)
_USER_LIMIT = 1226  # also of queries per hour, for which no returned connection helps
# This server, or what it is to this session, does not take writes (any more).
_MYSQL_UNFIT = {
    1053,  # it shuts down
    1792,  # a transaction that is read only, as all are by the server's transaction_read_only
    1836,  # read-only mode
    1874,  # InnoDB in read-only mode, as in Aurora's readers
    3032,  # offline mode
    3100,  # group replication refuses the commit
}
_OPTION_PREVENTS = 1290  # of any option
_READ_ONLY_OPTION = re.compile("--(?:super[-_])?read[-_]only")
_UNKNOWN_COMMAND = 1047  # also of a Galera node outside of its cluster's majority


def mysql_code(error: BaseException) -> object:
    """An error's code, where PyMySQL and mysqlclient have it."""
    return error.args[0] if error.args else None


def is_mysql_full(error: BaseException) -> bool:
    """Does MySQL or MariaDB refuse a connection because there are too many?"""
    code = mysql_code(error)
    return code in _TOO_MANY or (code == _USER_LIMIT and "max_user_connections" in str(error))


def is_mysql_unfit(error: BaseException, code: object) -> bool:
    """Does MySQL or MariaDB say that it is not the one to write to (any more)?"""
    return (
        code in _MYSQL_UNFIT
        or (code == _OPTION_PREVENTS and _READ_ONLY_OPTION.search(str(error)) is not None)
        or (code == _UNKNOWN_COMMAND and "WSREP" in str(error))
    )
