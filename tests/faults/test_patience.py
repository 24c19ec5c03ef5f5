"""How long the daemon waits for whom: slow, silent and vanished peers, a frozen database."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from repoman.channel import HEADER_DEADLINE, IDLE_DEADLINE
from repoman.patience import RATE_WINDOW
from tests.faults.conftest import MIB, Disk
from tests.ledger import (
    ANSWER_WITHIN,
    PROMISED_LAG,
    Board,
    LateDaemon,
    Ledger,
    children,
    frozen,
    pid_of,
    postmaster_of,
    wait_for,
)
from tests.server import Person

SPARE = 12.0
"""Seconds that a deadline may be late: looks are seconds apart."""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LateDaemon]:
    limits = {"connections": 2500, "uploads": 100}
    with LateDaemon(tmp_path_factory.mktemp("patience"), limits=limits).running() as daemon:
        yield daemon


def dial(person: Person) -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", person.daemon.https), timeout=30)
    return person.tls.wrap_socket(plain, server_hostname="localhost")


class Sloth(threading.Thread):
    """A peer that does something each second, until it is cut.

    :ivar lived: seconds until then.
    """

    def __init__(self, connection: socket.socket, each_second: Callable[[socket.socket], object]):
        super().__init__()
        self.lived = float("inf")
        self._connection = connection
        self._act = each_second
        self.start()

    def run(self) -> None:
        begun = time.monotonic()
        self._connection.settimeout(1)
        while time.monotonic() - begun < 4 * RATE_WINDOW:
            try:
                self._act(self._connection)
            except TimeoutError:
                continue
            except OSError:
                self.lived = time.monotonic() - begun
                break
            time.sleep(1)
        self._connection.close()


def say(text: bytes) -> Callable[[socket.socket], object]:
    """Say something each second, and notice the end."""

    def act(connection: socket.socket) -> None:
        connection.sendall(text)
        connection.settimeout(0.05)
        try:
            if connection.recv(100) == b"":
                raise ConnectionResetError
        except TimeoutError:
            pass
        connection.settimeout(1)

    return act


def listen(connection: socket.socket) -> None:
    """Only notice the end."""
    if connection.recv(65536) == b"":
        raise ConnectionResetError


def test_slow_and_silent_peers_are_cut_in_time_and_hold_up_nobody(
    own: LateDaemon, board: Board
) -> None:
    person, ledger = own.newcomer(), Ledger(own)
    for name in ("a", "b", "large"):
        person.ask("POST", "/api/images", form={"name": name})
    person.ask("PUT", "/api/images/raw/large", body=bytes(200 * MIB))
    put = b"PUT /api/images/raw/%s HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n"
    hello = bytes.fromhex("16030100c8010000c40303")  # the beginning of a ClientHello
    with ledger.fault() as figures:
        handshake = socket.create_connection(("127.0.0.1", own.https))
        handshake.sendall(hello)
        headers, body, silent, idle = (dial(person) for _ in range(4))
        headers.sendall(b"GET /api/whoami HTTP/1.1\r\nHost: x\r\n")
        body.sendall(put % b"a")
        silent.sendall(put % b"b" + b"x" * 1000)
        idle.sendall(b"GET /api/whoami HTTP/1.1\r\nHost: localhost\r\n\r\n")
        sloths = {
            "handshake": (Sloth(handshake, say(b"\0")), HEADER_DEADLINE),
            "headers": (Sloth(headers, say(b"X-A: b\r\n")), HEADER_DEADLINE),
            "body": (Sloth(body, say(b"x")), 2 * RATE_WINDOW),
            "silent upload": (Sloth(silent, listen), 2 * RATE_WINDOW),
            "idle": (Sloth(idle, listen), IDLE_DEADLINE),
        }
        # A download whose reader does not read: only its connection's end shows.
        stalled = dial(person)
        stalled.sendall(b"GET /api/images/raw/large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        port, begun = stalled.getsockname()[1], time.monotonic()
        cut = wait_for(lambda: not connected(own, port), 3 * RATE_WINDOW)
        assert cut < 2 * RATE_WINDOW + SPARE, "stalled download"
        stalled.close()
        for name, (sloth, deadline) in sloths.items():
            sloth.join()
            assert sloth.lived < deadline + SPARE, name
        assert time.monotonic() - begun < 4 * RATE_WINDOW
    ledger.check()
    assert figures.answer < ANSWER_WITHIN
    assert figures.stall < PROMISED_LAG
    board(ledger, figures)


def connected(daemon: LateDaemon, port: int) -> bool:
    """The daemon has an established connection from this port."""
    peer = f"{daemon.https:04X} 0100007F:{port:04X} 01"
    return peer in Path("/proc/net/tcp").read_text()


def test_2000_idle_connections_cost_little(own: LateDaemon, board: Board) -> None:
    person, ledger = own.newcomer(), Ledger(own)
    person.ask("POST", "/api/images", form={"name": "one"})
    crowd: list[ssl.SSLSocket] = []
    with ledger.fault() as figures:
        for _ in range(2000):
            crowd.append(dial(own.nobody))
            crowd[-1].sendall(b"GET /api/whoami HTTP/1.1\r\nHost: localhost\r\n\r\n")
            crowd[-1].recv(4096)
        assert ledger.put(person, "one", os.urandom(8 * MIB)) == 200
        assert own.newcomer().ask("GET", "/api/whoami").status == 200
        for one in crowd:
            one.close()
    opened = Path(f"/proc/{pid_of(own)}/fd")
    wait_for(lambda: len(list(opened.iterdir())) < 100, 10)
    assert len(list(opened.iterdir())) < 100
    ledger.check()
    assert figures.answer < ANSWER_WITHIN
    board(ledger, figures)


def test_frozen_for_a_minute_with_clients_that_leave_it_stays_awake(
    own: LateDaemon, board: Board
) -> None:
    person, ledger = own.newcomer(), Ledger(own)
    person.ask("POST", "/api/images", form={"name": "one"})
    assert ledger.put(person, "one", b"before") == 200
    postmaster = postmaster_of(own)
    with ledger.fault() as figures:
        with frozen(postmaster, *children(postmaster)):
            end = time.monotonic() + 60
            while time.monotonic() < end:
                leaving = dial(person)
                leaving.sendall(b"GET /api/whoami HTTP/1.1\r\nHost: localhost\r\n\r\n")
                time.sleep(0.2)
                leaving.close()
        begun = time.monotonic()
        wait_for(lambda: person.ask("GET", "/api/whoami").status == 200, 20)
        figures.heal = time.monotonic() - begun
    assert ledger.put(person, "one", b"after") == 200
    ledger.check()
    assert figures.answer < ANSWER_WITHIN
    assert figures.stall < PROMISED_LAG
    assert figures.heal < 3
    board(ledger, figures)


def test_a_slow_disk_and_a_fast_network(tmp_path: Path, slow_disk: Disk, board: Board) -> None:
    """400 MiB against 40 MB/s, up and down: memory stays flat, others get their answers."""
    (site := tmp_path / "site").mkdir()
    with LateDaemon(site, storage={"directory": slow_disk.place / "blobs"}).running() as daemon:
        ledger, admin = Ledger(daemon), daemon.admin
        admin.ask("POST", "/api/images", form={"name": "one"})
        content = os.urandom(400 * MIB)
        before = resident(daemon)
        with ledger.fault() as figures:
            assert ledger.put(admin, "one", content) == 200
            after = resident(daemon)
            for blob in (daemon.blobs / "data").rglob("?" * 32):
                with blob.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            ledger.check_bytes()
        assert max(after, resident(daemon)) - before < 32 * MIB
        ledger.check()
        assert figures.answer < ANSWER_WITHIN
        assert figures.stall < PROMISED_LAG
        board(ledger, figures)


def resident(daemon: LateDaemon) -> int:
    """The most resident memory of a daemon so far, in bytes."""
    lines = Path(f"/proc/{pid_of(daemon)}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
