"""A slow name service is no reason to be deaf."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import deferLater

from repoman.database import child
from repoman.database.address import with_addresses
from repoman.database.pool import Pool
from repoman.errors import DatabaseUnavailable


def name_service(monkeypatch: pytest.MonkeyPatch, directory: Path, script: str) -> None:
    """Let ``getent`` be a shell script."""
    program = directory / "getent"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    path = f"{directory}:{child.ENVIRONMENT['PATH']}"
    monkeypatch.setitem(child.ENVIRONMENT, "PATH", path)


@pytest_twisted.ensureDeferred
async def test_every_address_of_the_host_is_tried(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answer = "echo 10.0.0.1 STREAM db; echo 10.0.0.1 DGRAM; echo fd00::1 STREAM; echo fd00::1 RAW"
    name_service(monkeypatch, tmp_path, f'[ "$*" = "ahosts db" ] && {{ {answer}; }}')
    assert await with_addresses(reactor, {"host": "db", "dbname": "x"}) == {
        "host": "db,db",
        "hostaddr": "10.0.0.1,fd00::1",
        "dbname": "x",
    }


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"host": "/run/postgresql"},
        {"host": "@abstract"},
        {"host": "10.0.0.1"},
        {"host": "fd00::1"},
        {"host": "a,b"},
        {"host": "db", "hostaddr": "10.0.0.1"},
    ],
)
async def test_what_is_no_name_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, parameters: dict[str, str]
) -> None:
    name_service(monkeypatch, tmp_path, "exit 1")
    assert await with_addresses(reactor, parameters) == parameters


@pytest_twisted.ensureDeferred
async def test_a_host_without_an_address_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, logged: list[dict[str, Any]]
) -> None:
    name_service(monkeypatch, tmp_path, "exit 2")
    pool = Pool(reactor, "postgresql://u:hunter2@nowhere/x", wait=0.3)
    await pool.start()
    with pytest.raises(DatabaseUnavailable):
        await pool.query("SELECT 1")
    await pool.stop()
    assert "no address for the host nowhere" in logged.pop()["why"]


@pytest_twisted.ensureDeferred
async def test_a_silent_name_service_blocks_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name_service(monkeypatch, tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 60")
    pool = Pool(reactor, "host=db", wait=0.2)
    await pool.start()
    begun = reactor.seconds()
    with pytest.raises(DatabaseUnavailable):
        await pool.query("SELECT 1")
    await pool.stop()
    await deferLater(reactor, 0.1)  # for the child to be reaped
    assert reactor.seconds() - begun < 1
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()
