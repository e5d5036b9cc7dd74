"""What errors and statements of MySQL and MariaDB mean, whatever DBAPI they go through."""

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

# `SET TRANSACTION …` and `SET @@transaction_…` are for the next transaction only, whoever begins it, and
# no flag of the server's tells of them.
_SET = re.compile(
    rb"(?:\s|/\*(?!M?!)[^*]*\*+(?:[^/*][^*]*\*+)*/|(?:--|\#)[^\n]*\n)*(?:set\b|/\*M?!)",
    re.IGNORECASE,
)
_FOR_THE_NEXT = re.compile(rb"set\b[^;]*(?:\btransaction|tx_)")
_END = re.compile(rb"\s*(?:commit|rollback)\s*;?\s*$", re.IGNORECASE)
_MULTI_STATEMENTS = 0x10000  # CLIENT.MULTI_STATEMENTS


def sets_for_the_next(query: bytes, client_flags: int) -> bool:
    """May it set something for the next transaction? Rather yes than no: a rollback settles it."""
    if _SET.match(query) is None and not client_flags & _MULTI_STATEMENTS:
        return False
    lowered = query.lower()
    is_about = b"transaction" in lowered or b"tx_" in lowered  # most are not, and that is soon seen
    return is_about and _FOR_THE_NEXT.search(lowered) is not None


def ends_transaction(query: bytes) -> bool:
    """Is it a COMMIT or a ROLLBACK, and nothing else?"""
    return _END.match(query) is not None


def mysql_code(error: BaseException) -> object:
    """An error's code; PyMySQL and mysqlclient have it as the first argument."""
    code = getattr(error, "errno", None)
    return error.args[0] if code is None and error.args else code


def is_mysql_full(error: BaseException) -> bool:
    """Does MySQL or MariaDB refuse a connection because there are too many?"""
    code = mysql_code(error)
    return code in _TOO_MANY or (code == _USER_LIMIT and "max_user_connections" in str(error))


def is_mysql_unfit(error: BaseException) -> bool:
    """Does MySQL or MariaDB say that it is not the one to write to (any more)?"""
    code = mysql_code(error)
    return (
        code in _MYSQL_UNFIT
        or (code == _OPTION_PREVENTS and _READ_ONLY_OPTION.search(str(error)) is not None)
        or (code == _UNKNOWN_COMMAND and "WSREP" in str(error))
    )
