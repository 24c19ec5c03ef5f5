"""Where one request ends and the next begins: one reading only, or a refusal."""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Iterable
from contextlib import suppress

import pytest

from tests.server import Daemon, Person

PUT = b"PUT /api/images/raw/framed HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = PUT + b"Transfer-Encoding: chunked\r\n"
NEXT = b"GET /api/whoami HTTP/1.1\r\nHost: localhost\r\n\r\n"
BODY = b"3\r\nabc\r\n0\r\n\r\n"


@pytest.fixture(scope="module")
def alice(daemon: Daemon) -> Person:
    person = daemon.newcomer()
    person.ask("POST", "/api/images", form={"name": "framed"})
    return person


def dial(person: Person) -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", person.daemon.https), timeout=20)
    return person.tls.wrap_socket(plain, server_hostname="localhost")


def say(person: Person, pieces: Iterable[bytes], answers: int = 1, pause: float = 0.0) -> list[int]:
    """The statuses that came back: as many ``answers`` as expected, and whatever follows soon."""
    received = b""
    with dial(person) as line:
        with suppress(OSError):  # it need not read on
            for piece in pieces:
                line.sendall(piece)
                time.sleep(pause)
        with suppress(OSError):
            line.settimeout(10)
            while block := line.recv(65536):
                received += block
                if len(statuses(received)) >= answers:
                    line.settimeout(0.4)
    return statuses(received)


def statuses(received: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d+) ", received)]


TWO_READINGS = {
    "two lengths": PUT + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "a list of lengths": PUT + b"Content-Length: 3, 3\r\n\r\nabc",
    "a signed length": PUT + b"Content-Length: +3\r\n\r\nabc",
    "a hexadecimal length": PUT + b"Content-Length: 0x3\r\n\r\nabc",
    "an empty length": PUT + b"Content-Length:\r\n\r\nabc",
    "a folded length": PUT + b"Content-Length: 3\r\n 0\r\n\r\nabc",
    "digits of another script": PUT + "Content-Length: ٣\r\n\r\nabc".encode(),
    "a blank before the colon": PUT + b"Content-Length : 3\r\n\r\nabc",
    "a folded first line": PUT.replace(b"\r\nH", b"\r\n H") + b"Content-Length: 3\r\n\r\nabc",
    "length and chunks": PUT + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n" + BODY,
    "chunks and length": CHUNKED + b"Content-Length: 3\r\n\r\n" + BODY,
    "chunks with parameters": PUT + b"Transfer-Encoding: chunked;q=1\r\n\r\n" + BODY,
    "a vertical tab": PUT + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + BODY,
    "a bare LF": PUT + b"X: a\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc",
    "a bare CR": PUT + b"X: a\rTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc",
    "a NUL in a value": PUT + b"X: a\0b\r\nContent-Length: 3\r\n\r\nabc",
    "a NUL in a name": PUT + b"X\0: a\r\nContent-Length: 3\r\n\r\nabc",
    "headers ended by LF": b"GET /api/whoami HTTP/1.1\r\nHost: localhost\r\n\n",
    "LF in an extension": CHUNKED + b"\r\n3;a\nb\r\nabc\r\n0\r\n\r\n",
    "CR in an extension": CHUNKED + b"\r\n3;a\rb\r\nabc\r\n0\r\n\r\n",
    "chunks ended by LF": CHUNKED + b"\r\n3\nabc\n0\n\n\r\n",
    "a blank after a size": CHUNKED + b"\r\n3 \r\nabc\r\n0\r\n\r\n",
    "a size with a prefix": CHUNKED + b"\r\n0x3\r\nabc\r\n0\r\n\r\n",
    "a size with an underscore": CHUNKED + b"\r\n0_3\r\nabc\r\n0\r\n\r\n",
    "no size": CHUNKED + b"\r\n\r\nabc\r\n0\r\n\r\n",
    "more than the size": CHUNKED + b"\r\n3\r\nabcd\r\n0\r\n\r\n",
    "another protocol": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no version": b"GET /api/whoami\r\n\r\n",
    "two blanks": b"GET  /api/whoami HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "10,000 headers": PUT + b"".join(b"A%d: b\r\n" % n for n in range(10_000)) + b"\r\n",
}


@pytest.mark.parametrize("data", TWO_READINGS.values(), ids=TWO_READINGS)
def test_what_has_two_readings_is_refused_with_all_that_follows(alice: Person, data: bytes) -> None:
    assert say(alice, [data + NEXT]) in ([400], [431])
    assert alice.ask("GET", "/api/images/raw/framed").status == 404, "nothing was stored"


ONE_READING = {
    "zeros before a length": PUT + b"Content-Length: 0003\r\n\r\nabc",
    "extensions": CHUNKED + b"\r\n3;a=b;c\r\nabc\r\n0;d\r\n\r\n",
    "a folded encoding": PUT + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + BODY,
    "trailers change nothing": CHUNKED + b"\r\n3\r\nabc\r\n0\r\nContent-Length: 99\r\nX: y\r\n\r\n",
}


@pytest.mark.parametrize("data", ONE_READING.values(), ids=ONE_READING)
@pytest.mark.parametrize("byte_by_byte", [False, True])
def test_what_has_one_reading_is_stored_and_the_next_answered(
    daemon: Daemon, data: bytes, byte_by_byte: bool
) -> None:
    person, everything = daemon.newcomer(), data + NEXT
    person.ask("POST", "/api/images", form={"name": "framed"})
    pieces = [everything[n : n + 1] for n in range(len(everything))]
    assert say(person, pieces if byte_by_byte else [everything], 2) == [200, 200]
    assert person.ask("GET", "/api/images/raw/framed").body == b"abc"


@pytest.mark.parametrize(
    "headers", [b"Content-Length: 0\r\n\r\n", b"", b"Content-Length: 3\r\n\r\n"]
)
def test_the_end_of_the_headers_is_the_only_end(alice: Person, headers: bytes) -> None:
    """Requests without a body, without an end, and with one that nobody asked for."""
    get = b"GET /api/whoami HTTP/1.1\r\nHost: localhost\r\n"
    body = b"abc" if b"3" in headers else b""
    expected = [200, 200] if headers else [200]
    data = get + headers + body + (NEXT if headers else b"\r\n")
    assert say(alice, [data], len(expected)) == expected


@pytest.mark.parametrize(
    ("rest", "answers", "stored"),
    [
        (b"\r\n", [411], b"old"),
        (b"Content-Length: 0\r\n\r\n", [200], b""),
        (b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", [200], b""),
        (b"Content-Length: -1\r\n\r\n", [400], b"old"),
        (b"Content-Length: 99999999999999999\r\n\r\n", [413], b"old"),
        (b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", [400], b"old"),
        (b"Content-Length: 3\r\n\r\nabcdef\r\n\r\n", [200, 400], b"abc"),
    ],
    ids=["none", "0", "0 in chunks", "negative", "over the limit", "no number", "too short"],
)
def test_a_length_is_what_counts(
    daemon: Daemon, rest: bytes, answers: list[int], stored: bytes
) -> None:
    person = daemon.newcomer()
    person.ask("POST", "/api/images", form={"name": "framed"})
    person.ask("PUT", "/api/images/raw/framed", body=b"old")
    assert say(person, [PUT + rest], len(answers)) == answers
    assert person.ask("GET", "/api/images/raw/framed").body == stored


@pytest.mark.parametrize("expectation", [b"", b"Expect: 100-continue\r\n"])
def test_requests_in_a_refused_body_are_never_executed(alice: Person, expectation: bytes) -> None:
    delete = b"DELETE /api/images/framed HTTP/1.1\r\nHost: localhost\r\n\r\n"
    refused = b"PUT /api/images/raw/nope HTTP/1.1\r\nHost: localhost\r\n" + expectation
    refused += b"Content-Length: 10000000\r\n\r\n"
    assert say(alice, [refused, delete * 100, delete * 100], pause=0.2) == [404]
    assert say(alice, [refused + delete * 100]) == [404]
    assert alice.ask("GET", "/api/images/framed").status == 200


def test_a_refused_body_that_is_there_costs_no_connection(alice: Person) -> None:
    refused = b"PUT /api/images/raw/nope HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
    assert say(alice, [refused % len(NEXT) + NEXT + NEXT], 2) == [404, 200]


def test_an_expectation_of_http_1_0_is_ignored(daemon: Daemon) -> None:
    """RFC 9110 section 10.1.1."""
    person = daemon.newcomer()
    person.ask("POST", "/api/images", form={"name": "framed"})
    data = PUT.replace(b"/1.1", b"/1.0") + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc"
    assert say(person, [data]) == [200], "no 100"
    assert person.ask("GET", "/api/images/raw/framed").body == b"abc"


def test_a_method_or_target_of_odd_shape_is_a_refusal(alice: Person) -> None:
    odd = [b"CONNECT localhost:443", b"OPTIONS *", b"TRACE /api/whoami", b"X" * 9000 + b" /"]
    answers = [say(alice, [line + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"]) for line in odd]
    assert {status for [status] in answers} <= {400, 404, 405}


def test_nothing_above_left_a_traceback(daemon: Daemon) -> None:
    assert "Traceback" not in daemon.log.read_text()
