"""An object store that talks nonsense costs one line of the log, never a traceback, and no end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_twisted
from attrs import define
from test_what_is_told import told
from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory, Protocol

from repoman.errors import StoreAbsent, StoreUnavailable
from repoman.storage.s3.bucket import Bucket
from repoman.storage.s3.client import Client
from repoman.storage.s3.content import Content
from repoman.storage.s3.credentials import Credentials
from repoman.storage.s3.signing import Signer

MOST = 20
"""Requests that an answer may cause; a loop makes more."""


@define
class Script:
    """What is answered, to every request."""

    answer: bytes = b""
    asked: int = 0


class Nonsense(Protocol):
    """Answers by the script, whatever is asked."""

    def dataReceived(self, data: bytes) -> None:
        script: Script = self.factory.script  # type: ignore[union-attr]  # see odd()
        script.asked += 1
        assert self.transport is not None
        if script.asked < MOST:
            self.transport.write(script.answer)
        self.transport.loseConnection()


@pytest_twisted.async_yield_fixture
async def odd() -> AsyncIterator[tuple[Bucket, Script]]:
    factory = Factory.forProtocol(Nonsense)
    factory.script = script = Script()  # type: ignore[attr-defined]  # for the protocol
    port = await serverFromString(reactor, "tcp:0:interface=127.0.0.1").listen(factory)
    signer = Signer(Credentials("key", "secret"), "here")
    client = Client(reactor, f"http://127.0.0.1:{port.getHost().port}", "bucket", signer, None)
    yield Bucket(client, "bucket"), script
    await client.close()
    await port.stopListening()


def reply(body: str = "", *headers: str, status: int = 200) -> bytes:
    length = [] if any(h.lower().startswith("content-length") for h in headers) else [len(body)]
    lines = [f"HTTP/1.1 {status} Odd", *headers, *(f"Content-Length: {n}" for n in length)]
    return "\r\n".join([*lines, "", body]).encode("utf-8", "surrogateescape")


def parts(number: str = "1", size: str = "5", etag: str = "x", more: str = "") -> bytes:
    return reply(
        f"<ListPartsResult>{more}<Part><PartNumber>{number}</PartNumber><Size>{size}</Size>"
        f"<ETag>{etag}</ETag></Part></ListPartsResult>"
    )


def listing(more: str) -> bytes:
    return reply(f"<List><IsTruncated>true</IsTruncated>{more}</List>")


async def drain(found: AsyncIterator[Any]) -> None:
    async for _ in found:
        pass


def said(lines: list[str]) -> list[str]:
    """Lines that are not Twisted's own about its connections."""
    return [line for line in lines if " factory " not in line]


Asking = Callable[[Bucket], Awaitable[object]]

HEAD: Asking = lambda b: b.head("k")  # noqa: E731 # a table of questions
PARTS: Asking = lambda b: b.parts("k", "u")  # noqa: E731
KEYS: Asking = lambda b: drain(b.keys("p"))  # noqa: E731
UPLOADS: Asking = lambda b: drain(b.uploads("p"))  # noqa: E731
BEGIN: Asking = lambda b: b.begin("k")  # noqa: E731
SEND: Asking = lambda b: b.send_part("k", "u", 1, Content.of(b"x"))  # noqa: E731
COPY: Asking = lambda b: b.copy_part("k", "u", 1, "s", 0, 5)  # noqa: E731
NUMBERS = ("", "x", "-1", "1.5", "1e3", " ", "٣²", "9" * 30, "9" * 5000, "NaN", "0x10", "1_0")
MOVING = "<IsTruncated>true</IsTruncated><NextPartNumberMarker>%s</NextPartNumberMarker>"

CASES: list[tuple[Asking, bytes]] = [
    *[(HEAD, reply("", f"Content-Length: {n}", "ETag: x")) for n in ("9" * 30, "9" * 5000)],
    (HEAD, reply("", "Content-Length: 5")),
    (HEAD, b"HTTP/1.1 200 OK\r\nETag: x\r\n\r\n"),
    *[(PARTS, parts(number=n)) for n in NUMBERS],
    *[(PARTS, parts(size=n)) for n in NUMBERS],
    (PARTS, parts(etag="")),
    *[(PARTS, parts(more=MOVING % n)) for n in (*NUMBERS, "0", "1")],
    (PARTS, reply("not XML")),
    (PARTS, reply('<?xml version="1.0" encoding="utf-7"?><a/>')),
    (PARTS, reply('<?xml version="1.0" encoding="shift_jis"?><a/>')),
    (PARTS, reply('<?xml version="1.0" encoding="none"?><a/>')),
    (PARTS, reply("<a>" * 10_000)),
    (KEYS, listing("")),
    (KEYS, listing("<NextContinuationToken>same</NextContinuationToken>")),
    (UPLOADS, listing("")),
    (UPLOADS, listing("<NextKeyMarker>k</NextKeyMarker><NextUploadIdMarker/>")),
    (BEGIN, reply("<Result/>")),
    (BEGIN, reply("")),
    (SEND, reply("")),
    (COPY, reply("<Result/>")),
    (COPY, reply("<Result><ETag>&quot;&quot;</ETag></Result>")),
]


@pytest.mark.parametrize("number", range(len(CASES)))
@pytest_twisted.ensureDeferred
async def test_an_odd_answer_of_the_store_is_one_line(
    odd: tuple[Bucket, Script], number: int
) -> None:
    bucket, script = odd
    ask, script.answer = CASES[number]
    with told() as lines, pytest.raises(StoreUnavailable):
        await ask(bucket)
    assert script.asked < MOST
    [line] = said(lines)
    assert line.startswith("object store: ")


@pytest.mark.parametrize("pause", ["nan", "-1", "inf", "1e999", "soon", "\udcff", "٣"])
@pytest_twisted.ensureDeferred
async def test_an_odd_time_to_wait_is_none(odd: tuple[Bucket, Script], pause: str) -> None:
    bucket, script = odd
    script.answer = reply("", f"Retry-After: {pause}", status=503)
    bucket.client.reactor = Hasty(reactor)
    with told() as lines, pytest.raises(StoreAbsent):
        await bucket.head("k")
    assert len(said(lines)) == 1, lines


class Hasty:
    """A reactor on which a second is over soon."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.now = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def seconds(self) -> float:
        return self.now

    def callLater(self, seconds: float, *args: Any, **kwargs: Any) -> Any:
        assert seconds >= 0
        if seconds < 10:  # what a test waits for, not what guards it
            self.now += 10
            seconds = 0
        return self._real.callLater(seconds, *args, **kwargs)
