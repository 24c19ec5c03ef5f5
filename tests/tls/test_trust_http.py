"""The cases that are about requests, at a real daemon."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from repoman.bounded_log import LINES_A_MINUTE
from repoman.channel import HEADER_DEADLINE
from tests.credentials import (
    Credential,
    authority,
    crl,
    end_entity,
    host,
    name_hash,
    now,
    p256_key,
)
from tests.server import Daemon, Person

ROGER = "/C=CA/O=Grid/CN=Roger Impey"
HALF_OPEN = 500


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One of our own: its CRLs change."""
    with Daemon(tmp_path_factory.mktemp("trust")).running() as daemon:
        yield daemon


@pytest.fixture(scope="module")
def half_open(server: Daemon) -> Iterator[list[socket.socket]]:
    """Connections that begin a handshake and say no more, opened before all tests."""
    beginning = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    sockets = []
    for number in range(HALF_OPEN):
        one = socket.create_connection(("127.0.0.1", server.https))
        one.sendall(beginning[: number % len(beginning)])
        sockets.append(one)
    yield sockets
    for one in sockets:
        one.close()


def shows(server: Daemon, credential: Credential, name: str = "") -> Person:
    """Somebody who comes with this credential."""
    path = credential.write(server.directory / f"shown_{os.urandom(4).hex()}")
    return Person(server, name, proxy=path, credential=credential)


def reload(server: Daemon, done: Callable[[], bool]) -> None:
    """Send SIGHUP and wait until it has had its effect."""
    assert server.process is not None
    server.process.send_signal(signal.SIGHUP)
    end = time.monotonic() + 10
    while not done():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_case_47_half_open_handshakes_do_not_keep_others_out(
    server: Daemon, half_open: list[socket.socket]
) -> None:
    began = time.monotonic()
    for _ in range(10):
        server.admin.hang_up()
        assert server.admin.ask("GET", "/api/whoami").status == 200
    assert time.monotonic() - began < 5


def test_case_5_a_limited_proxy_reads_and_does_not_write(server: Daemon) -> None:
    user = server.newcomer()
    assert user.credential is not None
    limited = shows(server, user.credential.proxy(limited=True, key=p256_key("limited")))
    assert limited.ask("GET", "/api/whoami").json["user_name"] == user.name
    refused = limited.ask("POST", "/api/images", form={"name": "x"})
    assert refused.status == 403
    assert "limited" in refused.text
    assert user.ask("POST", "/api/images", form={"name": "x"}).status == 201


def test_case_17_a_proxy_that_expires_between_two_requests(server: Daemon) -> None:
    user = server.newcomer()
    assert user.credential is not None
    ends = now() + timedelta(seconds=3)
    person = shows(server, user.credential.proxy(key=p256_key("short"), ends=ends))
    assert person.ask("GET", "/api/whoami").status == 200
    connection = person._connection
    while now() <= ends:
        time.sleep(0.1)
    refused = person.ask("GET", "/api/whoami")
    assert refused.status == 403
    assert "Your proxy expired at" in refused.text
    assert "grid-proxy-init" in refused.text
    assert refused.headers["Connection"] == "close"
    assert connection is not None
    assert person._connection is None


def test_case_42_a_new_crl_ends_a_kept_connection(server: Daemon) -> None:
    user = server.newcomer()
    assert user.credential is not None
    kept, other = shows(server, user.credential.proxy()), shows(server, user.credential.proxy())
    assert kept.ask("GET", "/api/whoami").status == 200
    server.grid.revoke(user.credential)
    reload(server, lambda: _is_refused(other))
    refused = kept._send("GET", "/api/whoami", None, {})
    assert refused.status == 403
    assert f"{user.dn} was revoked by" in refused.text
    assert refused.headers["Connection"] == "close"
    assert server.admin.ask("GET", "/api/whoami").status == 200


def test_case_42_a_new_crl_is_found_without_a_signal(tmp_path: Path) -> None:
    with Daemon(tmp_path, tls={"reload": "1s"}).running() as daemon:
        user, other = daemon.newcomer(), daemon.newcomer()
        assert user.ask("GET", "/api/whoami").status == 200
        said = daemon.log.read_text().count("Trust was reloaded")
        time.sleep(2.5)
        assert daemon.log.read_text().count("Trust was reloaded") == said  # nothing has changed
        assert user.credential is not None
        daemon.grid.revoke(user.credential)
        end = time.monotonic() + 15
        while (answer := user._send("GET", "/api/whoami", None, {})).status == 200:
            assert time.monotonic() < end
            time.sleep(0.2)
        assert (answer.status, answer.headers["Connection"]) == (403, "close")
        assert "was revoked by" in answer.text
        assert other.ask("GET", "/api/whoami").status == 200
        lines = daemon.log.read_text().splitlines()
        assert len([line for line in lines if "was revoked by" in line]) == 1
        assert len([line for line in lines if "Trust was reloaded" in line]) == said + 1


def test_a_crl_that_ages_is_told_once(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, tls={"reload": "1s"})
    path = daemon.ca_directory / f"{name_hash(daemon.grid.ca)}.r0"
    with daemon.running():
        path.write_bytes(crl(daemon.grid.ca, ends=now() + timedelta(seconds=3)))
        time.sleep(7)
        log = daemon.log.read_text()
        assert log.count(f"{path.name} expired at") == 1
        assert "Traceback" not in log


def _is_refused(person: Person) -> bool:
    person.hang_up()
    try:
        return person.ask("GET", "/api/whoami").status == 403
    except OSError:
        return True  # by an alert


def test_case_50_without_a_certificate(server: Daemon) -> None:
    refused = server.nobody.ask("GET", "/api/whoami")
    assert refused.status == 403
    assert "certificate" in refused.text


def test_case_51_identity_headers_are_ignored(server: Daemon) -> None:
    headers = {
        "SSL_CLIENT_S_DN": ROGER,
        "SSL-Client-S-DN": ROGER,
        "X-SSL-Client-S-DN": ROGER,
        "X-Client-DN": ROGER,
        "X-Forwarded-User": "impeyr",
        "Remote-User": "impeyr",
        "Authorization": "Basic aW1wZXlyOng=",
    }
    for person in (server.nobody, server.stranger()):
        refused = person.ask("GET", "/api/whoami", headers=headers)
        assert refused.status == 403
    user = server.newcomer()
    assert user.ask("GET", "/api/whoami", headers=headers).json["user_name"] == user.name


def test_case_53_suspended_between_two_requests(server: Daemon) -> None:
    user = server.newcomer()
    assert user.ask("GET", "/api/whoami").status == 200
    path = f"/api/users/{user.name}"
    assert server.admin.ask("POST", path, form={"suspended": "true"}).status == 200
    refused = user.ask("GET", "/api/whoami")
    assert refused.status == 403
    assert "suspended" in refused.text
    assert server.admin.ask("POST", path, form={"suspended": "false"}).status == 200
    assert user.ask("GET", "/api/whoami").status == 200


def test_case_54_a_host_certificate_as_client(server: Daemon) -> None:
    www = host(server.grid.ca, "www.example.org", key=p256_key("www"))
    refused = shows(server, www).ask("GET", "/api/whoami")
    assert refused.status == 403
    assert "/C=CA/O=Grid/CN=www.example.org" in refused.text


def test_case_12_an_old_proxy_is_told_what_to_do(server: Daemon) -> None:
    user = server.newcomer()
    assert user.credential is not None
    refused = shows(server, user.credential.legacy_proxy()).ask("GET", "/api/whoami")
    assert refused.status == 403
    assert "make a new one with grid-proxy-init -rfc" in refused.text


def test_case_24_another_ca_is_another_person(server: Daemon) -> None:
    """The registered user keeps the issuer of the first login."""
    user = server.newcomer()
    assert user.ask("GET", "/api/whoami").status == 200
    second = authority("/C=XX/CN=Second CA", key=p256_key("second"))
    server.grid.directory.add(second)
    forged = shows(server, end_entity(user.dn, second, key=p256_key("forged")))
    reload(server, lambda: not _fails(forged))
    refused = forged.ask("GET", "/api/whoami")
    assert refused.status == 403
    assert user.ask("GET", "/api/whoami").status == 200


def _fails(person: Person) -> bool:
    person.hang_up()
    try:
        person.ask("GET", "/api/whoami")
    except OSError:
        return True
    return False


def test_nothing_of_this_left_a_traceback(server: Daemon) -> None:
    assert "Traceback" not in server.log.read_text()


def test_case_47_half_open_handshakes_are_timed_out(
    server: Daemon, half_open: list[socket.socket]
) -> None:
    end = time.monotonic() + HEADER_DEADLINE + 10
    for one in half_open:
        one.settimeout(max(0.1, end - time.monotonic()))
        try:
            while one.recv(1000):
                pass
        except ConnectionResetError:
            pass
    assert server.admin.ask("GET", "/api/whoami").status == 200
    log = server.log.read_text()
    assert "Traceback" not in log
    # Two endpoints, and the minute may turn in between.
    assert 0 < log.count("Timing out client") <= 4 * LINES_A_MINUTE
