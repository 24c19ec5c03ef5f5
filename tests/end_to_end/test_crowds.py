"""Crowds that take every connection keep nobody out."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress

import pytest
from attrs import define

from repoman.service import WATCH_SECONDS
from tests.crowds import KINDS, crowd
from tests.ledger import PROMISED_LAG, LateDaemon, pid_of, status
from tests.server import Person, ask_plain, free_ports

LIMIT = 40
ASKED = 40
WITHIN = 2.0
"""Seconds in which a small request is answered, on a machine that does other work too."""

MEMORY = 50 * 2**20


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LateDaemon]:
    """A daemon with few places."""
    limits = {"connections": LIMIT}
    with LateDaemon(tmp_path_factory.mktemp("crowds"), limits=limits).running() as daemon:
        admin = daemon.admin
        admin.ask("POST", "/api/images", form={"name": "big", "unauthenticated_access": "true"})
        assert admin.ask("PUT", "/api/images/raw/big", body=bytes(32 << 20)).status == 200
        admin.ask("POST", "/api/images", form={"name": "small", "unauthenticated_access": "true"})
        assert admin.ask("PUT", "/api/images/raw/small", body=b"small").status == 200
        yield daemon


def resident(daemon: LateDaemon) -> int:
    """Bytes of memory that the daemon has."""
    [line] = [line for line in status(pid_of(daemon)).splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024


@define
class Served:
    """What somebody got beside a crowd."""

    answered: int = 0
    asked: int = 0
    worst: float = 0.0

    def ask(self, person: Person, *, fresh: bool) -> None:
        """Make one small request; one that is cut on a kept connection is made again."""
        if fresh:
            person.hang_up()
        self.asked += 1
        begun = time.monotonic()
        try:
            status = person.ask("GET", "/api/whoami").status
        except (OSError, http.client.HTTPException):
            return
        finally:
            took = time.monotonic() - begun
        self.answered += status == 200 and took < WITHIN
        self.worst = max(self.worst, took)


@contextmanager
def held_to_its_promises(daemon: LateDaemon) -> Iterator[None]:
    begun, before = time.monotonic(), resident(daemon)
    yield
    _, stall = daemon.latest(begun)
    assert stall < PROMISED_LAG
    assert resident(daemon) - before < MEMORY
    assert "Traceback" not in daemon.log.read_text()


def serve(person: Person, seconds: float = 1.0) -> Served:
    served, end = Served(), time.monotonic() + seconds
    while time.monotonic() < end or served.asked < ASKED:
        served.ask(person, fresh=served.asked % 2 == 0)
        time.sleep(0.01)
    assert served.answered >= 0.95 * served.asked, served
    return served


@pytest.mark.parametrize("kind", KINDS)
def test_a_crowd_that_waits_keeps_nobody_out(own: LateDaemon, kind: str) -> None:
    person, image = own.newcomer(), f"{own.admin.name}/big"
    with held_to_its_promises(own), crowd(own.https, kind, 45, source="127.0.0.2", image=image):
        serve(person)


@pytest.mark.parametrize("kind", ["nothing", "one line", "one request"])
def test_nor_does_a_larger_one_from_the_same_address(own: LateDaemon, kind: str) -> None:
    person = own.newcomer()
    with held_to_its_promises(own), crowd(own.https, kind, 200):
        serve(person)
    assert "All places are taken, cut: " in own.log.read_text()


def test_nor_several_that_show_a_certificate(own: LateDaemon) -> None:
    person, shown = own.newcomer(), str(own.stranger().proxy)
    with held_to_its_promises(own), ExitStack() as stack:
        for number in range(4):
            source = f"127.0.0.{number + 2}"
            stack.enter_context(
                crowd(own.https, "one request", 15, source=source, certificate=shown)
            )
        serve(person)


def test_nor_one_on_the_plain_endpoint(own: LateDaemon) -> None:
    url = f"{own.plain}/api/images/raw/{own.admin.name}/small"
    with held_to_its_promises(own), crowd(own.http, "one line", 45, plain=True):
        answered = [ask_plain(url).status for _ in range(ASKED)]
    assert answered == [200] * ASKED


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LateDaemon]:
    """A daemon behind a proxy that speaks the PROXY protocol, with few places."""
    directory = tmp_path_factory.mktemp("behind")
    [http] = free_ports(1)
    server = {"http": f"haproxy:tcp:{http}:interface=127.0.0.1"}
    daemon = LateDaemon(directory, limits={"connections": LIMIT}, server=server)
    daemon.http = http
    with daemon.running():
        yield daemon


@pytest.mark.parametrize("header", ["PROXY TCP4 192.0.2.1 192.0.2.9 1 80\r\n", "PROXY TCP4 192."])
def test_behind_a_proxy_the_address_is_the_clients(behind: LateDaemon, header: str) -> None:
    words = b"PROXY TCP6 2001:db8::1 2001:db8::2 1 80\r\n"
    words += b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    answered = 0
    with crowd(behind.http, "one line", 45, header=header, plain=True):
        for _ in range(ASKED):
            with suppress(OSError), socket.create_connection(("127.0.0.1", behind.http)) as peer:
                peer.sendall(words)
                answered += peer.recv(1024).startswith(b"HTTP/1.1 403")
    assert answered >= 0.95 * ASKED


def test_no_running_transfer_is_cut_for_a_crowd_but_a_stalled_one_is(own: LateDaemon) -> None:
    target = f"/api/images/raw/{own.admin.name}/big"
    with ExitStack() as stack:
        fetching = []
        for _ in range(LIMIT - LIMIT // 10):
            connection = stack.enter_context(closing(own.nobody.connection()))
            connection.request("GET", target)
            fetching.append(connection.getresponse())
        slow, end = fetching[:10], time.monotonic() + WATCH_SECONDS * 2.2
        while time.monotonic() < end:
            for one in slow:
                assert one.read(16384)
            time.sleep(0.5)
        person = own.newcomer()
        assert person.ask("GET", "/api/whoami").status == 200
        with crowd(own.https, "one line", 45, source="127.0.0.2"):
            serve(person)
            assert all(one.read(1 << 20) for one in slow)
        rest = [sum(iter(lambda one=one: len(one.read(1 << 20)), 0)) for one in slow]
        assert all(one.length == 0 for one in slow), rest
