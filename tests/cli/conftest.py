"""The real program as a child process, and a scripted server for it."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from attrs import define, field
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol

from tests.client.scripted import ScriptedServer
from tests.credentials import Grid

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="session")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    grid = Grid(tmp_path_factory.mktemp("grid"))
    grid.host()
    grid.user().proxy().write(grid.place / "x509up")
    return grid


@pytest_twisted.async_yield_fixture
async def server(grid: Grid) -> AsyncIterator[ScriptedServer]:
    server = ScriptedServer()
    await server.start(reactor, grid.place / "hostcert.pem", grid.place / "hostkey.pem")
    yield server
    await server.stop()


@define(eq=False)
class Program(ProcessProtocol):
    """A running ``repoman``.

    :ivar ended: fires with the exit code.
    """

    out: str = ""
    err: str = ""
    ended: Deferred[int] = field(factory=Deferred)
    _expected: list[tuple[str, Deferred[None]]] = field(factory=list)

    def outReceived(self, data: bytes) -> None:
        self.out += data.decode().replace("\r\n", "\n")
        for text, seen in [*self._expected]:
            if text in self.out and not seen.called:
                seen.callback(None)

    def errReceived(self, data: bytes) -> None:
        self.err += data.decode()

    def processEnded(self, reason: Any) -> None:
        self.ended.callback(-reason.value.signal if reason.value.signal else reason.value.exitCode)

    async def sees(self, text: str) -> None:
        """Wait until it has printed something."""
        seen: Deferred[None] = Deferred()
        seen.addTimeout(20, reactor)
        self._expected.append((text, seen))
        self.outReceived(b"")
        await seen


Start = Callable[..., Program]


@pytest.fixture
def start(grid: Grid, server: ScriptedServer, tmp_path: Path) -> Start:
    """Start ``repoman`` in ``tmp_path`` with some words; ``pty=True``: on a terminal."""
    home = tmp_path / "home"
    home.mkdir()

    def start(*words: str, pty: bool = False, **environ: str) -> Program:
        program = Program()
        command = [sys.executable, "-m", "repoman.cli", "-H", server.url, *words]
        environment = {
            "PATH": os.defpath,
            "PYTHONPATH": str(ROOT),
            "HOME": str(home),
            "TERM": "xterm",
            "X509_USER_PROXY": str(grid.place / "x509up"),
            "X509_CERT_DIR": str(grid.directory.path),
            **environ,
        }
        reactor.spawnProcess(  # type: ignore[attr-defined]
            program, sys.executable, command, environment, str(tmp_path), usePTY=pty
        )
        return program

    return start
