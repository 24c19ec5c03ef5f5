"""PostgreSQL frozen, killed and restarted under a running daemon."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.end_to_end.conftest import MIB
from tests.server import Daemon


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon whose database these tests mistreat."""
    with Daemon(tmp_path_factory.mktemp("faults")).running() as daemon:
        yield daemon


def postmaster(daemon: Daemon) -> int:
    lines = (daemon.directory / "state/database/data/postmaster.pid").read_text().splitlines()
    return int(lines[0])


def family(pid: int) -> list[int]:
    """A process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


@contextmanager
def frozen(daemon: Daemon) -> Iterator[None]:
    """PostgreSQL does not move while the block runs."""
    processes = family(postmaster(daemon))
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in processes:
            os.kill(pid, signal.SIGCONT)


def until_served(daemon: Daemon, limit: float) -> float:
    """Seconds until a request succeeds again."""
    begun = time.monotonic()
    while time.monotonic() - begun < limit:
        if daemon.admin.ask("GET", "/api/whoami").status == 200:
            return time.monotonic() - begun
        time.sleep(0.05)
    raise AssertionError(f"not healed after {limit} s")


def test_a_killed_postgresql_costs_seconds_and_no_500(own: Daemon) -> None:
    until_served(own, 10)
    os.kill(postmaster(own), signal.SIGKILL)
    seen = set()
    end = time.monotonic() + 15
    while time.monotonic() < end:
        status = own.admin.ask("GET", "/api/whoami").status
        seen.add(status)
        if status == 200 and 503 in seen:
            break
        time.sleep(0.02)
    assert seen == {200, 503} or seen == {200}
    until_served(own, 10)
    assert "Traceback" not in own.log.read_text()


def test_killed_backends_are_replaced_within_two_seconds(own: Daemon) -> None:
    until_served(own, 10)
    for pid in family(postmaster(own))[1:]:
        title = Path(f"/proc/{pid}/cmdline").read_bytes()
        if b"repoman repoman" in title:
            os.kill(pid, signal.SIGTERM)
    assert until_served(own, 5) < 2


def test_a_frozen_postgresql_gives_503_and_the_daemon_stays_awake(own: Daemon) -> None:
    until_served(own, 10)
    with frozen(own):
        # Clients that come and go, one after the other, while queries hang.
        for _ in range(5):
            connection = own.admin.connection()
            connection.putrequest("GET", "/api/whoami")
            connection.endheaders()
            time.sleep(0.1)
            connection.sock.close()
            connection.close()
        begun = time.monotonic()
        # No certificate, no database: the answer shows that the reactor runs.
        assert own.nobody.ask("GET", "/api/nothing").status == 404
        assert time.monotonic() - begun < 1
    assert until_served(own, 10) < 3


def test_an_upload_survives_a_frozen_postgresql(own: Daemon) -> None:
    until_served(own, 10)
    own.admin.ask("POST", "/api/images", form={"name": "cold"})
    content = os.urandom(8 * MIB)
    connection = own.admin.connection()
    connection.putrequest("PUT", "/api/images/raw/cold")
    connection.putheader("Content-Length", str(len(content)))
    connection.endheaders(content[:MIB])
    time.sleep(0.5)
    with frozen(own):
        connection.send(content[MIB:])
        time.sleep(2)
    assert connection.getresponse().status == 200
    connection.close()
    assert own.admin.ask("GET", "/api/images/raw/cold").body == content


def test_a_stop_with_a_frozen_postgresql_is_still_a_stop(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    daemon.start()
    processes = family(postmaster(daemon))
    with frozen(daemon):
        assert daemon.process is not None
        connection = daemon.admin.connection()
        connection.putrequest("GET", "/api/whoami")
        connection.endheaders()
        time.sleep(0.3)
        daemon.process.terminate()
        time.sleep(1)
        connection.close()
    daemon.stop()
    assert not [pid for pid in processes if Path(f"/proc/{pid}").exists()]
