"""The peers' tests that GeventPool is not meant to pass, each with the reason.

They are run all the same: one that passes is reported, so that it leaves this list.
"""

_ASYNCIO = "sets an asyncio dialect on the pool; an asyncio engine never gets a GeventPool"
_RETENTION = (
    "counts what QueuePool keeps idle (pool_size, and closes the overflow on return); what GeventPool "
    "keeps idle is the decision of its sizing policy"
)

SQLALCHEMY = {
    "test_checkin_event_gc[not_invalidate_conn_rec-has_terminate-is_asyncio]": _ASYNCIO,
    "test_checkin_event_gc[not_invalidate_conn_rec-not_has_terminate-is_asyncio]": _ASYNCIO,
    "test_checkin_event_gc_reference_cycle[is_asyncio]": _ASYNCIO,
    "test_connrec_invalidated_within_checkout_no_race": (
        "patches the private _ConnectionRecord.checkout, which GeventPool does not call"
    ),
    "test_hanging_connect_within_overflow": (
        "its creator works only in the thread that asks for a connection (a threading.local); "
        "GeventPool connects in a greenlet of its own, so that a connect outlives a killed caller"
    ),
    "test_overflow_no_gc": _RETENTION,
    "test_queuepool_close": _RETENTION,
    "test_queuepool_del": _RETENTION,
}

_DATACLASS = "fails with this SQLAlchemy whatever the pool: it refuses a dataclass with a __table__"

FLASK_SQLALCHEMY = {
    "test_explicit_table[db2]": _DATACLASS,
    "test_explicit_table[db4]": _DATACLASS,
}
