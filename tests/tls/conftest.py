"""A grid, a server that trusts it, and a look at the log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from attrs import define, field
from twisted.logger import formatEvent, globalLogPublisher

from repoman.tls import ServerTLS, TlsSettings
from tests.credentials import Grid, now
from tests.tls.door import VERSIONS, Door


@define
class Lookout:
    """A clock that can be put forward."""

    ahead: timedelta = timedelta(0)

    def __call__(self) -> datetime:
        return now() + self.ahead

    def begin_a_minute(self) -> None:
        """Go on to the next minute's begin: what is counted by the minute is not cut in two."""
        self.ahead += timedelta(seconds=60 - self().timestamp() % 60)


@define
class Log:
    """What was logged."""

    events: list[dict[str, Any]] = field(factory=list)

    def record(self, event: dict[str, Any]) -> None:
        self.events.append(event)

    @property
    def lines(self) -> list[str]:
        return [formatEvent(e) for e in self.events if e.get("log_namespace") == "repoman.tls"]

    @property
    def tracebacks(self) -> list[str]:
        return [formatEvent(e) for e in self.events if "log_failure" in e]


@pytest.fixture
def log() -> Iterator[Log]:
    """What is logged during the test."""
    log = Log()
    globalLogPublisher.addObserver(log.record)
    yield log
    globalLogPublisher.removeObserver(log.record)


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> int:
    """Both versions of TLS."""
    return VERSIONS[request.param]


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    return Grid(tmp_path)


@pytest.fixture
def clock() -> Lookout:
    return Lookout()


@pytest.fixture
def legacy() -> bool:
    """The option for legacy proxies; hostile suites run with both."""
    return False


@pytest.fixture
def settings(grid: Grid, legacy: bool) -> TlsSettings:
    certificate, key = grid.host("localhost", "127.0.0.1")
    return TlsSettings(certificate, key, grid.directory.path, legacy_proxies=legacy)


@pytest_twisted.async_yield_fixture
async def door(
    settings: TlsSettings, clock: Lookout, version: int, log: Log
) -> AsyncIterator[Door]:
    """A server with these settings, already open, visited with one version of TLS.

    Nothing that a visitor does may leave a traceback.
    """
    door = Door(ServerTLS(settings, clock), version, lambda: log.lines)
    door.tls.load()
    await door.open()
    yield door
    await door.close()
    assert log.tracebacks == []
