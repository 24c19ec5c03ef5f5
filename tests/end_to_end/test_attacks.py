"""What was once found by attacking: each stays mended."""

from __future__ import annotations

import base64
import json
import os
import socket
import ssl
import time
from pathlib import Path

import psycopg2
import pytest

from tests.end_to_end.conftest import MIB
from tests.server import Daemon, Person


def connect(daemon: Daemon) -> ssl.SSLSocket:
    """A TLS connection of nobody's."""
    context = ssl.create_default_context(capath=str(daemon.ca_directory))
    plain = socket.create_connection(("localhost", daemon.https), timeout=20)
    return context.wrap_socket(plain, server_hostname="localhost")


def exchange(daemon: Daemon, data: bytes, seconds: float = 2.0) -> bytes:
    """Send bytes as nobody; answer what came back until silence or the end."""
    with connect(daemon) as line:
        line.sendall(data)
        line.settimeout(seconds)
        received = b""
        try:
            while piece := line.recv(65536):
                received += piece
        except TimeoutError:
            pass
        return received


def owed(daemon: Daemon, name: str) -> tuple[int, int]:
    """What a user's account says is used and reserved."""
    with psycopg2.connect(daemon.dsn) as database, database.cursor() as cursor:
        cursor.execute("SELECT used, reserved FROM account WHERE user_name = %s", (name,))
        row = cursor.fetchone()
    database.close()
    assert row is not None
    return row


@pytest.fixture
def alice(daemon: Daemon) -> Person:
    return daemon.newcomer()


def test_dropped_half_requests_do_not_use_up_the_connections(tmp_path: Path) -> None:
    with Daemon(tmp_path, limits={"connections": "5"}).running() as daemon:
        for _ in range(8):
            line = connect(daemon)
            line.sendall(b"GET / HTTP/1.1\r\n")
            time.sleep(0.05)
            line.close()
        time.sleep(0.5)
        assert daemon.admin.ask("GET", "/api/whoami").status == 200
        assert "Traceback" not in daemon.log.read_text()
        begun = time.monotonic()
        daemon.stop()
        assert time.monotonic() - begun < 10


def test_a_long_digest_header_is_read_in_no_time(daemon: Daemon) -> None:
    bad = b"PUT /api/images/raw/a/b HTTP/1.1\r\nHost: l\r\nContent-Length: 0\r\n"
    bad += b"Repr-Digest: %s\r\n\r\n"
    begun = time.monotonic()
    exchange(daemon, bad % (b"a" * 15000) * 4, 0.5)
    assert time.monotonic() - begun < 3


def test_answers_that_nobody_fetches_do_not_pile_up(daemon: Daemon, alice: Person) -> None:
    assert daemon.process is not None
    status = Path(f"/proc/{daemon.process.pid}/status")

    def resident() -> int:
        lines = status.read_text().splitlines()
        return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS"))

    names = [f"big{number}" for number in range(250)]
    for name in names:  # a list of a megabyte
        made = alice.ask("POST", "/api/images", json={"name": name, "description": "x" * 4096})
        assert made.status == 201, made
    before = resident()
    assert alice.proxy is not None
    context = alice.tls
    with (
        socket.create_connection(("localhost", daemon.https)) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as line,
    ):
        ask = b"GET /api/images?view=full HTTP/1.1\r\nHost: localhost\r\n\r\n"
        line.sendall(ask * 150)
        time.sleep(3)
        assert resident() - before < 60, "MiB more"
        # And what was asked for does come, in the end.
        line.settimeout(20)
        received = 0
        while received < 50 * 1_000_000:
            received += len(line.recv(1 << 20))
    for name in names:
        alice.ask("DELETE", f"/api/images/{name}")


@pytest.mark.parametrize("host", [b"a..b", b".", b"x" * 70, b"[::1", b"a b", b"%00"])
def test_no_host_header_breaks_the_server(daemon: Daemon, host: bytes) -> None:
    answer = exchange(daemon, b"GET /api/whoami HTTP/1.1\r\nHost: %s\r\n\r\n" % host, 0.5)
    assert answer.startswith((b"HTTP/1.1 403", b"HTTP/1.1 400"))


@pytest.mark.parametrize(
    "date",
    [
        "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
        "Mon, 01 Jan 2026 00:00:00 +99999999999999999999",
        "1 Jan 2026 99999999999999999999:00:00",
        "Fri, 31 Dec 9999 23:59:59 -2359",
    ],
)
def test_impossible_dates_are_ignored(daemon: Daemon, alice: Person, date: str) -> None:
    alice.ask("POST", "/api/images", form={"name": "dated"})
    alice.ask("PUT", "/api/images/raw/dated", body=b"x")
    for field in ("If-Modified-Since", "If-Unmodified-Since"):
        answer = alice.ask("GET", "/api/images/raw/dated", headers={field: date})
        assert answer.status in (200, 304), field


def test_doubled_hypervisors_are_one(alice: Person) -> None:
    created = alice.ask("POST", "/api/images", form={"name": "double", "hypervisor": "xen,xen"})
    assert (created.status, created.json["hypervisor"]) == (201, "xen")
    changed = alice.ask("POST", "/api/images/double", form={"hypervisor": "kvm, kvm,xen"})
    assert (changed.status, changed.json["hypervisor"]) == (200, "kvm,xen")
    many = ",".join(f"h{n}" for n in range(40))
    assert alice.ask("POST", "/api/images/double", form={"hypervisor": many}).status == 400


def start_put(person: Person, name: str, length: int) -> tuple[object, bytes]:
    """A PUT whose first half is sent."""
    content = os.urandom(length)
    connection = person.connection()
    connection.putrequest("PUT", f"/api/images/raw/{name}")
    connection.putheader("Content-Length", str(length))
    connection.endheaders(content[: length // 2])
    time.sleep(0.4)
    return connection, content[length // 2 :]


def test_an_image_given_away_during_an_upload_is_not_written_any_more(
    daemon: Daemon, alice: Person
) -> None:
    erin = daemon.newcomer()
    daemon.admin.ask("POST", f"/api/users/{erin.name}", form={"quota": "100"})
    alice.ask("POST", "/api/images", form={"name": "gift"})
    connection, rest = start_put(alice, "gift", 1_000_000)
    alice.ask("POST", "/api/images/gift", form={"owner": erin.name})
    assert erin.ask("POST", f"/api/offers/{alice.name}/gift").status == 200
    connection.send(rest)  # type: ignore[attr-defined]
    assert connection.getresponse().status == 409  # type: ignore[attr-defined]
    assert owed(daemon, erin.name) == (0, 0)
    assert owed(daemon, alice.name) == (0, 0)


def test_an_image_made_read_only_during_an_upload_keeps_its_bytes(
    daemon: Daemon, alice: Person
) -> None:
    alice.ask("POST", "/api/images", form={"name": "fixed"})
    alice.ask("PUT", "/api/images/raw/fixed", body=b"old")
    connection, rest = start_put(alice, "fixed", 1_000_000)
    alice.ask("POST", "/api/images/fixed", form={"read_only": "true"})
    connection.send(rest)  # type: ignore[attr-defined]
    assert connection.getresponse().status == 409  # type: ignore[attr-defined]
    assert alice.ask("GET", "/api/images/raw/fixed").body == b"old"
    assert owed(daemon, alice.name) == (3, 0)


def upload(person: Person, name: str, **headers: str) -> str:
    answer = person.ask(
        "POST",
        f"/api/images/raw/{name}",
        headers={"Upload-Complete": "?0"} | {k.replace("_", "-"): v for k, v in headers.items()},
    )
    assert answer.status == 201, answer
    return answer.headers["Location"]


def patch(person: Person, place: str, offset: int, body: bytes, last: bool, **more: str) -> int:
    headers = {
        "Content-Type": "application/partial-upload",
        "Upload-Offset": str(offset),
        "Upload-Complete": "?1" if last else "?0",
    } | {k.replace("_", "-"): v for k, v in more.items()}
    return person.ask("PATCH", place, body=body, headers=headers).status


def test_giving_an_image_away_pays_its_unfinished_uploads_back(
    daemon: Daemon, alice: Person
) -> None:
    dave = daemon.newcomer()
    alice.ask("POST", "/api/images", form={"name": "leak"})
    place = upload(alice, "leak", Upload_Length="5000000")
    assert owed(daemon, alice.name) == (0, 5_000_000)
    alice.ask("POST", "/api/images/leak", form={"owner": dave.name})
    assert dave.ask("POST", f"/api/offers/{alice.name}/leak").status == 200
    assert owed(daemon, alice.name) == (0, 0)
    assert alice.ask("GET", place).status == 404
    assert daemon.admin.ask("DELETE", f"/api/users/{dave.name}").status == 200


def test_an_upload_to_a_read_only_image_can_still_be_forgotten(
    daemon: Daemon, alice: Person
) -> None:
    alice.ask("POST", "/api/images", form={"name": "stuck"})
    place = upload(alice, "stuck", Upload_Length="1000")
    alice.ask("POST", "/api/images/stuck", form={"read_only": "true"})
    assert alice.ask("DELETE", place).status == 204
    assert owed(daemon, alice.name) == (0, 0)


def test_content_digest_of_a_part_is_about_the_part(alice: Person) -> None:
    alice.ask("POST", "/api/images", form={"name": "pieces"})
    place = upload(alice, "pieces")
    empty = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"
    import hashlib

    def digest(data: bytes) -> str:
        return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"

    assert patch(alice, place, 0, b"0123456789", False, Content_Digest=empty) == 400
    assert alice.ask("HEAD", place).headers["Upload-Offset"] == "0"
    right = digest(b"0123456789")
    assert patch(alice, place, 0, b"0123456789", False, Content_Digest=right) == 204
    last = digest(b"abcdefghij")
    assert patch(alice, place, 10, b"abcdefghij", True, Content_Digest=last) == 200
    assert alice.ask("GET", "/api/images/raw/pieces").body == b"0123456789abcdefghij"


@pytest.mark.parametrize(
    "headers",
    [
        {"Upload-Complete": "?0", "Upload-Length": "1000000", "Repr-Digest": "sha-256=:xx:"},
        {"Upload-Complete": "?1", "Upload-Length": "1000000"},
        {"Upload-Complete": "?0", "Upload-Length": "10"},
    ],
)
def test_a_refused_creation_reserves_nothing(
    daemon: Daemon, alice: Person, headers: dict[str, str]
) -> None:
    alice.ask("POST", "/api/images", form={"name": "refused"})
    answer = alice.ask("POST", "/api/images/raw/refused", body=b"x" * 50, headers=headers)
    assert answer.status == 400, answer
    assert owed(daemon, alice.name) == (0, 0)
    assert alice.ask("GET", "/api/uploads").json == []


def test_uploads_of_unknown_length_are_bound_by_the_quota_together(
    daemon: Daemon, alice: Person
) -> None:
    daemon.admin.ask("POST", f"/api/users/{alice.name}", form={"quota": "1000000"})
    statuses = []
    for number in range(3):
        alice.ask("POST", "/api/images", form={"name": f"n{number}"})
        place = upload(alice, f"n{number}")
        statuses.append(patch(alice, place, 0, bytes(600_000), False))
    assert statuses == [204, 413, 413]
    assert owed(daemon, alice.name)[1] <= 1_000_000


def test_a_limited_proxy_ends_nothing(daemon: Daemon, alice: Person) -> None:
    limited = daemon.person(f"Person {alice.name}", alice.name, limited=True)
    alice.ask("POST", "/api/images", form={"name": "running"})
    place = upload(alice, "running", Upload_Length=str(MIB))
    connection = alice.connection()
    connection.putrequest("PATCH", place)
    for name, value in {
        "Content-Type": "application/partial-upload",
        "Upload-Offset": "0",
        "Upload-Complete": "?1",
        "Content-Length": str(MIB),
    }.items():
        connection.putheader(name, value)
    connection.endheaders(bytes(MIB // 2))
    time.sleep(0.3)
    assert limited.ask("GET", place).status == 200
    assert limited.ask("HEAD", place).status == 200
    assert limited.ask("DELETE", place).status == 403
    connection.send(bytes(MIB // 2))
    assert connection.getresponse().status == 200


def test_strange_text_is_400_never_500(daemon: Daemon, alice: Person) -> None:
    surrogate = {"name": "a", "\ud800": 1}
    answer = alice.ask(
        "POST", "/api/images", body=json.dumps(surrogate),
        headers={"Content-Type": "application/json"},
    )  # fmt: skip
    assert answer.status == 400
    for moment in ("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"):
        token = base64.urlsafe_b64encode(json.dumps([moment, 1]).encode()).decode()
        path = f"/api/images?sort=modified&limit=2&after={token}"
        assert alice.ask("GET", path).status == 400


def test_nobody_in_particular_is_403_before_anything_else(daemon: Daemon) -> None:
    nobody = daemon.nobody
    bad = {"Repr-Digest": "nonsense"}
    assert nobody.ask("PUT", "/api/images/raw/a/b", body=b"", headers=bad).status == 403
    assert nobody.ask("POST", "/api/images/raw/a/b").status == 403
    assert nobody.ask("PATCH", "/api/uploads/x", body=b"x").status == 403


@pytest.mark.parametrize(
    "encoding",
    [b"identity", b"gzip", b"chunked, identity", b"chunked\r\nTransfer-Encoding: chunked"],
)
def test_no_other_framing_than_chunked_is_taken(daemon: Daemon, encoding: bytes) -> None:
    data = (
        b"PUT /api/images/raw/a/b HTTP/1.1\r\nHost: l\r\nTransfer-Encoding: %s\r\n\r\n" % encoding
    )
    answer = exchange(daemon, data + b"GET /api/whoami HTTP/1.1\r\nHost: l\r\n\r\n", 0.5)
    assert answer.startswith(b"HTTP/1.1 400")
    assert answer.count(b"HTTP/1.1 ") == 1


def test_conditions_hold_for_uploads_too(alice: Person) -> None:
    alice.ask("POST", "/api/images", form={"name": "cond"})
    path = "/api/images/raw/cond"
    assert alice.ask("PUT", path, body=b"1", headers={"If-Match": "*"}).status == 412
    assert alice.ask("PUT", path, body=b"1", headers={"If-None-Match": "*"}).status == 200
    assert alice.ask("PUT", path, body=b"2", headers={"If-None-Match": "*"}).status == 412
    tag = alice.ask("HEAD", path).headers["Etag"]
    assert alice.ask("PUT", path, body=b"2", headers={"If-Match": '"x"'}).status == 412
    assert alice.ask("PUT", path, body=b"2", headers={"If-Match": tag}).status == 200


def test_head_has_no_ranges_and_refusals_no_tags(alice: Person) -> None:
    alice.ask("POST", "/api/images", form={"name": "head"})
    alice.ask("PUT", "/api/images/raw/head", body=b"0123456789")
    head = alice.ask("HEAD", "/api/images/raw/head", headers={"Range": "bytes=0-3"})
    assert (head.status, head.headers["Content-Length"]) == (200, "10")
    refused = alice.ask("GET", "/api/images/raw/head", headers={"Range": "bytes=99-"})
    assert refused.status == 416
    assert "Etag" not in refused.headers
    assert refused.headers["Content-Range"] == "bytes */10"


def test_there_is_one_spelling_of_a_path_and_of_a_method(daemon: Daemon, alice: Person) -> None:
    assert alice.ask("GET", "/api/whoami/").status == 404
    assert alice.ask("GET", "//api/whoami").status == 404
    assert alice.ask("GET", "/api//whoami").status == 404
    assert exchange(daemon, b"get /api/whoami HTTP/1.1\r\nHost: l\r\n\r\n", 0.5).startswith(
        b"HTTP/1.1 405"
    )


def test_nothing_above_left_a_traceback(daemon: Daemon) -> None:
    assert "Traceback" not in daemon.log.read_text()
