"""The channel against any bytes: no fault of ours, and the same reading however they are cut."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.web.server import NOT_DONE_YET

from repoman.errors import ClientGone, RepomanError
from tests.test_channel import Connection, Page, Sink, answer

FRAGMENTS = [
    b"GET / HTTP/1.1\r\n", b"PUT /a HTTP/1.1\r\n", b"PUT /a HTTP/1.0\r\n", b"PRI * HTTP/2.0\r\n",
    b"Host: x\r\n", b"Host: y\r\n", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n",
    b"Content-Length: 50\r\n", b"Content-Length: -1\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n", b"Expect: 100-continue\r\n", b"Connection: close\r\n",
    b"X: y\r\n", b" folded\r\n", b"X : y\r\n", b"X: \xff\r\n", b"X: \0\r\n", b"\r\n", b"\r\n\r\n",
    b"\n", b"\r", b"hello", b"5\r\nhello\r\n", b"5;x=y\r\nhello\r\n", b"0\r\n\r\n",
    b"0\r\nT: u\r\n\r\n", b"zz\r\n", b"5\r\nhello", b" ", b":", b"%00",
    b"\x16\x03\x01", b"A" * 20_000,
]  # fmt: skip
PUT = b"PUT /a HTTP/1.1\r\nHost: x\r\n"
CHUNKED = PUT + b"Transfer-Encoding: chunked\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
REFUSED = b"PUT /no HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(GET)
REQUESTS = [
    GET,
    REFUSED,
    REFUSED + GET,
    PUT,
    PUT + b"Content-Length: 5\r\n\r\n",
    PUT + b"Content-Length: 5\r\n\r\nhello",
    PUT + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
    CHUNKED,
    CHUNKED + b"5;x=y\r\nhello\r\n5\r\nhello\r\n0\r\nT: u\r\n\r\n",
]

streams = st.lists(
    st.one_of(st.sampled_from(REQUESTS), st.sampled_from(FRAGMENTS), st.binary(max_size=6)),
    max_size=8,
).map(b"".join)


class Echo(Page):
    """Answers a body with itself, or refuses it unread."""

    def render(self, request: Any) -> int:
        if request.path == b"/no":
            answer(request, 403)
            return NOT_DONE_YET
        Deferred.fromCoroutine(self._answer(request))
        return NOT_DONE_YET

    async def _answer(self, request: Any) -> None:
        sink = Sink()
        try:
            await request.body.deliver_to(sink)
        except ClientGone:
            request.abandon()
        except RepomanError:
            answer(request, 400)
        else:
            answer(request, 200, sink.data)


def exchange(pieces: list[bytes]) -> list[tuple[bytes, bytes]]:
    """What was answered: statuses, and the bodies of what was understood."""
    connection = Connection()
    connection.site.resource = Echo()
    for piece in pieces:
        connection.receive(piece)
        for _ in range(20):  # requests behind one another
            connection.clock.advance(0)
    sent = connection.wire.value().replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
    answers = re.findall(rb"HTTP/1\.[01] (\d+) .*?\r\n\r\n", sent, re.DOTALL)
    bodies = re.split(rb"HTTP/1\.[01] \d+ .*?\r\n\r\n", sent, flags=re.DOTALL)[1:]
    assert len(answers) == len(bodies)
    return [(s, body if s == b"200" else b"") for s, body in zip(answers, bodies, strict=True)]


@settings(max_examples=400)
@given(streams, st.data())
@example(REQUESTS[-1] * 2 + GET, None)
@example(PUT + b"Content-Length: 5\r\n\r\nhello" + GET, None)
@example(REFUSED + GET + GET, None)
def test_any_bytes_are_answered_by_200_or_4xx_and_read_alike_however_cut(
    stream: bytes, draw: Any
) -> None:
    whole = exchange([stream])
    assert all(status == b"200" or status.startswith(b"4") for status, _ in whole)
    start, rest = stream[:3000], stream[3000:]
    cuts = [[*(start[n : n + 1] for n in range(len(start))), rest]]
    if draw is not None:
        place = draw.draw(st.integers(0, len(stream)))
        cuts.append([stream[:place], stream[place:]])
    for pieces in cuts:
        answers = exchange(pieces)
        # A refusal before the end of a body is the last answer on its connection.
        assert answers == (whole[: len(answers)] if REFUSED in stream else whole)
