"""One PostgreSQL for all tests of the database, and a fresh database for each."""

from __future__ import annotations

import gc
import shutil
import tempfile
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import blockon
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, globalLogPublisher

from repoman.database.pool import Pool
from tests.database.proxy import Proxy
from tests.postgres import drop_database, fresh_database, postgres_for_session


@pytest.fixture(scope="session")
def server_dsn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with postgres_for_session(reactor, tmp_path_factory.mktemp("postgres") / "state") as dsn:
        yield dsn


@pytest.fixture
def dsn(server_dsn: str) -> Iterator[str]:
    fresh = fresh_database(server_dsn)
    yield fresh
    drop_database(fresh)


def wait_for(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Run a fixture's coroutine; asynchronous fixtures cannot use one another."""
    blockon(Deferred.fromCoroutine(coroutine))


@contextmanager
def running(pool: Pool) -> Iterator[Pool]:
    wait_for(pool.start())
    yield pool
    wait_for(pool.stop())


@pytest.fixture
def pool(dsn: str) -> Iterator[Pool]:
    with running(Pool(reactor, dsn, size=4, wait=1.0)) as pool:
        yield pool


@pytest.fixture
def proxy(dsn: str, tmp_path: Path) -> Iterator[Proxy]:
    proxy = Proxy(reactor, dsn, tmp_path)
    wait_for(proxy.listen())
    yield proxy
    wait_for(proxy.refuse())


@pytest.fixture
def frail(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pool]:
    """A pool behind the proxy, whose limits are short."""
    monkeypatch.setattr("repoman.database.pool.GRACE", 0.3)
    with running(Pool(reactor, proxy.dsn, size=2, wait=1.0, statement_timeout=0.5)) as pool:
        yield pool


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[dict[str, Any]]]:
    """What is logged at warning and above.  What a test leaves in it is a mistake."""
    events: list[dict[str, Any]] = []

    def observe(event: dict[str, Any]) -> None:
        if event["log_level"] >= LogLevel.warn:
            events.append(event)

    globalLogPublisher.addObserver(observe)
    yield events
    gc.collect()  # tells of failures that nobody looked at
    globalLogPublisher.removeObserver(observe)
    assert events == []


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that every user can pass through, as /var/lib is."""
    path = Path(tempfile.mkdtemp(dir="/var/tmp"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path, ignore_errors=True)
