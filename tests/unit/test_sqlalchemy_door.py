"""GeventPool without a server: arguments, the URL, wrap, and what SQLAlchemy documents."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
import sqlalchemy
from sqlalchemy import engine_from_config, event, exc, text
from sqlalchemy.engine import Engine
from sqlalchemy.pool import NullPool, QueuePool, StaticPool

from geventpool import ConfigError, PoolDeadlock, PoolOverloaded, PoolTimeout
from geventpool.sqlalchemy import GeventPool, GeventPoolPlugin, wrap
from geventpool.testing import FakeDriver, settle

_engines: list[Engine] = []


def create_engine(*arguments: Any, **keywords: Any) -> Engine:
    """SQLAlchemy's, remembered so that the engine is disposed of in the end."""
    engine = sqlalchemy.create_engine(*arguments, **keywords)
    _engines.append(engine)
    return engine


@pytest.fixture
def url(tmp_path: Any) -> Iterator[str]:
    yield f"sqlite:///{tmp_path}/test.db"
    gc.collect()
    settle()
    while _engines:
        _engines.pop().dispose()
    settle()


def pool_of(driver: FakeDriver, **settings: Any) -> GeventPool:
    return GeventPool(driver.connect, **settings)


def test_create_engine_passes_every_argument_on(url: str) -> None:
    engine = create_engine(
        url,
        poolclass=GeventPool,
        pool_size=3,
        max_overflow=2,
        pool_timeout=7,
        pool_recycle=99,
        pool_pre_ping=True,
        pool_use_lifo=False,
        pool_reset_on_return="commit",
        min_idle=2,
        sizing="poisson",
        breakeven=9,
        ping_after=11,
        cleaner=False,
    )
    config = engine.pool.config
    assert (config.max_size, config.timeout, config.recycle, config.pre_ping) == (5, 7, 99, True)
    assert (config.use_lifo, config.reset_on_return, config.min_idle) == (False, "commit", 2)
    assert (config.sizing, config.breakeven, config.ping_after) == ("poisson", 9, 11)
    assert config.cleaner is False
    pool = engine.pool
    assert (pool.size(), pool.timeout(), pool.overflow()) == (3, 7, -3)
    again = pool.recreate()
    assert (again.config, again.size()) == (config, 3)


def test_the_figures_are_those_of_queue_pool(url: str) -> None:
    ours = create_engine(url, poolclass=GeventPool, pool_size=2, max_overflow=3).pool
    theirs = create_engine(url, poolclass=QueuePool, pool_size=2, max_overflow=3).pool
    for pool in (ours, theirs):
        held = [pool.connect() for _ in range(3)]
        held.pop().close()
        figures = (pool.size(), pool.checkedin(), pool.checkedout(), pool.overflow())
        assert figures == (2, 1, 2, 1)
    assert ours.status().startswith(theirs.status())


def test_no_cap_is_shown_as_queue_pool_shows_it(url: str) -> None:
    pool = create_engine(url, poolclass=GeventPool, pool_size=0).pool
    held = [pool.connect() for _ in range(30)]
    assert (pool.size(), pool.overflow(), pool.checkedout()) == (0, 0, 30)
    assert held


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("geventpool_pool_sise=5", "geventpool_pool_sise='5': there is no such option"),
        ("geventpool_max_size=many", "geventpool_max_size='many': give a whole number"),
        ("geventpool_cleaner=perhaps", "geventpool_cleaner='perhaps': give true or false"),
        ("geventpool_profile=produktion", "profile='produktion': give one of"),
        ("geventpool_timeout=soon", "geventpool_timeout='soon': give a number of seconds"),
        ("geventpool_max_size=-1", "max_size=-1: give 1 or more"),
    ],
)
def test_a_wrong_url_is_told_the_option_and_the_cure(url: str, query: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create_engine(f"{url}?plugin=geventpool&{query}")


def test_the_url_sets_everything_and_code_wins_over_it(url: str) -> None:
    query = (
        "plugin=geventpool&geventpool_pool_size=3&geventpool_max_overflow=1&geventpool_timeout=none"
        "&geventpool_use_lifo=false&geventpool_sizing=poisson&geventpool_ping_after=5"
    )
    engine = create_engine(f"{url}?{query}", min_idle=2)
    config = engine.pool.config
    assert (config.max_size, config.timeout, config.use_lifo) == (4, None, False)
    assert (config.sizing, config.ping_after, config.min_idle) == ("poisson", 5, 2)
    assert not any(key.startswith("geventpool") for key in engine.url.query)
    with engine.connect() as connection:
        assert connection.execute(text("select 1")).scalar_one() == 1
    assert create_engine(f"{url}?{query}", max_size=9).pool.config.max_size == 9
    assert type(create_engine(f"{url}?{query}", poolclass=NullPool).pool) is NullPool


def test_the_pace_of_growth_and_retirement_can_be_set_everywhere(url: str) -> None:
    knobs = {"core_size": 2, "retire_interval": 5.0, "retire_quantity": 3, "unload_timeout": 0.5}
    query = "&".join(f"geventpool_{name}={value}" for name, value in knobs.items())
    engines = [
        create_engine(url, poolclass=GeventPool, sizing="fixed", **knobs),
        create_engine(f"{url}?plugin=geventpool&geventpool_sizing=fixed&{query}"),
        wrap(create_engine(url), sizing="fixed", **knobs),
    ]
    for engine in engines:
        again: Any = engine.pool.recreate()
        for pool in (engine.pool, again):
            assert {name: getattr(pool.config, name) for name in knobs} == knobs
            assert "core_size=2" in repr(pool.core.policy)
        engine.dispose()
    asked = create_engine(url, poolclass=GeventPool, core_size=lambda: 7)
    assert asked.pool.config.core_size() == 7
    with pytest.raises(ConfigError, match="core_size"):
        create_engine(url, poolclass=GeventPool, core_size=-1)


def test_the_plugin_works_from_a_configuration_file(url: str) -> None:
    engine = engine_from_config({"sqlalchemy.url": f"{url}?plugin=geventpool"})
    assert isinstance(engine.pool, GeventPool)
    assert GeventPoolPlugin.__doc__


@pytest.mark.parametrize("poolclass", [QueuePool, NullPool])
def test_an_engine_is_wrapped_in_place(url: str, poolclass: Any) -> None:
    engine = create_engine(url, poolclass=poolclass)
    assert isinstance(wrap(engine, min_idle=0).pool, GeventPool)
    with engine.connect() as connection:
        assert connection.execute(text("select 1")).scalar_one() == 1
    pool = engine.pool
    assert wrap(engine, ping_after=3).pool is pool
    assert pool.config.ping_after == 3
    engine.dispose()
    assert isinstance(engine.pool, GeventPool)
    assert engine.pool.config.ping_after == 3


OLD = {
    "pool_size": 7,
    "max_overflow": 3,
    "pool_timeout": 4,
    "pool_recycle": 280,
    "pool_pre_ping": True,
}


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({}, (10, 4, 280, True)),
        ({"profile": "microservice"}, (15, 5, 1800, True)),
        ({"profile": "microservice", "timeout": 9, "max_size": 3}, (3, 9, 1800, True)),
        ({"profile": "testing"}, (1, 4, 3600, True)),
        ({"pool_size": 4}, (7, 4, 280, True)),
        ({"max_overflow": 0, "recycle": -1}, (7, 4, -1, True)),
        ({"max_size": 12, "pre_ping": False, "timeout": None}, (12, None, 280, False)),
        ({"profile": None, "pool_size": None}, (10, 4, 280, True)),
    ],
)
def test_a_wrapped_engine_keeps_what_the_settings_and_their_profile_leave_open(
    url: str, settings: dict[str, Any], kept: object
) -> None:
    # Said, because SQLAlchemy 1.4 gives a file of SQLite a pool without such settings.
    pool: Any = wrap(create_engine(url, poolclass=QueuePool, **OLD), **settings).pool
    for one in (pool, pool.recreate()):
        config = one.config
        assert (config.max_size, config.timeout, config.recycle, config.pre_ping) == kept


def test_a_wrapped_engine_logs_as_before_or_as_its_profile_says(url: str) -> None:
    assert wrap(create_engine(url)).pool.echo is None
    assert wrap(create_engine(url), profile="development").pool.echo is True
    engine = create_engine(url, echo_pool=False)
    assert wrap(engine, profile="development").pool.echo is False


def test_what_cannot_be_wrapped_is_refused_with_the_reason(url: str) -> None:
    with pytest.raises(ConfigError, match="StaticPool shares one connection"):
        wrap(create_engine("sqlite://", poolclass=StaticPool))
    with pytest.raises(ConfigError, match=r"made by sqlalchemy\.create_engine"):
        wrap("mysql://")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="min_idle"):
        wrap(create_engine(url), min_idle=-1)
    with pytest.raises(ConfigError, match="did you mean min_idle"):
        wrap(create_engine(url), min_idel=1)


def test_a_rollback_is_sent_when_the_driver_cannot_tell() -> None:
    driver = FakeDriver()
    pool = pool_of(driver)
    pool.connect().close()
    assert driver.connections[0].calls == ["rollback"]


def test_a_driver_that_can_tell_is_not_sent_a_rollback(url: str) -> None:
    engine = create_engine(url, poolclass=GeventPool)
    statements: list[str] = []
    event.listen(engine, "connect", lambda raw, _: raw.set_trace_callback(statements.append))
    raw = engine.raw_connection()
    raw.execute("create table t (x int)")
    raw.execute("insert into t values (1)")
    raw.close()
    engine.raw_connection().close()
    assert statements.count("ROLLBACK") == 1, "for the insert, and none for the second checkout"
    with engine.connect() as connection:
        assert connection.execute(text("select count(*) from t")).scalar_one() == 0


def test_a_listener_that_begins_a_transaction_during_the_reset_is_rolled_back(url: str) -> None:
    engine = create_engine(url, poolclass=GeventPool)
    with engine.begin() as connection:
        connection.execute(text("create table t (x int)"))

    @event.listens_for(engine, "reset")
    def begin_one(raw: Any, _record: Any, _state: Any) -> None:
        raw.execute("insert into t values (1)")

    raw = engine.raw_connection()
    raw.close()
    event.remove(engine, "reset", begin_one)
    with engine.connect() as connection:
        assert connection.execute(text("select count(*) from t")).scalar_one() == 0


def test_a_listener_that_raises_at_checkin_does_not_lose_the_place() -> None:
    driver = FakeDriver()
    pool = pool_of(driver, max_size=1)

    @event.listens_for(pool, "checkin")
    def fail(_raw: Any, _record: Any) -> None:
        raise RuntimeError("a listener's own")

    lent = pool.connect()
    with pytest.raises(RuntimeError):
        lent.close()
    assert pool.stats().in_use == 0
    event.remove(pool, "checkin", fail)
    pool.connect().close()


def test_a_collected_proxy_comes_back_by_itself_and_sends_nothing_from_the_finalizer() -> None:
    driver = FakeDriver()
    pool = pool_of(driver, max_size=1)
    pool.connect()
    gc.collect()
    assert driver.connections[0].calls == []
    assert pool.stats().in_use == 1
    settle()
    assert driver.connections[0].calls == ["rollback"]
    assert pool.stats().idle == 1


def test_dispose_closes_what_is_idle_and_what_comes_back_later_goes_by_itself() -> None:
    driver = FakeDriver()
    pool = pool_of(driver, sizing="adaptive", breakeven=0.001)
    idle, used = pool.connect(), pool.connect()
    idle.close()
    pool.dispose()
    assert [connection.is_open for connection in driver.connections] == [False, True]
    used.close()
    deadline = gevent.Timeout.start_new(5)
    while driver.open_connections:
        gevent.sleep(0)
    deadline.close()
    assert pool.stats().size == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # it is not closed, it is dropped
def test_an_engine_that_nobody_refers_to_any_more_is_collected(url: str) -> None:
    engine = create_engine(url, poolclass=GeventPool)
    with engine.connect():
        pass
    gone = weakref.ref(engine.pool)
    _engines.remove(engine)
    del engine
    settle()
    gc.collect()
    assert gone() is None


def test_an_error_of_connect_is_sqlalchemys_own(tmp_path: Any) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/no/such/folder/x.db", poolclass=GeventPool)
    with pytest.raises(exc.OperationalError, match="unable to open database file"):
        engine.connect()
    assert engine.pool.stats().size == 0


def test_what_the_pool_refuses_is_a_timeout_error_of_sqlalchemys_too(url: str) -> None:
    engine = create_engine(url, poolclass=GeventPool, max_size=1, max_waiting=0, pool_timeout=0.05)
    with engine.connect(), pytest.raises(PoolOverloaded) as overloaded:
        engine.connect()
    engine.pool.configure(max_waiting=None)
    with engine.connect(), pytest.raises(PoolDeadlock) as deadlock:
        engine.connect()
    held = gevent.spawn(engine.connect)
    settle()
    with pytest.raises(PoolTimeout) as late:
        engine.connect()
    held.get().close()
    for caught, why in ((overloaded, "overloaded"), (deadlock, "deadlock"), (late, "saturated")):
        assert isinstance(caught.value, exc.TimeoutError)
        assert caught.value.why == why


def test_an_engine_takes_back_what_an_ended_greenlet_held(url: str, caplog: Any) -> None:
    engine = create_engine(url, poolclass=GeventPool, max_size=1, reclaim_after=0.01)
    kept: list[Any] = []
    gevent.spawn(lambda: kept.append(engine.connect())).join()
    with engine.connect() as other:
        assert "a greenlet has ended while it held" in caplog.text
        with pytest.raises(exc.SQLAlchemyError):
            kept[0].execute(text("select 1"))
        kept[0].close()  # gives nothing back: it has nothing any more
        assert other.execute(text("select 1")).scalar_one() == 1
        assert engine.pool.stats().in_use == 1
    engine.pool.core.ledger.check()


def test_a_session_that_is_handed_on_is_owned_by_who_uses_it(url: str, caplog: Any) -> None:
    engine = create_engine(url, poolclass=GeventPool, reclaim_after=0.03)
    kept: list[Any] = []
    gevent.spawn(lambda: kept.append(engine.connect())).join()

    def stream() -> None:
        for _ in range(10):
            kept[0].execute(text("select 1"))
            gevent.sleep(0.01)
        kept[0].close()

    gevent.spawn(stream).get()
    assert not caplog.records
    assert engine.pool.stats().owners_ended == 0


def test_the_url_takes_the_settings_for_hard_times(url: str) -> None:
    options = "connect_timeout=3 cancel_deadline=0 reclaim_after=none max_waiting=9 shed_after=0.2"
    query = "&".join(f"geventpool_{option}" for option in options.split())
    config = create_engine(f"{url}?plugin=geventpool&{query}").pool.config
    assert (config.connect_timeout, config.cancel_deadline, config.reclaim_after) == (3, 0, None)
    assert (config.max_waiting, config.shed_after) == (9, 0.2)
    new = create_engine(f"{url}?plugin=geventpool&{query}").pool.recreate()
    assert new.config == config


def test_two_threads_that_open_at_once_do_not_want_the_same_record() -> None:
    """As in a program that is not monkey-patched, where connecting is done in threads."""

    class TakenMeanwhile(list):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return 1

    pool = pool_of(FakeDriver())
    pool._spares = TakenMeanwhile()
    pool.connect().close()
    assert pool.stats().open_errors == 0


def test_with_no_time_to_wait_what_is_idle_is_pinged_by_who_asks_as_in_queue_pool() -> None:
    driver = FakeDriver()
    pool = pool_of(driver, pool_size=2, max_overflow=0, timeout=0, ping_after=0)
    for _ in range(3):
        pool.connect().close()
    assert (len(driver.connections), pool.stats().pings) == (1, 2)
    driver.connections[0].is_open = False
    lent = [pool.connect(), pool.connect()]
    assert len({one.dbapi_connection for one in lent}) == 2
    with pytest.raises(PoolTimeout):
        pool.connect()
    for one in lent:
        one.close()
    assert pool.stats().closed == {"dead": 1}


def test_with_no_time_to_wait_a_place_whose_connection_is_being_closed_is_room() -> None:
    pool = pool_of(FakeDriver(), pool_size=2, max_overflow=0, timeout=0)
    for one in [pool.connect(), pool.connect()]:
        one.close()
    pool.core.expire_all()
    callers = [gevent.spawn(pool.connect) for _ in range(3)]
    settle()
    assert [caller.successful() for caller in callers] == [True, True, False]
    assert isinstance(callers[2].exception, PoolTimeout)
