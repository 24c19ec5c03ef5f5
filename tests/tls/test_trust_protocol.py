"""What a client may try with TLS itself: other handshakes, other records, odd names."""

from __future__ import annotations

import socket
import ssl
import struct
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
import pytest_twisted
from OpenSSL import SSL

from tests.credentials import Grid
from tests.server import Daemon, Person
from tests.tls.conftest import Log
from tests.tls.door import QUESTION, Door, client_context


@pytest_twisted.ensureDeferred
async def test_no_renegotiation(grid: Grid, door: Door, version: int) -> None:
    """A second handshake could put another certificate under a connection already judged."""
    visit = await door.visit(grid.user().proxy())
    if version == SSL.TLS1_2_VERSION:
        assert visit.handle.renegotiate()
    first = visit.peer
    assert first is not None
    with suppress(AssertionError):  # the client's OpenSSL may give up
        await visit.again()
    assert visit.peer is first or visit.peer == first
    visit.leave()


@pytest.mark.parametrize(
    "name",
    [b"localhost", b"x.example.org", b"x" * 255, b"127.0.0.1", b"\xff\xfe", b"a\nb", b"..", b"*"],
)
@pytest_twisted.ensureDeferred
async def test_the_name_that_a_client_asks_for_changes_nothing(
    door: Door, grid: Grid, name: bytes
) -> None:
    proxy = grid.user().proxy()
    context = client_context(proxy, version=door.version)
    visit = await door.visit(None, context=context, server_name=name)
    visit.leave()
    assert visit.peer is not None, visit.alert
    assert visit.peer.identity is not None


def hello(body: bytes) -> bytes:
    """A record of the handshake, in the clear."""
    return b"\x16\x03\x01" + struct.pack(">H", len(body)) + body


def client_hello(version: ssl.TLSVersion) -> bytes:
    """How a client begins."""
    context = ssl.create_default_context()
    context.minimum_version = context.maximum_version = version
    sent = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname="localhost").do_handshake()
    return sent.read()


GOODBYE = b"\x15\x03\x03\x00\x02\x01\x00"
HEARTBEAT = b"\x18\x03\x03\x00\x03\x01\x40\x00"
NO_HANDSHAKE = {
    "heartbeat": HEARTBEAT,
    "heartbeat after a beginning": hello(b"\x01\x00\x01\xfc\x03\x03") + HEARTBEAT,
    "application data": b"\x17\x03\x03\x00\x05hello",
    "change cipher spec": b"\x14\x03\x03\x00\x01\x01" * 40,
    "alert": b"\x15\x03\x03\x00\x02\x02\x28",
    "goodbye": GOODBYE,
    "goodbye in TLS 1.2": client_hello(ssl.TLSVersion.TLSv1_2) + GOODBYE,
    "goodbye in TLS 1.3": client_hello(ssl.TLSVersion.TLSv1_3) + GOODBYE,
    "key update": b"\x16\x03\x03\x00\x05\x18\x00\x00\x01\x01",
    "finished": hello(b"\x14\x00\x00\x0c" + bytes(12)),
    "certificate": hello(b"\x0b\x00\x00\x03\x00\x00\x00"),
    "a hello without end": hello(b"\x01\xff\xff\xff" + bytes(1000)),
    "an empty record": b"\x16\x03\x01\x00\x00" * 50,
    "a record too large": b"\x16\x03\x01\xff\xff" + bytes(70000),
    "SSL 2": b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + bytes(37),
    "SSL 3": b"\x16\x03\x00\x00\x2f\x01\x00\x00\x2b\x03\x00" + bytes(41),
    "plain HTTP": QUESTION,
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "a proxy protocol header": b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n",
    "nothing": b"",
}  # fmt: skip


@pytest.mark.parametrize("what", NO_HANDSHAKE)
def test_what_is_no_handshake_is_cut(daemon: Daemon, what: str) -> None:
    before = daemon.log.stat().st_size
    with socket.create_connection(("127.0.0.1", daemon.https), timeout=30) as one:
        one.sendall(NO_HANDSHAKE[what])
        one.shutdown(socket.SHUT_WR)
        try:
            while one.recv(4096):
                pass
        except ConnectionResetError:
            pass
    assert daemon.admin.ask("GET", "/api/whoami").status == 200
    said = daemon.log.read_bytes()[before:]
    assert b"Traceback" not in said
    assert said.count(b"\n") <= 2, said


def s_client(daemon: Daemon, person: Person, *options: str) -> list[str]:
    """OpenSSL's own client, as this person: a line of K, or R, asks for new keys, or all anew."""
    return [
        "openssl", "s_client", "-connect", f"localhost:{daemon.https}", "-CApath",
        str(daemon.ca_directory), "-cert", str(person.proxy), "-key", str(person.proxy),
        "-cert_chain", str(person.proxy), *options,
    ]  # fmt: skip


def told(
    daemon: Daemon, person: Person, *options: str, say: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        s_client(daemon, person, *options), input=say, capture_output=True, timeout=60, check=False
    )


def test_a_flood_of_key_updates_costs_a_connection_at_most(daemon: Daemon, tmp_path: Path) -> None:
    person, out = daemon.newcomer(), tmp_path / "out"
    with out.open("wb") as file:
        flood = subprocess.Popen(
            s_client(daemon, person, "-tls1_3"), stdin=subprocess.PIPE, stdout=file, stderr=file
        )
        assert flood.stdin is not None
        with suppress(BrokenPipeError):
            for _ in range(300):
                flood.stdin.write(b"K\n")
                flood.stdin.flush()
                time.sleep(0.003)
        assert person.ask("GET", "/api/whoami").json["user_name"] == person.name
        flood.kill()
        flood.wait()
    assert out.read_bytes().count(b"KEYUPDATE") > 20
    assert "Traceback" not in daemon.log.read_text()


def test_no_renegotiation_at_the_daemon(daemon: Daemon) -> None:
    done = told(daemon, daemon.newcomer(), "-tls1_2", say=b"R\nR\n")
    assert b"no renegotiation" in done.stderr + done.stdout
    assert b"Secure Renegotiation IS supported" in done.stdout


def test_no_session_is_resumed_and_no_early_data_taken(daemon: Daemon, tmp_path: Path) -> None:
    person, saved, early = daemon.newcomer(), tmp_path / "session", tmp_path / "early"
    ask = b"GET /api/whoami HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    early.write_bytes(ask)
    for version in ("-tls1_2", "-tls1_3"):
        first = told(daemon, person, version, "-sess_out", str(saved), "-ign_eof", say=ask)
        assert b"200 OK" in first.stdout
        assert b"New, TLS" in first.stdout
        assert version == "-tls1_3" or b"Session-ID: \n" in first.stdout  # none to come back to
        if not saved.exists():
            continue  # no ticket was given at all
        again = told(daemon, person, version, "-sess_in", str(saved), "-ign_eof", say=ask)
        assert b"Reused" not in again.stdout
        assert b"200 OK" in again.stdout
        hasty = told(
            daemon, person, version, "-sess_in", str(saved), "-early_data", str(early),
        )  # fmt: skip
        assert b"Early data was accepted" not in hasty.stdout
        saved.unlink()


def test_a_client_that_offers_to_authenticate_later_is_anonymous_now(daemon: Daemon) -> None:
    """Post-handshake authentication (RFC 8446, 4.6.2) is never asked for."""
    context = ssl.create_default_context(capath=str(daemon.ca_directory))
    context.post_handshake_auth = True
    with (
        socket.create_connection(("localhost", daemon.https)) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as one,
    ):
        one.sendall(b"GET /api/whoami HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = one.recv(4096)
    assert answer.startswith(b"HTTP/1.1 403")
    assert b"You showed no certificate" in answer


def test_compression_and_old_ciphers_are_not_to_be_had(daemon: Daemon) -> None:
    for options in (["-tls1_1"], ["-tls1_2", "-cipher", "AES128-SHA:AES256-GCM-SHA384:@SECLEVEL=0"],
                    ["-tls1_2", "-cipher", "aNULL:eNULL:@SECLEVEL=0"]):  # fmt: skip
        done = told(daemon, daemon.admin, *options)
        assert b"Cipher is (NONE)" in done.stdout or done.returncode
    done = told(daemon, daemon.admin, "-tls1_2", "-comp")
    assert b"Compression: NONE" in done.stdout


@pytest_twisted.ensureDeferred
async def test_who_hangs_up_in_mid_handshake_leaves_nothing(door: Door, log: Log) -> None:
    for size in (1, 5, 11):
        one = socket.create_connection(("127.0.0.1", door.number))
        one.sendall(hello(b"\x01\x00\x01\xfc\x03\x03")[:size])
        one.close()
    visit = await door.visit(None)
    visit.leave()
    assert log.tracebacks == []
