"""What scripts and clouds written since 2011 do, as they do it."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from pathlib import Path

import pytest

from tests.server import Daemon, Person, ask_plain


@pytest.fixture(scope="module")
def me(daemon: Daemon) -> Person:
    return daemon.newcomer()


def curl(me: Person, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["curl", "--fail-with-body", *me.curl, *map(str, arguments)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_curl_creates_uploads_and_fetches(daemon: Daemon, me: Person, tmp_path: Path) -> None:
    disk, copy = tmp_path / "disk.img", tmp_path / "copy.img"
    disk.write_bytes(b"\0disk" * 100_000)
    url = f"{daemon.url}/api/images"
    made = curl(me, "-d", "name=sl6", "-d", "description=Scientific Linux", url)
    assert made.returncode == 0, made
    location = json.loads(made.stdout)["file_url"]
    # -T sends "Expect: 100-continue" and no Content-Type
    put = curl(me, "-T", disk, "-w", "%{http_code}", "-o", tmp_path / "answer", location)
    assert put.stdout == "200"
    assert curl(me, "-o", copy, location).returncode == 0
    assert copy.read_bytes() == disk.read_bytes()
    copy.write_bytes(disk.read_bytes()[:1000])
    assert curl(me, "-C", "-", "-o", copy, location).returncode == 0
    assert copy.read_bytes() == disk.read_bytes()
    shown = curl(me, f"{url}/sl6")
    assert json.loads(shown.stdout)["size"] == 500_000
    assert curl(me, "-X", "DELETE", f"{url}/{me.name}/sl6").returncode == 0


def test_a_refusals_text_is_for_the_person(daemon: Daemon, me: Person) -> None:
    refused = curl(me, "-d", "name=bad name", f"{daemon.url}/api/images")
    assert refused.returncode == 22
    assert refused.stdout.startswith("Bad image name: use 1 to 100 characters of")
    assert refused.stdout.count("\n") == 1


def test_http_client_forms(daemon: Daemon, me: Person) -> None:
    # Neither Content-Type nor Expect; a string for a body; the old way of repoman-client.
    made = me.ask("POST", "/api/images", body="name=by-http-client&os_type=linux")
    assert made.status == 201
    assert made.json["os_type"] == "linux"
    put = me.ask("PUT", f"/api/images/raw/{me.name}/by-http-client", body=b"bytes")
    assert (put.status, put.reason) == (200, "OK")
    chunks = iter([b"chunked ", b"bytes"])
    path = f"/api/images/raw/{me.name}/by-http-client"
    assert me.ask("PUT", path, body=chunks, encode_chunked=True).status == 200
    assert me.ask("GET", path).body == b"chunked bytes"
    deleted = me.ask("DELETE", f"/api/images/{me.name}/by-http-client")
    assert (deleted.status, deleted.reason) == (200, "OK")
    assert "json" in deleted.headers["Content-Type"]


def test_the_status_line_has_a_version_and_a_reason(daemon: Daemon, me: Person) -> None:
    plain = socket.create_connection(("localhost", daemon.https), timeout=20)
    with me.tls.wrap_socket(plain, server_hostname="localhost") as server:
        server.sendall(b"GET /api/whoami HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert re.match(rb"HTTP/1\.1 200 OK\r\n", server.recv(65536))


def test_nimbus_forms(daemon: Daemon, me: Person) -> None:
    """An empty query is always appended; a delegated proxy is certificate and key."""
    delegated = daemon.directory / f"delegated_{me.name}"
    assert me.credential is not None
    me.credential.proxy().proxy(whose="nimbus").write(delegated)
    nimbus = daemon.person(f"Person {me.name}", me.name)
    nimbus.proxy = delegated
    assert nimbus.ask("POST", "/api/images?", form={"name": "for-nimbus"}).status == 201
    raw = f"/api/images/raw/{me.name}/for-nimbus?"
    assert nimbus.ask("PUT", raw, body=b"bytes").status == 200
    fetched = nimbus.ask("GET", raw)
    assert (fetched.status, fetched.body) == (200, b"bytes")
    assert nimbus.ask("GET", "/api/images/for-nimbus?").status == 200
    md5 = nimbus.ask("GET", raw, headers={"Want-Digest": "md5"})
    assert md5.status == 200


def test_public_images_come_over_plain_http_and_nothing_else_does(
    daemon: Daemon, me: Person
) -> None:
    for name, public in (("open", "true"), ("closed", "false")):
        form = {"name": name, "unauthenticated_access": public}
        url = me.ask("POST", "/api/images", form=form).json["http_file_url"]
        me.ask("PUT", f"/api/images/raw/{name}", body=b"bytes")
        raw = f"{daemon.plain}/api/images/raw/{me.name}/{name}"
        assert url == (raw if public == "true" else None)
        for form_of_it in (raw, raw + "?"):
            fetched = ask_plain(form_of_it)
            if public == "true":
                assert (fetched.status, fetched.body) == (200, b"bytes")
            else:
                assert fetched.status == 403
                assert b"bytes" not in fetched.body
    for path in ("/api/whoami", "/api/images", f"/api/images/{me.name}/closed", "/", "/x"):
        assert ask_plain(daemon.plain + path).status == 403
    assert ask_plain(f"{daemon.plain}/api/images/raw/{me.name}/open", "PUT").status == 403
    assert ask_plain(f"{daemon.plain}/api/images/raw/{me.name}/nothing").status == 403


def test_urls_are_split_from_the_right(daemon: Daemon, me: Person) -> None:
    me.ask("POST", "/api/images", form={"name": "a.b-c_d"})
    (url,) = [u for u in me.ask("GET", "/api/images").json if u.endswith("/a.b-c_d")]
    assert url.rsplit("/", 2)[1:] == [me.name, "a.b-c_d"]
    body = me.ask("GET", "/api/images/a.b-c_d").json
    assert body["owner"].rsplit("/", 1)[1] == me.name
    assert body["file_url"].rsplit("/", 2)[1:] == [me.name, "a.b-c_d"]


def test_every_refusal_says_why_in_words(daemon: Daemon, me: Person) -> None:
    assert "certificate" in daemon.nobody.ask("GET", "/api/whoami").text
    mallory = daemon.stranger("Mallory M")
    assert "/C=CA/O=Grid/CN=Mallory M" in mallory.ask("GET", "/api/whoami").text
    for who in (daemon.nobody, mallory):
        for path in ("/api/images", f"/api/images/{me.name}/x", f"/api/images/raw/{me.name}/x"):
            assert who.ask("GET", path).status == 403


def test_every_reply_carries_its_id(daemon: Daemon, me: Person) -> None:
    ids = {
        me.ask("GET", path).headers["X-Request-Id"]
        for path in ("/api/whoami", "/api/nothing", "/api/images/nothing", "/api/images?limit=x")
    }
    assert len(ids) == 4
