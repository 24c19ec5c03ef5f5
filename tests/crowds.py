"""A crowd of peers that want to keep others out: each holds a connection, and comes back when cut.

In a process of its own, so that the test's measurements are not about the crowd's work::

    with crowd(daemon.https, "line", 45, source="127.0.0.2"): ...
"""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache

HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(40)
"""Not the whole of a ClientHello."""

GET = b"GET /api/whoami HTTP/1.1\r\nHost: localhost\r\n\r\n"
FORM = (
    b"POST /api/images HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\n"
)
BODY = (
    b"PUT /api/images/raw/x/one HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Length: 1000000000000\r\n\r\n"
)
IMAGE = b"GET /api/images/raw/%s HTTP/1.1\r\nHost: localhost\r\n\r\n"
PROXIED = b"PROXY TCP4 %s 127.0.0.1 1 8443\r\n"

KINDS: dict[str, tuple[bool, bytes]] = {
    "nothing": (False, b""),
    "half a ClientHello": (False, HELLO),
    "a handshake": (True, b""),
    "half a line": (True, b"GET /api/who"),
    "one line": (True, b"GET /api/whoami HTTP/1.1\r\n"),
    "half a header": (True, b"GET /api/whoami HTTP/1.1\r\nHost: loc"),
    "all but the last line": (True, GET[:-2]),
    "one request": (True, GET),
    "one request and a line": (True, GET + b"GET /"),
    "many requests": (True, GET * 50),
    "a form without its body": (True, FORM + b"Content-Length: 30\r\n\r\nname="),
    "a form without an end": (True, FORM + b"Transfer-Encoding: chunked\r\n\r\n5\r\nname=\r\n"),
    "an image": (True, IMAGE),
    "a refused body without an end": (True, BODY),
}
"""What each peer says before it waits: whether over TLS, and the bytes."""

COMING = 100
"""How many come back in a second, if all are cut at once: handshakes alone can be too many."""

JUNK = bytes(65536)
"""What the body without an end consists of."""

UNREAD = {"an image", "many requests"}
"""Kinds of which nothing that comes is read."""


async def hold(
    port: int, kind: str, source: str, image: str, header: str, certificate: str
) -> None:
    """Hold a connection for as long as it is let."""
    with_tls, words = KINDS[kind]
    if b"%s" in words:
        words %= image.encode()
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, local_addr=(source, 0), limit=1024
    )
    try:
        writer.write(header.encode())
        if with_tls and port not in PLAIN:
            await writer.start_tls(context(certificate))
        writer.write(words)
        THERE.append(port)
        if kind in UNREAD:
            writer.transport.pause_reading()  # type: ignore[attr-defined]  # asyncio's has it
            await asyncio.sleep(15)
        while words.startswith(BODY):
            writer.write(JUNK)
            await writer.drain()
            await asyncio.sleep(0)  # what is written after the server's goodbye waits for nothing
        while await reader.read(1024):
            pass
    finally:
        writer.transport.abort()


PLAIN: set[int] = set()
"""Ports without TLS."""

THERE: list[int] = []
"""One for each time that somebody has said what they came to say."""


@cache
def context(certificate: str) -> ssl.SSLContext:
    """Trusts everybody, and shows what is in a file, if one is named."""
    found = ssl.create_default_context()
    found.check_hostname, found.verify_mode = False, ssl.CERT_NONE
    if certificate:
        found.load_cert_chain(certificate)
    return found


async def stay(pause: float, *args: str | int) -> None:
    """Hold one connection after the other."""
    while True:
        with suppress(OSError, EOFError):
            await hold(*args)  # type: ignore[arg-type]  # from the command line
        await asyncio.sleep(pause)


async def main(orders: dict[str, object]) -> None:
    """Be the crowd, until killed."""
    count = orders.pop("count")
    PLAIN.update(orders.pop("plain"))  # type: ignore[call-overload]  # a list
    staying = [asyncio.create_task(stay(count / COMING, *orders.values())) for _ in range(count)]  # type: ignore[call-overload, arg-type]  # as crowd() wrote them
    while len(THERE) < count:  # type: ignore[operator]  # a number
        await asyncio.sleep(0.02)
    print("there", flush=True)
    await asyncio.gather(*staying)


@contextmanager
def crowd(
    port: int,
    kind: str,
    count: int,
    *,
    source: str = "127.0.0.1",
    image: str = "",
    header: str = "",
    certificate: str = "",
    plain: bool = False,
) -> Iterator[None]:
    """Such peers are there while the block runs.

    :param source: the address that they come from.
    :param header: what each says first, for the PROXY protocol.
    :param certificate: the file of what each shows.
    """
    orders = {
        "port": port, "kind": kind, "source": source, "image": image, "header": header,
        "certificate": certificate, "count": count, "plain": [port] if plain else [],
    }  # fmt: skip
    command = [sys.executable, __file__, json.dumps(orders)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "there\n"
            yield
        finally:
            process.kill()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
