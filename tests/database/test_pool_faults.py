"""Transactions while the server or the way to it is failing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater

from repoman.database import link
from repoman.database.pool import Pool, Transaction
from repoman.errors import DatabaseUnavailable, OutcomeUnknown
from tests.database.proxy import SOCKET, Proxy
from tests.postgres import on_server

ONE = [(1,)]


@pytest.fixture(autouse=True)
def table(dsn: str) -> None:
    on_server(dsn, "CREATE TABLE thing (name text UNIQUE)")


@pytest.fixture(autouse=True)
def reports(logged: list[dict[str, Any]]) -> Iterator[Callable[[], int]]:
    """Count and forget the log's lines that the database cannot be reached."""

    def take() -> int:
        found = [event for event in logged if "cannot be reached" in event["log_format"]]
        for event in found:
            logged.remove(event)
        return len(found)

    yield take
    take()


def insert(name: str) -> Any:
    async def work(transaction: Transaction) -> None:
        await transaction.run("INSERT INTO thing VALUES (%s)", [name])

    return work


def stored(dsn: str) -> list[str]:
    return [name for (name,) in on_server(dsn, "SELECT name FROM thing ORDER BY name")]


async def ready(pool: Pool) -> None:
    assert await pool.query("SELECT 1") == ONE
    await deferLater(reactor, 0.05)  # for all of its connections


async def outage(pool: Pool) -> float:
    """Seconds until the pool works again."""
    begun = reactor.seconds()
    while reactor.seconds() < begun + 10:
        try:
            await pool.query("SELECT 1")
        except DatabaseUnavailable:
            await deferLater(reactor, 0.02)
        else:
            break
    return float(reactor.seconds() - begun)


@pytest_twisted.ensureDeferred
async def test_killed_backends_are_replaced_without_an_error(pool: Pool, dsn: str) -> None:
    await ready(pool)
    for _ in range(3):
        kill = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        assert len(on_server(dsn, f"{kill} WHERE application_name = 'repoman'")) == 4
        results = [pool.query("SELECT 1") for _ in range(8)]
        assert [await result for result in results] == [ONE] * 8
        await deferLater(reactor, 0.05)


@pytest_twisted.ensureDeferred
async def test_a_backend_killed_in_a_transaction_undoes_it(pool: Pool, dsn: str) -> None:
    async def work(transaction: Transaction) -> None:
        await transaction.run("INSERT INTO thing VALUES ('a')")
        await transaction.run("SELECT pg_terminate_backend(pg_backend_pid())")

    with pytest.raises(DatabaseUnavailable, match="broke") as caught:
        await pool.interact(work)
    assert type(caught.value) is DatabaseUnavailable
    assert stored(dsn) == []
    await pool.interact(insert("b"))
    assert stored(dsn) == ["b"]


@pytest_twisted.ensureDeferred
async def test_a_backend_killed_between_statements_undoes_it(pool: Pool, dsn: str) -> None:
    async def work(transaction: Transaction) -> None:
        row = await transaction.run_one("SELECT pg_backend_pid()")
        assert row is not None
        on_server(dsn, f"SELECT pg_terminate_backend({row[0]}, 1000)")
        await deferLater(reactor, 0.05)

    with pytest.raises(DatabaseUnavailable, match="broke") as caught:
        await pool.interact(work)
    assert not isinstance(caught.value, OutcomeUnknown)


@pytest_twisted.ensureDeferred
async def test_begin_is_repeated_once_on_a_stale_connection(
    frail: Pool, proxy: Proxy, dsn: str
) -> None:
    await ready(frail)
    proxy.cut_at(b"BEGIN", delivered=False)
    await frail.interact(insert("a"))
    assert stored(dsn) == ["a"]


@pytest_twisted.ensureDeferred
async def test_a_query_is_repeated_once_on_a_stale_connection(frail: Pool, proxy: Proxy) -> None:
    await ready(frail)
    for delivered in (False, True):
        proxy.cut_at(b"SELECT 1", delivered=delivered)
        assert await frail.query("SELECT 1") == ONE


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(("delivered", "kept"), [(True, ["a"]), (False, [])])
async def test_a_link_lost_at_commit_is_an_unknown_outcome(
    frail: Pool, proxy: Proxy, dsn: str, delivered: bool, kept: list[str]
) -> None:
    proxy.cut_at(b"COMMIT", delivered=delivered)
    runs = 0

    async def work(transaction: Transaction) -> None:
        nonlocal runs
        runs += 1
        await transaction.run("INSERT INTO thing VALUES ('a')")

    with pytest.raises(OutcomeUnknown):
        await frail.interact(work)
    assert runs == 1
    assert stored(dsn) == kept


@pytest_twisted.ensureDeferred
async def test_a_link_lost_before_commit_is_a_known_outcome_even_if_work_goes_on(
    frail: Pool, proxy: Proxy, dsn: str
) -> None:
    async def work(transaction: Transaction) -> None:
        await transaction.run("INSERT INTO thing VALUES ('a')")
        proxy.cut()
        with pytest.raises(DatabaseUnavailable):
            await transaction.run("INSERT INTO thing VALUES ('b')")

    with pytest.raises(DatabaseUnavailable) as caught:
        await frail.interact(work)
    assert not isinstance(caught.value, OutcomeUnknown)
    assert stored(dsn) == []


@pytest_twisted.ensureDeferred
async def test_a_failing_rollback_does_not_hide_the_error(frail: Pool, proxy: Proxy) -> None:
    proxy.cut_at(b"ROLLBACK", delivered=False)

    async def work(transaction: Transaction) -> None:
        await transaction.run("SELECT 1")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await frail.interact(work)
    assert await frail.query("SELECT 1") == ONE


@pytest_twisted.ensureDeferred
async def test_a_silent_server_costs_a_bounded_wait_and_the_pool_recovers(
    frail: Pool, proxy: Proxy
) -> None:
    await ready(frail)
    proxy.freeze()
    begun = reactor.seconds()
    works = [frail.interact(lambda t: t.run("SELECT 1")) for _ in range(6)]
    results = await DeferredList(works, consumeErrors=True)
    assert all(failure.check(DatabaseUnavailable) for _, failure in results)
    assert reactor.seconds() - begun < 2.2  # a wait for a link, and one for its answer
    with pytest.raises(DatabaseUnavailable):
        await frail.query("SELECT 1")
    proxy.thaw()
    assert await outage(frail) < 2


@pytest_twisted.ensureDeferred
async def test_what_every_request_asks_of_a_silent_server_fails_soon(proxy: Proxy) -> None:
    pool = Pool(reactor, proxy.dsn, size=2, wait=0.5)
    await pool.start()
    await ready(pool)
    assert await pool.ask("SELECT 1") == ONE
    proxy.freeze()
    begun = reactor.seconds()
    with pytest.raises(DatabaseUnavailable, match="does not answer"):
        await pool.ask("SELECT 1")
    assert reactor.seconds() - begun < 1.2, "not the time that one statement may take"
    proxy.thaw()
    assert await outage(pool) < 2
    await pool.stop()


@pytest_twisted.ensureDeferred
async def test_a_server_silent_in_a_statement_loses_the_link_at_the_deadline(
    frail: Pool, proxy: Proxy, dsn: str
) -> None:
    async def work(transaction: Transaction) -> None:
        await transaction.run("INSERT INTO thing VALUES ('a')")
        proxy.freeze()
        await transaction.run("SELECT 1")

    begun = reactor.seconds()
    with pytest.raises(DatabaseUnavailable, match="does not answer"):
        await frail.interact(work)
    assert reactor.seconds() - begun < 3
    proxy.thaw()
    assert await outage(frail) < 2
    assert stored(dsn) == []


@pytest_twisted.ensureDeferred
async def test_a_server_silent_at_commit_is_an_unknown_outcome(frail: Pool, proxy: Proxy) -> None:
    async def work(transaction: Transaction) -> None:
        await transaction.run("INSERT INTO thing VALUES ('a')")
        proxy.freeze()

    with pytest.raises(OutcomeUnknown):
        await frail.interact(work)
    proxy.thaw()
    await outage(frail)


@pytest_twisted.ensureDeferred
async def test_callers_that_leave_a_silent_server_do_not_block_the_process(
    frail: Pool, proxy: Proxy
) -> None:
    await ready(frail)
    proxy.freeze()
    callers = [frail.query("SELECT 1") for _ in range(2)]
    await deferLater(reactor, 0.1)
    begun = reactor.seconds()
    for caller in callers:
        caller.addErrback(lambda failure: None)
        caller.cancel()
    assert reactor.seconds() - begun < 0.05
    proxy.thaw()
    await outage(frail)


@pytest_twisted.ensureDeferred
async def test_an_absent_server_is_reported_once_and_found_when_it_comes(
    proxy: Proxy, reports: Callable[[], int]
) -> None:
    await proxy.refuse()
    pool = Pool(reactor, proxy.dsn, size=3, wait=0.3)
    await pool.start()
    for _ in range(4):
        with pytest.raises(DatabaseUnavailable, match="does not answer"):
            await pool.query("SELECT 1")
    assert not pool.is_ready
    assert reports() == 1
    await proxy.listen()
    assert await outage(pool) < 2
    assert pool.is_ready
    await pool.stop()


@pytest_twisted.ensureDeferred
async def test_a_pool_at_rest_notices_an_outage_and_its_end(frail: Pool, proxy: Proxy) -> None:
    await ready(frail)
    await proxy.refuse()
    await deferLater(reactor, 0.1)
    assert not frail.is_ready
    await proxy.listen()
    await deferLater(reactor, 1.5)
    assert frail.is_ready


@pytest_twisted.ensureDeferred
async def test_a_short_outage_under_load_costs_at_most_two_seconds_of_errors(
    proxy: Proxy, reports: Callable[[], int]
) -> None:
    pool = Pool(reactor, proxy.dsn, size=4, wait=1.0)
    await pool.start()
    await ready(pool)
    failures: list[float] = []
    end = reactor.seconds() + 4

    async def load() -> None:
        while reactor.seconds() < end:
            try:
                await pool.interact(lambda t: t.run("SELECT pg_sleep(0.01)"))
            except DatabaseUnavailable:
                failures.append(reactor.seconds())

    loads = [Deferred.fromCoroutine(load()) for _ in range(8)]
    await deferLater(reactor, 0.3)
    await proxy.refuse()
    await deferLater(reactor, 1.0)
    await proxy.listen()
    back = reactor.seconds()
    await DeferredList(loads)
    assert failures
    assert max(failures) - back < 1
    assert reports() == 1
    await pool.stop()


@pytest_twisted.ensureDeferred
async def test_a_server_that_accepts_and_says_nothing_is_given_up_and_tried_again(
    tmp_path: Path, dsn: str, monkeypatch: pytest.MonkeyPatch, reports: Callable[[], int]
) -> None:
    monkeypatch.setattr(link, "CONNECT_LIMIT", 0.3)
    proxy = Proxy(reactor, dsn, tmp_path)
    port = reactor.listenUNIX(str(tmp_path / SOCKET), Factory.forProtocol(Protocol))
    pool = Pool(reactor, proxy.dsn, size=1, wait=0.5)
    await pool.start()
    with pytest.raises(DatabaseUnavailable):
        await pool.query("SELECT 1")
    await port.stopListening()
    await proxy.listen()
    assert await outage(pool) < 2
    assert reports() == 1
    await pool.stop()
    await proxy.refuse()


@pytest_twisted.ensureDeferred
async def test_stopping_while_the_server_is_absent_or_silent_is_quick(proxy: Proxy) -> None:
    for trouble in (proxy.freeze, proxy.refuse):
        await Deferred.fromCoroutine(_done(trouble()))
        pool = Pool(reactor, proxy.dsn)
        await pool.start()
        await deferLater(reactor, 0.1)
        begun = reactor.seconds()
        await pool.stop()
        assert reactor.seconds() - begun < 0.1
        assert [reader for reader in reactor.getReaders() if isinstance(reader, link.Link)] == []


async def _done(result: Any) -> None:
    if result is not None:
        await result


@pytest_twisted.ensureDeferred
async def test_no_link_and_no_descriptor_leaks_in_a_long_outage(frail: Pool, proxy: Proxy) -> None:
    await ready(frail)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        proxy.cut()
        await deferLater(reactor, 0.1)
    await ready(frail)
    await deferLater(reactor, 0.3)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest_twisted.ensureDeferred
async def test_a_password_is_in_no_log_and_no_error(
    logged: list[dict[str, Any]], reports: Callable[[], int]
) -> None:
    pool = Pool(reactor, "postgresql://someone:hunter2@127.0.0.1:1/db", size=1, wait=0.2)
    await pool.start()
    with pytest.raises(DatabaseUnavailable) as caught:
        await pool.query("SELECT 1")
    await pool.stop()
    assert "hunter2" not in str(caught.value) + repr(logged) + repr(vars(caught.value))
    assert reports() == 1
