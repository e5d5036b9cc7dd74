"""The peers' tests that GeventPool is not meant to pass, each with the reason.

They are run all the same: one that passes is reported, so that it leaves this list.
"""

_ASYNCIO = "sets an asyncio dialect on the pool; create_async_engine refuses a GeventPool"
_AT_ONCE = (
    "one greenlet holds all connections and waits for another: GeventPool tells it at once that none "
    "can come (PoolDeadlock, a TimeoutError), and does not wait for the time-out first"
)

SQLALCHEMY = {
    "PoolEventsTest::test_checkin_event_gc[not_invalidate_conn_rec-has_terminate-is_asyncio]": (
        _ASYNCIO
    ),
    "PoolEventsTest::test_checkin_event_gc[not_invalidate_conn_rec-not_has_terminate-is_asyncio]": (
        _ASYNCIO
    ),
    "PoolEventsTest::test_checkin_event_gc_reference_cycle[is_asyncio]": _ASYNCIO,
    "QueuePoolTest::test_connrec_invalidated_within_checkout_no_race": (
        "patches the private _ConnectionRecord.checkout, which GeventPool does not call"
    ),
    "QueuePoolTest::test_dispose_closes_pooled": (
        "what comes back to a disposed QueuePool stays there, for want of a flag, as the test says; "
        "GeventPool closes it, so that an engine's old pool keeps nothing"
    ),
    "QueuePoolTest::test_timeout": _AT_ONCE,
    "QueuePoolTest::test_hanging_connect_within_overflow": (
        "its creator works only in the thread that asks for a connection (a threading.local); "
        "GeventPool connects in a greenlet of its own, so that a connect outlives a killed caller"
    ),
}

SQLALCHEMY_1_4 = SQLALCHEMY | {
    "PoolEventsTest::test_checkin_event_gc[not_has_terminate-is_asyncio]": _ASYNCIO,
    "QueuePoolTest::test_timeout_subsecond_precision": _AT_ONCE,
}

IN_TIME = {"QueuePoolTest::test_timeout", "QueuePoolTest::test_timeout_subsecond_precision"}
"""They pass, or not, by how busy the machine is."""

_WHICH_POOL = "asks which pool Flask-SQLAlchemy gives an engine, and here it is always another"

FLASK_SQLALCHEMY = {
    "TestCreateEngine::test_pool_class_default": _WHICH_POOL,
    "TestCreateEngine::test_pool_class_nullpool": _WHICH_POOL,
}

_OWN_POOL = "asks for Django's own pool by OPTIONS['pool'], which our ENGINE refuses and says why"
_OWN_POOL_TESTS = "backends.postgresql.tests.Tests."

DJANGO = {
    f"{_OWN_POOL_TESTS}test_connect_pool": _OWN_POOL,
    f"{_OWN_POOL_TESTS}test_connect_pool_with_timezone": _OWN_POOL,
    f"{_OWN_POOL_TESTS}test_connect_pool_setting_ignored_for_psycopg2": _OWN_POOL,
    f"{_OWN_POOL_TESTS}test_pool_check_can_be_overridden": _OWN_POOL,
    f"{_OWN_POOL_TESTS}test_pooling_health_checks": _OWN_POOL,
    f"{_OWN_POOL_TESTS}test_pooling_not_support_persistent_connections": _OWN_POOL,
    "gis_tests.inspectapp.tests.OGRInspectTest.test_time_field": (
        "is skipped: it looks the ENGINE's name up in a table of its own"
    ),
}
