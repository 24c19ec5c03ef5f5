"""A grid, a scripted server, and a client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor

from repoman.client.credentials import CredentialFiles
from repoman.client.repository import RepositoryClient
from tests.client.scripted import ScriptedServer
from tests.credentials import Grid


@pytest.fixture(scope="session")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    grid = Grid(tmp_path_factory.mktemp("grid"))
    grid.host()
    grid.user().proxy().write(grid.place / "x509up")
    return grid


@pytest.fixture(scope="session")
def proxy(grid: Grid) -> CredentialFiles:
    path = grid.place / "x509up"
    return CredentialFiles(path, path, "test")


@pytest_twisted.async_yield_fixture
async def server(grid: Grid) -> AsyncIterator[ScriptedServer]:
    server = ScriptedServer()
    await server.start(reactor, grid.place / "hostcert.pem", grid.place / "hostkey.pem")
    yield server
    await server.stop()


@pytest_twisted.async_yield_fixture
async def client(
    grid: Grid, proxy: CredentialFiles, server: ScriptedServer
) -> AsyncIterator[RepositoryClient]:
    client = make_client(grid, proxy, server.url)
    yield client
    await client.close()


def make_client(
    grid: Grid, proxy: CredentialFiles | None, url: str, stall_seconds: float = 5.0
) -> RepositoryClient:
    """A client that tries again at once, and is not patient."""
    return RepositoryClient.with_files(
        reactor, url, proxy, Path(grid.directory.path),
        retry_delays=(0.0, 0.0), transfer_delays=(0.0, 0.0), stall_seconds=stall_seconds,
    )  # fmt: skip
