"""Peers that break the rules, or have no end: each costs itself, and nobody else."""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.end_to_end.conftest import MIB
from tests.ledger import (
    ANSWER_WITHIN,
    PROMISED_LAG,
    Board,
    Figures,
    LateDaemon,
    Ledger,
    helper_of,
    pid_of,
    tampered,
    wait_for,
)
from tests.server import Person


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LateDaemon]:
    """A daemon with a limit for connections."""
    limits = {"connections": 300, "quota": "8MiB"}
    with LateDaemon(tmp_path_factory.mktemp("hostile"), limits=limits).running() as daemon:
        yield daemon


@pytest.fixture
def alice(own: LateDaemon) -> Person:
    person = own.newcomer()
    person.ask("POST", "/api/images", form={"name": "one"})
    person.ask("PUT", "/api/images/raw/one", body=b"old")
    return person


def dial(person: Person) -> ssl.SSLSocket:
    """A TLS connection to say anything on."""
    plain = socket.create_connection(("127.0.0.1", person.daemon.https), timeout=30)
    return person.tls.wrap_socket(plain, server_hostname="localhost")


SIZED = b"PUT /api/images/raw/one HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
CHUNKED = (
    b"PUT /api/images/raw/one HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
)


@pytest.mark.parametrize(
    "chunks",
    [
        b"zz\r\nhello\r\n0\r\n\r\n",
        b"-1\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello world\r\n0\r\n\r\n",
        b"5;" + b"x" * 100_000 + b"\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0\r\n" + b"Trailer: x\r\n" * 20_000,
    ],
)
def test_broken_chunks_are_the_clients_fault_and_change_nothing(
    own: LateDaemon, alice: Person, board: Board, chunks: bytes
) -> None:
    ledger = Ledger(own)
    with ledger.fault() as figures, dial(alice) as peer:
        with suppress(OSError):  # it need not read all of that
            peer.sendall(CHUNKED + chunks)
        answer = b""
        with suppress(OSError):
            while block := peer.recv(65536):
                answer += block
        assert answer.startswith(b"HTTP/1.1 4"), answer
    assert alice.ask("GET", "/api/images/raw/one").body == b"old"
    ledger.check()
    board(ledger, figures)


def test_a_body_without_an_end_ends_at_the_quota(
    own: LateDaemon, alice: Person, board: Board
) -> None:
    ledger, block = Ledger(own), b"10000\r\n" + bytes(0x10000) + b"\r\n"
    with ledger.fault() as figures, dial(alice) as peer:
        peer.sendall(CHUNKED)
        sent = 0
        try:
            while sent < 500 * MIB:
                peer.sendall(block)
                sent += 0x10000
        except OSError:
            pass
    assert sent < 100 * MIB, "it stopped reading"
    ledger.check()
    assert figures.stall < PROMISED_LAG
    board(ledger, figures)


@pytest.mark.parametrize("share", [0.0, 1, 0.5, -1, 1.0])
def test_a_client_that_is_cut_anywhere_leaves_nothing_behind(
    own: LateDaemon, alice: Person, board: Board, share: float
) -> None:
    ledger, content = Ledger(own), os.urandom(4 * MIB)
    count = int(share * len(content)) if isinstance(share, float) else share % len(content)
    peer = dial(alice)
    peer.sendall(SIZED % len(content) + content[:count])
    time.sleep(0.2)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.close()
    ledger.check_store()
    body = alice.ask("GET", "/api/images/raw/one").body
    assert body == b"old" or (count == len(content) and body == content)
    ledger.check()
    board(ledger)


@pytest.mark.directory_store
def test_a_client_that_leaves_during_the_commit_does_not_stop_it(
    own: LateDaemon, alice: Person
) -> None:
    ledger, content = Ledger(own), os.urandom(MIB)
    with tampered(helper_of(own), "fdatasync:delay_enter=2500000:when=1"):
        with dial(alice) as peer:
            peer.sendall(SIZED % len(content) + content)
            time.sleep(0.4)
        assert alice.ask("GET", "/api/images/raw/one").body == b"old"
        wait_for(lambda: alice.ask("GET", "/api/images/raw/one").body != b"old", 7)
    assert alice.ask("GET", "/api/images/raw/one").body == content
    ledger.check()


def test_idle_connections_beyond_the_limit_keep_nobody_out(
    own: LateDaemon, alice: Person, board: Board
) -> None:
    ledger = Ledger(own)
    with ledger.fault() as figures:
        idle = [socket.create_connection(("127.0.0.1", own.https)) for _ in range(400)]
        answered = own.newcomer().ask("GET", "/api/whoami")
        assert answered.status == 200
        for one in idle:
            one.close()
    assert figures.answer < ANSWER_WITHIN
    ledger.check()
    board(ledger, figures)


def test_without_descriptors_it_lives_on_and_heals(tmp_path: Path, board: Board) -> None:
    daemon = LateDaemon(tmp_path)
    daemon.twistd = ["/bin/sh", "-c", 'ulimit -n 160; exec "$@"', "sh", *daemon.twistd]
    with daemon.running():
        ledger, admin = Ledger(daemon), daemon.admin
        admin.ask("POST", "/api/images", form={"name": "one"})
        assert ledger.put(admin, "one", os.urandom(MIB)) == 200
        crowd = [socket.create_connection(("127.0.0.1", daemon.https)) for _ in range(300)]
        # Whoever was in before the crowd still gets answers, if only that it is too much.
        assert admin.ask("GET", "/api/whoami").status == 200
        assert ledger.put(admin, "one", b"x") in (200, 503)
        begun = time.monotonic()
        for one in crowd:
            one.close()
        wait_for(lambda: ledger.put(admin, "one", b"healed") == 200, 10)
        figures = Figures(heal=time.monotonic() - begun)
        assert daemon.newcomer().ask("GET", "/api/whoami").status == 200
        ledger.check()
    assert figures.heal < 5
    board(ledger, figures)


def test_it_takes_the_descriptors_that_it_may_have(tmp_path: Path) -> None:
    daemon = LateDaemon(tmp_path)
    daemon.twistd = ["/bin/sh", "-c", 'ulimit -Sn 200; exec "$@"', "sh", *daemon.twistd]
    with daemon.running():
        limits = Path(f"/proc/{pid_of(daemon)}/limits").read_text()
        [line] = [line for line in limits.splitlines() if line.startswith("Max open files")]
        assert int(line.split()[3]) > 200
