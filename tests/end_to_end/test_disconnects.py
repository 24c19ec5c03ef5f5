"""Whoever leaves in the middle of an answer costs no traceback, and is never logged as served."""

from __future__ import annotations

import itertools
import os
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from tests.ledger import LateDaemon, wait_for
from tests.server import Person

SIZE = 6 << 20
VERSIONS = {"plain": None, "TLS 1.2": ssl.TLSVersion.TLSv1_2, "TLS 1.3": ssl.TLSVersion.TLSv1_3}
RESET = struct.pack("ii", 1, 0)
NUMBERS = itertools.count()
OVERHEAD = 20_000
"""Bytes of the head, and of what TLS adds, that may count as not taken."""

LAST = 60_000
"""Bytes that are missing where somebody leaves in the last chunk."""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LateDaemon]:
    """A daemon that logs, with an image for everybody and a long list of others."""
    place = tmp_path_factory.mktemp("leaving")
    with LateDaemon(place, log={"access": place / "access.log"}).running() as daemon:
        admin = daemon.admin
        admin.ask("POST", "/api/images", form={"name": "one", "unauthenticated_access": "true"})
        assert admin.ask("PUT", "/api/images/raw/one", body=os.urandom(SIZE)).status == 200
        yield daemon


def dial(person: Person, version: ssl.TLSVersion | None) -> socket.socket:
    """A connection whose kernel takes little ahead of us."""
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
    plain.settimeout(30)
    plain.connect(("127.0.0.1", person.daemon.https if version else person.daemon.http))
    if version is None:
        return plain
    context = person.tls
    context.minimum_version = context.maximum_version = version
    return context.wrap_socket(plain, server_hostname="localhost")


def take(peer: socket.socket, count: int) -> None:
    """Read so many bytes."""
    while count > 0:
        data = peer.recv(min(count, 65536))
        assert data
        count -= len(data)


def reset(peer: socket.socket) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    peer.close()


def close(peer: socket.socket) -> None:
    peer.close()


def say_goodbye(peer: socket.socket) -> None:
    """Send a close_notify, and read on for a moment what still comes."""
    peer.setblocking(False)
    if isinstance(peer, ssl.SSLSocket):
        with suppress(OSError):
            peer.unwrap()
    peer.close()


def say_no_more(peer: socket.socket) -> None:
    """Close the half that sends."""
    peer.shutdown(socket.SHUT_WR)
    time.sleep(0.02)
    peer.close()


WAYS = [reset, close, say_goodbye, say_no_more]


def line_of(daemon: LateDaemon, mark: str) -> dict[str, str]:
    """What the access log says of the one request that has ``mark`` in its address."""
    log = daemon.directory / "access.log"

    def found() -> list[str]:
        return [line for line in log.read_text().splitlines() if mark in line]

    wait_for(found, 10)
    [line] = found()
    return dict(word.split("=", 1) for word in line.split(" ") if "=" in word)


@pytest.mark.parametrize("leave", WAYS)
@pytest.mark.parametrize("version", VERSIONS)
def test_an_answer_that_was_left_is_never_logged_as_complete(
    own: LateDaemon, version: str, leave: Callable[[socket.socket], None]
) -> None:
    path = f"/api/images/raw/{own.admin.name}/one"
    for more in ("", "Range: bytes=7-\r\n", "Connection: close\r\n"):
        for taken in (1, SIZE // 2, SIZE - LAST - 300_000, SIZE - LAST):
            mark = f"left-{next(NUMBERS)}"
            peer = dial(own.nobody, VERSIONS[version])
            head = f"GET {path}?{mark}. HTTP/1.1\r\nHost: localhost\r\n{more}\r\n"
            peer.sendall(head.encode())
            take(peer, taken)
            leave(peer)
            if more.startswith("Connection") and taken > 1:
                continue  # we close first: what the kernel has taken counts
            said = line_of(own, f"{mark}.")
            assert said["complete"] == "false", said
            assert max(0, taken - OVERHEAD) <= int(said["bytes"]) < SIZE - 7, said
    assert "Traceback" not in own.log.read_text()


@pytest.mark.parametrize("leave", WAYS)
@pytest.mark.parametrize("version", VERSIONS)
def test_nor_is_one_that_the_kernel_took_whole(
    own: LateDaemon, version: str, leave: Callable[[socket.socket], None]
) -> None:
    path, mark = f"/api/images/raw/{own.admin.name}/one", f"part-{next(NUMBERS)}"
    peer = dial(own.nobody, VERSIONS[version])
    fields = "Host: localhost\r\nRange: bytes=7-60006\r\n\r\n"
    peer.sendall(f"GET {path}?{mark}. HTTP/1.1\r\n{fields}".encode())
    take(peer, 1)
    leave(peer)
    said = line_of(own, f"{mark}.")
    assert said["complete"] == "false", said
    assert int(said["bytes"]) < 60_000


@pytest.mark.parametrize("version", VERSIONS)
def test_an_answer_that_was_taken_is_logged_as_complete(own: LateDaemon, version: str) -> None:
    path = f"/api/images/raw/{own.admin.name}/one"
    for length in (1, 70_000, 1 << 20, SIZE):
        for leave in WAYS:
            mark = f"whole-{next(NUMBERS)}"
            peer = dial(own.nobody, VERSIONS[version])
            fields = f"Host: localhost\r\nRange: bytes=0-{length - 1}\r\n\r\n"
            peer.sendall(f"GET {path}?{mark}. HTTP/1.1\r\n{fields}".encode())
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += peer.recv(1)
            take(peer, length)
            if leave is reset:  # which also forgets what our kernel has not yet acknowledged
                line_of(own, f"{mark}.")
            leave(peer)
            said = line_of(own, f"{mark}.")
            assert (said["complete"], said["bytes"]) == ("true", str(length)), said
    assert "Traceback" not in own.log.read_text()


TARGETS = {
    "an image": "GET /api/images/raw/{admin}/one",
    "its end": "GET /api/images/raw/{admin}/one",
    "its head": "HEAD /api/images/raw/{admin}/one",
    "nothing": "GET /api/nothing",
    "a list": "GET /api/images",
    "users": "GET /api/users",
    "a page": "GET /",
    "events": "GET /activity/transfers",
    "an upload": "PUT /api/images/raw/one",
}


@pytest.mark.parametrize("version", ["TLS 1.2", "TLS 1.3"])
@pytest.mark.parametrize("target", TARGETS)
def test_whoever_leaves_at_whatever_moment_costs_no_traceback(
    own: LateDaemon, version: str, target: str
) -> None:
    person, line = own.admin, TARGETS[target].format(admin=own.admin.name)
    body = "Content-Length: 1000000\r\n" if target == "an upload" else ""
    span = "Range: bytes=-300000\r\n" if target == "its end" else ""
    request = f"{line} HTTP/1.1\r\nHost: localhost\r\n{body}{span}\r\n".encode()
    for leave in WAYS:
        for pause in (0.0, 0.005, 0.05):
            for count in (1, 3):
                peer = dial(person, VERSIONS[version])
                peer.sendall(request * count)
                time.sleep(pause)
                with suppress(OSError):
                    leave(peer)
    assert person.ask("GET", "/api/whoami").status == 200
    assert "Traceback" not in own.log.read_text()
    assert "Unhandled" not in own.log.read_text()


def test_who_says_goodbye_and_reads_on_holds_no_connection(own: LateDaemon) -> None:
    peer = dial(own.nobody, ssl.TLSVersion.TLSv1_3)
    mark = f"goodbye-{next(NUMBERS)}"
    path = f"/api/images/raw/{own.admin.name}/one?{mark}."
    peer.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    time.sleep(0.1)
    peer.setblocking(False)
    with suppress(OSError):
        peer.unwrap()  # type: ignore[attr-defined]
    raw = socket.socket(fileno=os.dup(peer.fileno()))
    raw.settimeout(10)
    with raw, suppress(ConnectionResetError):
        while raw.recv(1 << 20):
            pass
    assert line_of(own, f"{mark}.")["complete"] == "false"
