"""Uploads that go on: after cuts, kills of the daemon, and with a renewed proxy."""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import socket
import time
from pathlib import Path

import pytest

from tests.end_to_end.conftest import MIB
from tests.server import Answer, Daemon, Person

CONTENT = os.urandom(3 * MIB + 5)


def begin(person: Person, name: str, length: int | None = len(CONTENT)) -> str:
    """Create an image and an upload to it; answer where the upload is."""
    person.ask("POST", "/api/images", form={"name": name})
    headers = {"Upload-Complete": "?0"}
    if length is not None:
        headers["Upload-Length"] = str(length)
    answer = person.ask("POST", f"/api/images/raw/{name}", headers=headers)
    assert answer.status == 201, answer
    assert answer.headers["Upload-Offset"] == "0"
    assert answer.headers["Location"].startswith("/api/uploads/")
    return answer.headers["Location"]


def send(
    person: Person, place: str, offset: int, body: bytes, last: bool = False, **more: str
) -> Answer:
    """Send a part."""
    headers = {
        "Content-Type": "application/partial-upload",
        "Upload-Offset": str(offset),
        "Upload-Complete": "?1" if last else "?0",
        **{name.replace("_", "-"): value for name, value in more.items()},
    }
    return person.ask("PATCH", place, body=body, headers=headers)


def offset_of(person: Person, place: str) -> int:
    answer = person.ask("HEAD", place)
    assert answer.status == 200, answer
    assert answer.headers["Upload-Complete"] == "?0"
    return int(answer.headers["Upload-Offset"])


def begin_part(
    person: Person, place: str, offset: int, announced: int
) -> http.client.HTTPSConnection:
    """Send the headers of the last part."""
    connection = person.connection()
    connection.putrequest("PATCH", place)
    connection.putheader("Content-Type", "application/partial-upload")
    connection.putheader("Upload-Offset", str(offset))
    connection.putheader("Upload-Complete", "?1")
    connection.putheader("Content-Length", str(announced))
    connection.endheaders()
    return connection


def send_half(person: Person, place: str, offset: int, body: bytes, announced: int) -> None:
    """Send a part and cut the line before its end."""
    connection = begin_part(person, place, offset, announced)
    connection.sock.sendall(body)
    time.sleep(0.3)
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.sock.close()
    connection.close()


@pytest.fixture
def alice(daemon: Daemon) -> Person:
    return daemon.newcomer()


def test_parts_become_the_file_and_its_digest(daemon: Daemon, alice: Person) -> None:
    place = begin(alice, "parts")
    assert send(alice, place, 0, CONTENT[:MIB]).headers["Upload-Offset"] == str(MIB)
    assert offset_of(alice, place) == MIB
    answer = send(alice, place, MIB, CONTENT[MIB:], last=True)
    assert answer.status == 200, answer
    assert answer.json["checksum"]["value"] == hashlib.sha256(CONTENT).hexdigest()
    assert alice.ask("GET", "/api/images/raw/parts").body == CONTENT
    assert alice.ask("HEAD", place).status == 404


def test_an_upload_of_unknown_length_ends_where_the_last_part_ends(alice: Person) -> None:
    place = begin(alice, "unknown", None)
    part = send(alice, place, 0, CONTENT[:100])
    assert (part.status, "Content-Length" in part.headers) == (204, False)  # RFC 9110 section 8.6
    assert send(alice, place, 100, CONTENT[100:300], last=True).json["size"] == 300
    assert alice.ask("GET", "/api/images/raw/unknown").body == CONTENT[:300]


def test_a_wrong_offset_is_409_with_the_true_one(alice: Person) -> None:
    place = begin(alice, "offsets")
    send(alice, place, 0, CONTENT[:1000])
    for wrong in (0, 999, 1001, 10**15):
        answer = send(alice, place, wrong, b"x")
        assert (answer.status, answer.headers["Upload-Offset"]) == (409, "1000")
    assert send(alice, place, 1000, CONTENT[1000:], last=True).status == 200
    assert alice.ask("GET", "/api/images/raw/offsets").body == CONTENT


def test_what_came_before_a_cut_is_kept(alice: Person) -> None:
    place = begin(alice, "cut")
    send_half(alice, place, 0, CONTENT[: 2 * MIB], len(CONTENT))
    offset = offset_of(alice, place)
    assert 0 < offset <= 2 * MIB
    answer = send(alice, place, offset, CONTENT[offset:], last=True)
    assert answer.json["checksum"]["value"] == hashlib.sha256(CONTENT).hexdigest()


def test_a_renewed_proxy_goes_on_and_another_user_does_not(daemon: Daemon, alice: Person) -> None:
    place = begin(alice, "renewed")
    send(alice, place, 0, CONTENT[:MIB])
    assert alice.credential is not None
    again = alice.credential.proxy().write(daemon.directory / f"renewed-{alice.name}")
    renewed = Person(daemon, alice.name, alice.dn, again, alice.credential)
    other = daemon.newcomer()
    assert other.ask("HEAD", place).status == 404
    assert send(other, place, MIB, b"evil").status == 404
    assert other.ask("DELETE", place).status == 404
    assert send(renewed, place, MIB, CONTENT[MIB:], last=True).status == 200
    assert alice.ask("GET", "/api/images/raw/renewed").body == CONTENT
    renewed.hang_up()


def test_the_old_file_is_served_until_the_new_one_is_complete(alice: Person) -> None:
    place = begin(alice, "replaced")
    alice.ask("PUT", "/api/images/raw/replaced", body=b"old")
    send(alice, place, 0, CONTENT[:MIB])
    assert alice.ask("GET", "/api/images/raw/replaced").body == b"old"
    send(alice, place, MIB, CONTENT[MIB:], last=True)
    assert alice.ask("GET", "/api/images/raw/replaced").body == CONTENT


def test_uploads_are_listed_and_can_be_forgotten(daemon: Daemon, alice: Person) -> None:
    place = begin(alice, "listed")
    send(alice, place, 0, CONTENT[:10])
    [listed] = alice.ask("GET", "/api/uploads").json
    assert listed["url"] == daemon.url + place
    assert (listed["offset"], listed["length"]) == (10, len(CONTENT))
    assert listed not in daemon.admin.ask("GET", "/api/uploads").json
    assert alice.ask("DELETE", place).status == 204
    assert alice.ask("GET", "/api/uploads").json == []
    assert send(alice, place, 10, b"x").status == 404


def test_lengths_that_cannot_be_right_are_refused_before_they_are_stored(alice: Person) -> None:
    place = begin(alice, "lengths", 10)
    assert send(alice, place, 0, b"x" * 11).status == 400
    assert send(alice, place, 0, b"x" * 9, last=True).status == 400
    assert send(alice, place, 0, b"x" * 9, Upload_Length="11").status == 400
    assert offset_of(alice, place) == 0
    assert send(alice, place, 0, b"x" * 10, last=True).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/octet-stream"},
        {"Upload-Offset": "-1"},
        {"Upload-Offset": "9" * 5000},
        {"Upload-Complete": "yes"},
        {"Upload-Length": "many"},
    ],
)
def test_malformed_parts_are_refused(alice: Person, headers: dict[str, str]) -> None:
    place = begin(alice, "malformed")
    good = {
        "Content-Type": "application/partial-upload",
        "Upload-Offset": "0",
        "Upload-Complete": "?0",
    }
    answer = alice.ask("PATCH", place, body=b"abc", headers={**good, **headers})
    assert answer.status in (400, 415), answer
    assert offset_of(alice, place) == 0


def test_a_wrong_digest_of_the_whole_forgets_the_upload_and_keeps_the_old_file(
    alice: Person,
) -> None:
    place = begin(alice, "digest")
    alice.ask("PUT", "/api/images/raw/digest", body=b"old")
    send(alice, place, 0, CONTENT[:MIB])
    wrong = base64.b64encode(bytes(32)).decode()
    answer = send(alice, place, MIB, CONTENT[MIB:], last=True, Repr_Digest=f"sha-256=:{wrong}:")
    assert answer.status == 400
    assert alice.ask("GET", "/api/images/raw/digest").body == b"old"
    assert alice.ask("HEAD", place).status == 404


def test_right_digests_of_the_part_and_of_the_whole_are_accepted(alice: Person) -> None:
    """RFC 1864: Content-MD5 is about what one message carries."""
    place = begin(alice, "digests")
    send(alice, place, 0, CONTENT[:MIB])
    whole, part = (
        base64.b64encode(hashlib.md5(data).digest()).decode() for data in (CONTENT, CONTENT[MIB:])
    )
    right = {"Digest": f"md5={whole}", "Content_MD5": part}
    wrong = {"Digest": f"md5={whole}", "Content_MD5": whole}
    assert send(alice, place, MIB, CONTENT[MIB:], last=True, **wrong).status == 400
    assert offset_of(alice, place) == MIB, "a broken part may be sent again"
    answer = send(alice, place, MIB, CONTENT[MIB:], last=True, **right)
    assert answer.status == 200, answer


def test_an_upload_in_one_request_that_is_refused_says_why_and_leaves_nothing(
    alice: Person,
) -> None:
    alice.ask("POST", "/api/images", form={"name": "once"})
    wrong = base64.b64encode(bytes(32)).decode()
    headers = {"Upload-Complete": "?1", "Repr-Digest": f"sha-256=:{wrong}:"}
    answer = alice.ask("POST", "/api/images/raw/once", body=CONTENT, headers=headers)
    assert (answer.status, "sha256" in answer.text) == (400, True)
    assert alice.ask("GET", "/api/uploads").json == []


def test_a_deleted_image_takes_its_uploads_with_it(alice: Person) -> None:
    place = begin(alice, "deleted")
    send(alice, place, 0, CONTENT[:MIB])
    alice.ask("DELETE", "/api/images/deleted")
    assert send(alice, place, MIB, CONTENT[MIB:], last=True).status == 404


def test_room_is_reserved_at_creation(tmp_path: Path) -> None:
    with Daemon(tmp_path, limits={"quota": "1MiB"}).running() as daemon:
        admin = daemon.admin
        place = begin(admin, "one", MIB - 10)
        refused = admin.ask("PUT", "/api/images/raw/one", body=b"x" * 11)
        assert refused.status == 413
        assert "room for 10 more bytes" in refused.text
        admin.ask("DELETE", place)
        assert admin.ask("PUT", "/api/images/raw/one", body=b"x" * 11).status == 200


@pytest.mark.lasting_store
def test_a_killed_daemon_loses_no_acknowledged_offset(tmp_path: Path) -> None:
    content = os.urandom(40 * MIB)
    with Daemon(tmp_path).running() as daemon:
        place = begin(daemon.admin, "killed", len(content))
        offset = 0
        for part in (5 * MIB, 1, 9 * MIB + 3):
            answer = send(daemon.admin, place, offset, content[offset : offset + part])
            offset = int(answer.headers["Upload-Offset"])
            # In the middle of the next part:
            send_half(
                daemon.admin, place, offset, content[offset : offset + MIB], len(content) - offset
            )
            assert daemon.process is not None
            daemon.process.kill()
            daemon.process.wait()
            daemon.admin.hang_up()
            daemon.start()
            known = offset_of(daemon.admin, place)
            assert offset <= known <= offset + MIB
            offset = known
        answer = send(daemon.admin, place, offset, content[offset:], last=True)
        assert answer.json["checksum"]["value"] == hashlib.sha256(content).hexdigest()
        assert daemon.admin.ask("GET", "/api/images/raw/killed").body == content
        assert daemon.admin.ask("GET", "/api/uploads").json == []
