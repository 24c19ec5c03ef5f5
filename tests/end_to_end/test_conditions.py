"""Conditions, ranges and digests in header fields: what a request asks is what is done."""

from __future__ import annotations

import base64
import hashlib
import os
import threading
import time
import zlib
from typing import Any

import pytest

from tests.end_to_end.conftest import MIB
from tests.server import Answer, Daemon, Person

CONTENT = b"0123456789"
RAW = "/api/images/raw/one"


@pytest.fixture
def alice(daemon: Daemon) -> Person:
    person = daemon.newcomer()
    person.ask("POST", "/api/images", form={"name": "one"})
    person.ask("PUT", RAW, body=CONTENT)
    return person


def with_lines(
    person: Person, method: str, lines: list[tuple[str, str]], body: bytes = b""
) -> Answer:
    """Make a request whose fields may come more than once."""
    connection = person.connection()
    connection.putrequest(method, RAW)
    for name, value in lines:
        connection.putheader(name, value)
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    response = connection.getresponse()
    headers = {name.title(): value for name, value in response.getheaders()}
    answer = Answer(response.status, response.reason, headers, response.read())
    connection.close()
    return answer


def test_a_list_may_come_in_several_lines(alice: Person) -> None:
    """RFC 9110 section 5.3."""
    tag = alice.ask("HEAD", RAW).headers["Etag"]
    for tags in ((tag, '"x"'), ('"x"', tag)):
        assert with_lines(alice, "GET", [("If-None-Match", t) for t in tags]).status == 304
        assert with_lines(alice, "GET", [("If-Match", t) for t in tags]).status == 200
    wanted = [("Want-Digest", "adler32;q=0.1"), ("Want-Digest", "sha-256")]
    assert "sha-256" in with_lines(alice, "GET", wanted).headers["Digest"]
    twice = [("Range", "bytes=0-1"), ("Range", "bytes=3-4")]
    assert with_lines(alice, "GET", twice).body == CONTENT, "several ranges are none"


def digests(content: bytes) -> dict[str, bytes]:
    """The digests of ``content`` by their names in RFC 9530."""
    found = {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512, "md5": hashlib.md5}
    known = {name: new(content).digest() for name, new in found.items()}
    return {**known, "adler": zlib.adler32(content).to_bytes(4, "big")}


def test_the_digests_of_a_file_have_their_registered_names(alice: Person) -> None:
    """RFC 9530 section 7.2: ``adler``, which RFC 3230 calls ``adler32``."""
    wanted = {
        f"{name}=:{base64.b64encode(digest).decode()}:" for name, digest in digests(CONTENT).items()
    }
    for _ in range(100):  # the last three come a moment after the upload
        answer = alice.ask("HEAD", RAW, headers={"Want-Digest": "adler32"})
        if set(answer.headers["Repr-Digest"].split(", ")) == wanted:
            break
        time.sleep(0.1)
    assert set(answer.headers["Repr-Digest"].split(", ")) == wanted
    assert answer.headers["Digest"] == f"adler32={digests(CONTENT)['adler'].hex()}"


@pytest.mark.parametrize(
    "announced",
    [
        ("Digest", "adler32=3DA0195"),
        ("Digest", "ADLER32=03da0195"),
        ("Repr-Digest", "adler=:A9oBlQ==:"),
        ("Repr-Digest", "adler=:A9oBlQ:"),
        ("Repr-Digest", "adler=:A9oBlQ==:;by=us"),
    ],
)
def test_a_digest_counts_in_every_form_that_its_field_allows(
    alice: Person, announced: tuple[str, str]
) -> None:
    """The example of IANA's registry for RFC 3230; RFC 8941 sections 3.1.2 and 4.2.7."""
    assert with_lines(alice, "PUT", [announced], b"Wiki").status == 200
    assert with_lines(alice, "PUT", [announced], b"wiki").status == 400
    assert alice.ask("GET", RAW).body == b"Wiki"


@pytest.mark.parametrize("other", ["unknown=:AA==:", "sha-512"])
def test_no_announced_digest_is_overlooked(alice: Person, other: str) -> None:
    if other == "sha-512":
        right = base64.b64encode(hashlib.sha512(b"abc").digest()).decode()
        other = f"sha-512=:{right}:"
    wrong = f"sha-256=:{base64.b64encode(bytes(32)).decode()}:"
    for fields in ((wrong, other), (other, wrong)):
        answer = with_lines(alice, "PUT", [("Repr-Digest", f) for f in fields], b"abc")
        assert answer.status == 400, answer
    assert alice.ask("GET", RAW).body == CONTENT


def test_a_range_of_another_file_is_never_added_to_this_one(alice: Person) -> None:
    """An If-Range with a date, though both files are of one second (RFC 9110 section 13.1.5)."""
    for number in range(5):
        old, new = b"%d: the old one" % number, b"%d: the new one" % number
        alice.ask("PUT", RAW, body=old)
        begun = alice.ask("GET", RAW, headers={"Range": "bytes=0-5"})
        since = begun.headers["Last-Modified"]
        going_on = {"Range": "bytes=6-", "If-Range": since}
        assert alice.ask("GET", RAW, headers=going_on).status == 206
        alice.ask("PUT", RAW, body=new)
        answer = alice.ask("GET", RAW, headers=going_on)
        assert (answer.status, answer.body) == (200, new)


@pytest.mark.parametrize(
    ("if_range", "status"),
    [
        ("tag", 206),
        ("W/tag", 200),
        ('tag, "x"', 200),
        ('"x"', 200),
        ("date", 206),
        ("Mon, 01 Jan 2024 00:00:00 GMT", 200),
        ("Mon, 01 Jan 2040 00:00:00 GMT", 200),
        ("nonsense", 200),
    ],
)
def test_a_range_counts_only_under_the_strong_validator_of_these_bytes(
    alice: Person, if_range: str, status: int
) -> None:
    known = alice.ask("HEAD", RAW).headers
    value = if_range.replace("tag", known["Etag"]).replace("date", known["Last-Modified"])
    answer = alice.ask("GET", RAW, headers={"Range": "bytes=0-3", "If-Range": value})
    assert (answer.status, answer.body) == (status, CONTENT[:4] if status == 206 else CONTENT)


@pytest.mark.parametrize(
    ("asked", "status", "body"),
    [
        ("bytes=9-100", 206, b"9"),
        ("bytes=-100", 206, CONTENT),
        ("bytes=0-0,2-3", 200, CONTENT),
        ("bytes=", 200, CONTENT),
        ("bytes=-", 200, CONTENT),
        ("bytes=+0-1", 200, CONTENT),
        ("bytes=0-1;x", 200, CONTENT),
        ("bytes=0-18446744073709551616", 206, CONTENT),
        ("bytes=-18446744073709551616", 206, CONTENT),
        ("bytes=99999999999999999999999-", 416, None),
        (f"bytes={'9' * 6000}-", 200, CONTENT),
        ("bytes=9223372036854775808-", 416, None),
    ],
)
def test_ranges_at_the_edge(alice: Person, asked: str, status: int, body: bytes | None) -> None:
    answer = alice.ask("GET", RAW, headers={"Range": asked})
    assert answer.status == status
    assert body is None or answer.body == body


def test_an_empty_file_has_no_ranges(alice: Person) -> None:
    assert alice.ask("PUT", RAW, body=b"").status == 200
    for asked in ("bytes=0-", "bytes=0-0", "bytes=-1"):
        refused = alice.ask("GET", RAW, headers={"Range": asked})
        assert (refused.status, refused.headers["Content-Range"]) == (416, "bytes */0")
    whole = alice.ask("GET", RAW)
    assert (whole.status, whole.headers["Content-Length"], whole.body) == (200, "0", b"")


def test_an_upload_may_be_bound_to_a_date_too(alice: Person) -> None:
    seen = {"If-Unmodified-Since": alice.ask("HEAD", RAW).headers["Last-Modified"]}
    assert alice.ask("PUT", RAW, body=b"new", headers=seen).status == 200
    assert alice.ask("PUT", RAW, body=b"newer", headers=seen).status == 412
    assert alice.ask("GET", RAW).body == b"new"


def test_of_two_uploads_under_one_condition_one_is_refused(alice: Person) -> None:
    """The condition is asked again when the file takes its place: no update is lost."""
    tag = alice.ask("HEAD", RAW).headers["Etag"]
    connections: list[Any] = []
    contents = [os.urandom(MIB), os.urandom(MIB)]
    for _ in contents:  # both have passed the first look
        connections.append(connection := alice.connection())
        connection.putrequest("PUT", RAW)
        connection.putheader("If-Match", tag)
        connection.putheader("Content-Length", str(MIB))
        connection.putheader("Expect", "100-continue")
        connection.endheaders()
        connection.sock.settimeout(20)
        assert connection.sock.recv(100).startswith(b"HTTP/1.1 100")
    rivals = [
        threading.Thread(target=c.send, args=[content])
        for c, content in zip(connections, contents, strict=True)
    ]
    for rival in rivals:
        rival.start()
    statuses = [connection.getresponse().status for connection in connections]
    for rival in rivals:
        rival.join()
    assert sorted(statuses) == [200, 412]
    assert alice.ask("GET", RAW).body == contents[statuses.index(200)]
