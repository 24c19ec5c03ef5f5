"""The PROXY protocol: who is at the other end, as a proxy says, and nobody else."""

from __future__ import annotations

import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repoman.proxied import LONGEST_LINE, SIGNATURE, Header, read_header
from tests.server import Daemon, free_ports
from tests.test_monitoring import lines_of

PORTS = st.integers(0, 65535)
PAIRS = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.ip_addresses(v=4)),
    st.tuples(st.ip_addresses(v=6), st.ip_addresses(v=6)),
)


def line(source: IPv4Address | IPv6Address, other: object, port: int) -> bytes:
    return f"PROXY TCP{source.version} {source} {other} {port} 8443\r\n".encode()


def binary(
    source: IPv4Address | IPv6Address, other: IPv4Address | IPv6Address, port: int,
    more: bytes = b"", command: int = 0x21,
) -> bytes:  # fmt: skip
    rest = source.packed + other.packed + struct.pack("!HH", port, 8443) + more
    family = 0x11 if source.version == 4 else 0x21
    return SIGNATURE + struct.pack("!BBH", command, family, len(rest)) + rest


def shown(header: Header | None) -> tuple[object, ...]:
    assert header is not None
    assert header.peer is not None
    return ip_address(header.peer.host), header.peer.port, header.length


@given(PAIRS, PORTS, st.binary(max_size=100), st.booleans())
def test_a_header_is_read_at_its_last_byte_and_not_before(
    pair: tuple[IPv4Address, IPv4Address], port: int, more: bytes, old: bool
) -> None:
    header = line(*pair, port) if old else binary(*pair, port, more)
    assert shown(read_header(header + b"\x16\x03\x01")) == (pair[0], port, len(header))
    assert [read_header(header[:n]) for n in range(len(header))] == [None] * len(header)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_header_or_the_beginning_of_one_or_refused(data: bytes) -> None:
    with suppress(ValueError):
        read_header(data)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01\x02\x00",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
        b"PROXY TCP4 ::1 ::1 1 1\r\n",
        b"PROXY TCP6 fe80::1%x ::1 1 1\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 1\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 -1 1\r\n",
        b"PROXY TCP4 192.0.2.\xb2 192.0.2.2 1 1\r\n",
        b"PROXY " + b"x" * LONGEST_LINE,
        SIGNATURE + b"\x31\x11\x00\x00",
        SIGNATURE + b"\x21\x11\x00\x04abcd",
        SIGNATURE + b"\x21\x11\xff\xff",
    ],
)
def test_what_is_no_header_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_header(data)


@pytest.mark.parametrize(
    "data",
    [
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n",
        SIGNATURE + b"\x20\x00\x00\x00",
        binary(ip_address("192.0.2.1"), ip_address("192.0.2.2"), 1, command=0x20),
        SIGNATURE + b"\x21\x31\x00\x03abc",
    ],
)
def test_a_proxy_may_speak_for_itself_or_for_nobody(data: bytes) -> None:
    assert read_header(data + b"more") == Header(None, len(data))


# -- the real thing --

HASTY = """
import repoman.channel
repoman.channel.HEADER_DEADLINE = 1.0
from twisted.scripts.twistd import run
run()
"""


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon both of whose ports are for proxies; its own tests come as one."""
    directory = tmp_path_factory.mktemp("behind")
    [port, plain] = free_ports(2)
    daemon = Daemon(
        directory,
        server={
            "https": f"haproxy:tcp:{port}:interface=127.0.0.1",
            "http": f"haproxy:tcp:{plain}:interface=127.0.0.1",
        },
        log={"format": "json"},
    )
    (directory / "hasty.py").write_text(HASTY)
    daemon.twistd = [sys.executable, directory / "hasty.py"]
    daemon.inner, daemon.inner_plain = port, plain  # type: ignore[attr-defined]
    with haproxy(directory, {daemon.https: port, daemon.http: plain}), daemon.running():
        yield daemon


@contextmanager
def haproxy(directory: Path, ports: dict[int, int]) -> Iterator[None]:
    """A real haproxy in TCP mode, which looks every 100 ms whether we live."""
    if not shutil.which("haproxy"):
        pytest.skip("haproxy is not installed")
    text = "defaults\n mode tcp\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n"
    for version, (outside, inside) in zip(
        ("send-proxy-v2", "send-proxy"), ports.items(), strict=True
    ):
        text += (
            f"listen p{outside}\n bind 127.0.0.1:{outside}\n"
            f" server one 127.0.0.1:{inside} check inter 100 {version} source 127.0.0.1\n"
        )
    (directory / "haproxy.cfg").write_text(text)
    with (directory / "haproxy.log").open("wb") as log:
        process = subprocess.Popen(
            ["haproxy", "-db", "-f", directory / "haproxy.cfg"], stdout=log, stderr=log
        )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def test_the_clients_address_comes_through_haproxy_to_log_and_audit(behind: Daemon) -> None:
    admin = behind.admin
    connection = admin.connection()
    connection.source_address = ("127.0.0.77", 0)
    connection.request("POST", "/api/images", "name=through", {
        "Content-Type": "application/x-www-form-urlencoded"})  # fmt: skip
    assert connection.getresponse().status == 201
    connection.close()
    [noted] = lines_of(behind, "/api/images")
    assert (noted["peer"], noted["user"]) == ("127.0.0.77", admin.name)
    [row] = admin.ask("GET", "/api/audit?action=image.create").json
    assert row["address"] == "127.0.0.77"


def test_bytes_come_whole_through_haproxy(behind: Daemon) -> None:
    behind.admin.ask("POST", "/api/images", form={"name": "whole"})
    body = bytes(range(256)) * (1 << 14)
    target = "/api/images/raw/whole"
    assert behind.admin.ask("PUT", target, body=body).status == 200
    assert behind.admin.ask("GET", target).body == body


def test_a_health_check_of_haproxy_is_no_event(behind: Daemon) -> None:
    time.sleep(0.5)  # some checks, with LOCAL
    text = behind.log.read_text()
    assert "Traceback" not in text
    assert "handshake failed" not in text
    assert "PROXY header, cut" not in text.partition("[127.0.0.99]")[0]


def dial(port: int) -> socket.socket:
    return socket.create_connection(
        ("127.0.0.1", port), timeout=20, source_address=("127.0.0.99", 0)
    )


def is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1000) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("port", ["inner", "inner_plain"])
def test_who_does_not_begin_with_the_header_is_cut_with_a_line(behind: Daemon, port: str) -> None:
    before = len(behind.log.read_text())
    with dial(getattr(behind, port)) as connection:
        connection.sendall(b"GET /api/images HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert is_closed(connection)
    end = time.monotonic() + 10
    while "No PROXY header, cut: " not in (said := behind.log.read_text()[before:]):
        assert time.monotonic() < end, said
        time.sleep(0.05)
    assert "127.0.0.99" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("port", ["inner", "inner_plain"])
def test_a_header_without_end_is_cut_at_the_deadline_of_the_handshake(
    behind: Daemon, port: str
) -> None:
    begun = time.monotonic()
    with dial(getattr(behind, port)) as connection:
        for byte in b"PROXY TCP4 192.0.2":
            try:
                connection.sendall(bytes([byte]))
            except OSError:
                break
            time.sleep(0.1)
        assert is_closed(connection)
    assert 0.8 < time.monotonic() - begun < 10
    assert "Traceback" not in behind.log.read_text()


def test_a_header_may_come_in_pieces_and_refusals_name_whom_it_names(behind: Daemon) -> None:
    with dial(behind.inner) as connection:  # type: ignore[attr-defined]
        header = b"PROXY TCP6 2001:db8::7 2001:db8::1 5000 8443\r\n"
        connection.sendall(header[:3])
        time.sleep(0.1)
        connection.sendall(header[3:])
        context = ssl.create_default_context()
        with pytest.raises(ssl.SSLError):  # it does not know our CA, and says so
            context.wrap_socket(connection, server_hostname="localhost")
    end = time.monotonic() + 10
    while "[2001:db8::7]" not in behind.log.read_text():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_stop_does_not_wait_for_a_header(tmp_path: Path) -> None:
    [port] = free_ports(1)
    with (
        Daemon(tmp_path, server={"http": f"haproxy:tcp:{port}"}).running() as daemon,
        dial(port) as connection,
    ):
        connection.sendall(b"PROXY TCP4")
        time.sleep(0.2)
        begun = time.monotonic()
        daemon.stop()
        assert time.monotonic() - begun < 10
