"""A slow name service is no reason to be deaf."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from psycopg2.extensions import make_dsn, parse_dsn
from twisted.internet import reactor
from twisted.internet.task import deferLater

from repoman.database import child
from repoman.database.address import servers, with_addresses
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
    assert await with_addresses(reactor, {"host": "db", "dbname": "x"}) == [
        {"host": "db", "hostaddr": "10.0.0.1", "dbname": "x"},
        {"host": "db", "hostaddr": "fd00::1", "dbname": "x"},
    ]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"host": "a"}, [{"host": "a"}]),
        ({"host": "a,b", "user": "u"}, [{"host": "a", "user": "u"}, {"host": "b", "user": "u"}]),
        (
            {"host": "a,b", "port": "1,2"},
            [{"host": "a", "port": "1"}, {"host": "b", "port": "2"}],
        ),
        ({"host": "a,b", "port": "1"}, [{"host": "a", "port": "1"}, {"host": "b", "port": "1"}]),
        ({"hostaddr": "::1,::2"}, [{"hostaddr": "::1"}, {"hostaddr": "::2"}]),
    ],
)
def test_every_server_of_a_list_is_asked_by_itself(
    given: dict[str, str], found: list[dict[str, str]]
) -> None:
    assert servers(given) == found


@pytest_twisted.ensureDeferred
async def test_a_server_that_is_there_is_found_behind_those_that_are_not(dsn: str) -> None:
    there = parse_dsn(dsn)
    for hosts in (
        f"/nowhere,{there['host']}", f"127.0.0.1,{there['host']}", f"{there['host']},/nowhere",
    ):  # fmt: skip
        several = make_dsn(dsn, host=hosts, target_session_attrs="read-write")
        pool = Pool(reactor, several, size=2)
        await pool.start()
        assert await pool.interact(lambda t: t.run("SELECT pg_is_in_recovery()")) == [(False,)]
        await pool.stop()


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"host": "/run/postgresql"},
        {"host": "@abstract"},
        {"host": "10.0.0.1"},
        {"host": "fd00::1"},
        {"host": "db", "hostaddr": "10.0.0.1"},
    ],
)
async def test_what_is_no_name_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, parameters: dict[str, str]
) -> None:
    name_service(monkeypatch, tmp_path, "exit 1")
    assert await with_addresses(reactor, parameters) == [parameters]


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
