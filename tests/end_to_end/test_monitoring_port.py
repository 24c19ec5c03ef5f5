"""Any account of the machine reaches the monitoring port, and does not stop the service by it."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress

import pytest

from repoman.metrics import WATCH_SECONDS
from tests.ledger import PROMISED_LAG, LateDaemon, pid_of, status
from tests.server import ask_plain, free_ports

MIB = 2**20
FORM = b"Content-Type: application/x-www-form-urlencoded\r\n"
MULTIPART = b"Content-Type: multipart/form-data; boundary=x\r\n"
SIZED = b"Host: x\r\nContent-Length: %d\r\n\r\n" % (100 * MIB)
CHUNKED = b"Host: x\r\nTransfer-Encoding: chunked\r\n\r\n"
LINE = b" /metrics HTTP/1.1\r\n"
CHUNK = b"8000\r\n" + b"a=b&" * 8192 + b"\r\n"


class Monitored(LateDaemon):
    monitoring: int

    @property
    def memory(self) -> int:
        """Bytes of memory that the daemon has."""
        lines = status(pid_of(self)).splitlines()
        [line] = [line for line in lines if line.startswith("VmRSS")]
        return int(line.split()[1]) * 1024


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitored]:
    [port] = free_ports(1)
    endpoint = {"endpoint": f"tcp:{port}:interface=127.0.0.1"}
    daemon = Monitored(tmp_path_factory.mktemp("monitored"), metrics=endpoint)
    daemon.monitoring = port
    with daemon.running():
        yield daemon


@contextmanager
def undisturbed(daemon: Monitored) -> Iterator[None]:
    """Others are served, in time and memory, while the block runs."""
    daemon.admin.ask("GET", "/api/whoami")
    begun, before = time.monotonic(), daemon.memory
    yield
    assert daemon.admin.ask("GET", "/api/whoami").status == 200
    assert ask_plain(f"http://127.0.0.1:{daemon.monitoring}/healthz").text == "ok\n"
    _, stall = daemon.latest(begun)
    assert stall < PROMISED_LAG
    assert daemon.memory - before < 50 * MIB
    assert "Traceback" not in daemon.log.read_text()


def said(peer: socket.socket) -> bytes:
    """All that comes until the end."""
    found = b""
    with suppress(OSError):
        while data := peer.recv(65536):
            found += data
    return found


def send(peer: socket.socket, head: bytes, body: bytes) -> None:
    """Send 100 MiB of body, as far as it is taken."""
    with suppress(OSError):
        peer.sendall(head)
        for _ in range(100 * MIB // len(body)):
            peer.sendall(body)


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"POST" + LINE + FORM + SIZED, b"a=b&" * 8192),
        (b"POST" + LINE + FORM + CHUNKED, CHUNK),
        (b"POST" + LINE + MULTIPART + SIZED, b"--x\r\n\r\n" * 8192),
        (b"POST" + LINE + SIZED, b"a=b&" * 8192),
        (b"POST" + LINE + FORM + b"Expect: 100-continue\r\n" + SIZED, b"a=b&" * 8192),
        (b"PUT" + LINE + SIZED, bytes(32768)),
        (b"PATCH" + LINE + CHUNKED, CHUNK),
        (b"BREW" + LINE + FORM + SIZED, b"a=b&" * 8192),
        (b"GET" + LINE + FORM + SIZED, b"a=b&" * 8192),
        (b"GET" + LINE, b"X-Many: lines\r\n" * 2048),
        (b"GET" + LINE, b"X" * 65536),
        (b"GET /" + b"x" * 65536, b"x" * 65536),
    ],
)
def test_no_body_is_read_at_the_monitoring_port(own: Monitored, head: bytes, body: bytes) -> None:
    with undisturbed(own), socket.create_connection(("127.0.0.1", own.monitoring), 30) as peer:
        sending = threading.Thread(target=send, args=(peer, head, body))
        sending.start()
        answer = said(peer)
        sending.join()
    expected = b"200" if head.startswith(b"GET /metrics HTTP/1.1\r\nC") else b"4"
    assert answer.startswith(b"HTTP/1.1 " + expected) or not answer, answer[:200]


def test_hasty_scrapes_wait_for_each_other(own: Monitored) -> None:
    many = (b"GET" + LINE + b"Host: x\r\n\r\n") * 2000
    with undisturbed(own), ExitStack() as stack:
        for _ in range(15):
            peer = stack.enter_context(socket.create_connection(("127.0.0.1", own.monitoring)))
            peer.settimeout(1)
            with suppress(OSError):
                peer.sendall(many)
        end = time.monotonic() + 2
        while time.monotonic() < end:
            own.admin.ask("GET", "/api/whoami")


def test_idle_connections_at_the_monitoring_port_are_few_and_so_are_their_lines(
    own: Monitored,
) -> None:
    before = own.log.read_text().count("\n")
    with ExitStack() as stack:
        with undisturbed(own):
            peers = [
                stack.enter_context(socket.create_connection(("127.0.0.1", own.monitoring), 5))
                for _ in range(300)
            ]
            for peer in peers:
                with suppress(OSError):
                    peer.sendall(b"GET" + LINE)
            assert ask_plain(f"http://127.0.0.1:{own.monitoring}/metrics").status == 200
        open_now = 0
        for peer in peers:
            peer.setblocking(False)
            try:
                open_now += peer.recv(1) != b""
            except BlockingIOError:
                open_now += 1
            except OSError:
                pass
        assert open_now <= 20
    assert own.log.read_text().count("\n") - before <= 61


def ask_in_haste(port: int, until: threading.Event) -> None:
    """Ask for the metrics again and again, on a new connection where the last one was cut."""
    while not until.is_set():
        with suppress(OSError), closing(http.client.HTTPConnection("127.0.0.1", port, 5)) as one:
            while not until.is_set():
                one.request("GET", "/metrics")
                one.getresponse().read()


def test_who_asks_in_haste_keeps_no_probe_out(own: Monitored) -> None:
    until, answered = threading.Event(), 0
    hasty = [threading.Thread(target=ask_in_haste, args=(own.monitoring, until)) for _ in range(25)]
    for one in hasty:
        one.start()
    try:
        time.sleep(0.5)
        for path in ("readyz", "metrics") * 20:
            with suppress(OSError, http.client.HTTPException):
                answered += ask_plain(f"http://127.0.0.1:{own.monitoring}/{path}").status == 200
    finally:
        until.set()
        for one in hasty:
            one.join()
    assert answered >= 36


@pytest.mark.parametrize("path", [b"/metrics", b"/healthz", b"/readyz", b"/" + b"x" * 15000])
def test_no_request_at_the_monitoring_port_is_a_line_of_the_log(
    own: Monitored, path: bytes
) -> None:
    before = own.log.read_text()
    with socket.create_connection(("127.0.0.1", own.monitoring), 5) as peer:
        for method in (b"HEAD", b"GET", b"POST"):
            peer.sendall(method + b" " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            assert peer.recv(65536).startswith(b"HTTP/1.1 ")
    assert own.log.read_text() == before


@pytest.mark.parametrize("endpoint", ["https", "http", "monitoring"])
def test_answers_that_nobody_fetches_are_no_fault_of_ours(own: Monitored, endpoint: str) -> None:
    admin, name = own.admin, f"unfetched-{endpoint}"
    admin.ask("POST", "/api/images", form={"name": name, "unauthenticated_access": "true"})
    admin.ask("PUT", f"/api/images/raw/{name}", body=bytes(60000))
    path = "/metrics" if endpoint == "monitoring" else f"/api/images/raw/{admin.name}/{name}"
    words = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() * 1000
    with socket.create_connection(("localhost", getattr(own, endpoint)), 1) as peer:
        if endpoint == "https":
            peer = own.nobody.tls.wrap_socket(peer, server_hostname="localhost")
            peer.settimeout(1)
        with suppress(OSError):
            peer.sendall(words)
        assert admin.ask("GET", "/api/transfers").status == 200
        assert ask_plain(f"http://127.0.0.1:{own.monitoring}/metrics").status == 200
        time.sleep(1.1 * WATCH_SECONDS)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
    assert admin.ask("GET", "/api/whoami").status == 200
    assert "Traceback" not in own.log.read_text()
