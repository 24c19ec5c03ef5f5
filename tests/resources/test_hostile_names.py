"""Names of hostile shape: 400 or 404, and never another user's image."""

from __future__ import annotations

import contextlib
import socket
import ssl
from urllib.parse import unquote_to_bytes

import pytest

from tests.server import Daemon, Person

SEGMENTS = [
    "..", ".", "%2e%2e", "%2E", "a%2fb", "%2f", "%252f", "a%00b", "%00", "a%0d%0ab", "a%20b",
    "a+b", "a%3fb", "a%23b", "a;b", "~", "*", "'", "%22", "%5c", "..%5c", "%ff%fe", "%c0%ae",
    "%e2%80%ae", "%D0%B0", "%ef%bc%8f", "xn--e1afmkfd", "a" * 101, "a" * 10_000, "raw", "share",
    "kvm", "default", "__hypervisor__", "any", "uploads", "-", "_", "...", "%25",
]  # fmt: skip


@pytest.fixture(scope="module")
def victim(daemon: Daemon) -> Person:
    victim = daemon.newcomer("victim")
    for name in ("a", "b", "raw", "share", "kvm", "-", "_"):
        assert victim.ask("POST", "/api/images", form={"name": name}).status == 201
        assert victim.ask("PUT", f"/api/images/raw/victim/{name}", body=b"secret").status == 200
    return victim


@pytest.fixture(scope="module")
def thief(daemon: Daemon, victim: Person) -> Person:
    return daemon.newcomer("thief")


@pytest.mark.parametrize("segment", SEGMENTS)
def test_a_path_of_hostile_shape_leads_nowhere(thief: Person, segment: str) -> None:
    for path in (
        "/api/images/{}", "/api/images/victim/{}", "/api/images/{}/a", "/api/images/raw/{}",
        "/api/images/raw/victim/{}", "/api/images/raw/{}/a", "/api/images/raw/victim/{}/a",
        "/api/images/raw/{}/kvm/a", "/api/users/{}", "/api/users/{}/images", "/api/groups/{}",
        "/{}",
    ):  # fmt: skip
        answer = thief.ask("GET", path.format(segment))
        assert answer.status in (400, 404), (path, answer)
        assert b"secret" not in answer.body
    for path in ("/api/images/victim/{}", "/api/images/{}/a", "/api/images/raw/victim/{}"):
        for method in ("DELETE", "POST", "PUT"):
            answer = thief.ask(method, path.format(segment), form={})
            assert answer.status in (400, 404, 405, 411), (method, path, answer)


@pytest.mark.parametrize("segment", sorted({*SEGMENTS} - {"any", "xn--e1afmkfd", "-", "_"}))
def test_nothing_is_ever_called_so(daemon: Daemon, thief: Person, segment: str) -> None:
    name = unquote_to_bytes(segment).decode("utf-8", "replace")
    user = daemon.admin.ask("POST", "/api/users", json={"user_name": name, "cert_dn": "/CN=x"})
    allowed = {400, 409} if name.isascii() else {400}
    assert user.status in allowed, user
    if name not in ("raw", "share", "kvm", "default", "__hypervisor__", "uploads"):
        image = thief.ask("POST", "/api/images", json={"name": name})
        assert image.status == 400, image
        group = daemon.admin.ask("POST", "/api/groups", json={"name": name})
        assert group.status == 400, group


def test_ones_own_images_may_have_the_words_of_urls(victim: Person, thief: Person) -> None:
    for name in ("raw", "share", "kvm"):
        assert victim.ask("GET", f"/api/images/victim/{name}").json["name"] == name
        assert victim.ask("GET", f"/api/images/{name}").json["name"] == name
        assert victim.ask("GET", f"/api/images/raw/victim/{name}").body == b"secret"
        assert victim.ask("GET", f"/api/images/raw/{name}").body == b"secret"
        assert thief.ask("GET", f"/api/images/raw/victim/xen/{name}").status == 404


def test_an_image_called_raw_is_shared_like_any_other(victim: Person, thief: Person) -> None:
    assert victim.ask("POST", "/api/images/raw/share/user/impeyr").status == 200
    assert victim.ask("POST", "/api/images/raw/share/group/users").status == 200
    shared = victim.ask("GET", "/api/images/raw").json["shared_with"]
    assert [len(shared["users"]), len(shared["groups"])] == [1, 1]
    for path in ("user/impeyr", "group/users"):
        assert victim.ask("DELETE", f"/api/images/raw/share/{path}").status == 200
    assert thief.ask("POST", "/api/images/raw/share/user/impeyr").status == 404


def test_a_hypervisor_in_the_users_place_means_ones_own(victim: Person, thief: Person) -> None:
    assert thief.ask("GET", "/api/images/raw/xen/a").status == 404
    assert victim.ask("GET", "/api/images/raw/xen/a").body == b"secret"
    assert thief.ask("PUT", "/api/images/raw/xen/a", body=b"mine").status == 404
    assert victim.ask("GET", "/api/images/raw/victim/a").body == b"secret"


@pytest.mark.parametrize(
    "line",
    [
        b"GET /api/images/victim/a/../../victim/a HTTP/1.1",
        b"GET //api/images/victim/a HTTP/1.1",
        b"GET /api//images/victim/a HTTP/1.1",
        b"GET /api/images/victim//a HTTP/1.1",
        b"GET /api/images/victim/a/ HTTP/1.1",
        b"GET /api/images/raw/victim/a%00 HTTP/1.1",
        b"GET /api/images/raw/victim/\xc3\xa4 HTTP/1.1",
        b"GET http://elsewhere/api/images/victim/a HTTP/1.1",
        b"GET * HTTP/1.1",
        b"GET  HTTP/1.1",
        b"G\xff /api/whoami HTTP/1.1",
    ],
)
def test_a_request_line_of_hostile_shape_leads_nowhere(
    daemon: Daemon, thief: Person, line: bytes
) -> None:
    plain = socket.create_connection(("localhost", daemon.https), timeout=20)
    with thief.tls.wrap_socket(plain, server_hostname="localhost") as server:
        server.sendall(line + b"\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b""
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            while data := server.recv(65536):
                answer += data
    assert answer.startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 400 ")) or answer == b"", answer
    assert b"secret" not in answer
