"""A server that says over real TLS what a test tells it to, true or not.

A route's script gets the :class:`Asked` and answers bytes to be sent as they
are; ``CLOSE`` at their end closes the connection, which otherwise is kept.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import define, field, frozen
from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.endpoints import SSL4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import PrivateCertificate

CLOSE = b"\0close\0"
"""At the end of an answer: and then hang up."""

SILENCE = b""
"""No answer, for ever."""


@frozen
class Asked:
    """A request: its body is there only if the script was marked ``whole``."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""


Script = Callable[[Asked], bytes]


def whole(script: Script) -> Script:
    """Mark a script that wants the body: it is sent ``100 Continue`` for it."""

    def wanting(asked: Asked) -> bytes:
        return script(asked)

    wanting.whole = True  # type: ignore[attr-defined]
    return wanting


def reply(status: int, body: bytes = b"", **headers: Any) -> bytes:
    """An honest reply; header names with underscores for dashes."""
    lines = {"Content-Length": len(body), **{k.replace("_", "-"): v for k, v in headers.items()}}
    head = "".join(f"{k}: {v}\r\n" for k, v in lines.items() if v is not None)
    return f"HTTP/1.1 {status} Whatever\r\n{head}\r\n".encode() + body


def json_reply(document: Any, status: int = 200, **headers: Any) -> bytes:
    """A reply with a JSON body."""
    body = json.dumps(document).encode()
    return reply(status, body, Content_Type="application/json", **headers)


def problem(name: str, status: int, detail: str) -> bytes:
    """A refusal as the server words it."""
    body = {"type": f"urn:repoman:error:{name}", "status": status, "detail": detail}
    return reply(status, json.dumps(body).encode(), Content_Type="application/problem+json")


def repr_digest(content: bytes) -> str:
    """The Repr-Digest of some bytes."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:"


def serve_file(content: bytes, **lies: Any) -> Script:
    """An honest download, with ranges; ``lies`` replace headers, or remove them with None."""

    def script(asked: Asked) -> bytes:
        digest = hashlib.sha256(content).hexdigest()
        headers: dict[str, Any] = {
            "ETag": f'"{digest}"', "Repr-Digest": repr_digest(content), **lies
        }  # fmt: skip
        start, status, body = 0, 200, content
        span = re.fullmatch(r"bytes=(\d+)-", asked.headers.get("range", ""))
        if span and asked.headers.get("if-range") in (None, headers["ETag"]):
            start, status = int(span[1]), 206
            body = content[start:]
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if asked.method == "HEAD":
            return reply(status, b"", **{"Content-Length": len(content), **headers})
        return reply(status, body, **headers)

    return script


@define
class ScriptedServer:
    """Listens on a free port of 127.0.0.1.

    :ivar scripts: by ``METHOD /path`` (without the query); a list is used up one by one.
    :ivar asked: all that was asked.
    :ivar connected: how many connections there were.
    :ivar says_continue: uploads with a ``whole`` script are given leave.
    :ivar shown: the certificates that clients showed, one for each request.
    :ivar piece: bytes of an answer that are sent at a time, with ``pause()`` seconds in between.
    :ivar received: bytes that came after an answer, that is of bodies sent in vain.
    """

    scripts: dict[str, Script | list[Script]] = field(factory=dict)
    asked: list[Asked] = field(factory=list)
    shown: list[Any] = field(factory=list)
    received: int = 0
    says_continue: bool = True
    piece: int = 2**30
    pause: Callable[[], float] = lambda: 0.0
    connected: int = 0
    port: int = 0
    _listening: Any = None
    _connections: list[Any] = field(factory=list)

    @property
    def url(self) -> str:
        """Where to reach it."""
        return f"https://localhost:{self.port}"

    async def start(
        self, reactor: Any, certificate: Path, key: Path, interface: str = "127.0.0.1"
    ) -> None:
        """Listen."""
        pem = certificate.read_text() + key.read_text()
        options = PrivateCertificate.loadPEM(pem).options()
        options.getContext().set_verify(SSL.VERIFY_PEER, lambda *_: True)
        endpoint = SSL4ServerEndpoint(reactor, 0, options, interface=interface)
        factory = Factory.forProtocol(_Connection)
        factory.server = self  # type: ignore[attr-defined]
        self._listening = await endpoint.listen(factory)
        self.port = self._listening.getHost().port

    def send(self, data: bytes) -> None:
        """Send something more on the newest connection."""
        self._connections[-1].transport.write(data)

    async def stop(self) -> None:
        """Stop listening and hang up."""
        for connection in list(self._connections):
            connection.transport.abortConnection()
        await self._listening.stopListening()

    def paths(self) -> list[str]:
        """``METHOD /path`` of all that was asked."""
        return [f"{a.method} {a.path}" for a in self.asked]

    def script(self, asked: Asked) -> Script:
        """What to do about a request."""
        key = f"{asked.method} {asked.path.partition('?')[0]}"
        if asked.method == "HEAD" and key not in self.scripts:
            return self.head_of(self.scripts.get(key.replace("HEAD", "GET")))
        found = self.scripts.get(key) or (lambda _: problem("Missing", 404, f"No {key}."))
        return (found.pop(0) if len(found) > 1 else found[0]) if isinstance(found, list) else found

    def head_of(self, found: Script | list[Script] | None) -> Script:
        """A HEAD as the last of the GETs (RFC 9110 section 9.3.2): it is none of them."""
        script = found[-1] if isinstance(found, list) else found
        if script is None:
            return lambda asked: problem("Missing", 404, f"No {asked.path}.")
        return script


class _Connection(Protocol):
    def connectionMade(self) -> None:
        self.server: ScriptedServer = self.factory.server  # type: ignore[union-attr]
        self.server._connections.append(self)
        self.server.connected += 1
        self.buffer, self.waiting, self.answered = b"", None, False

    def connectionLost(self, reason: Any = None) -> None:
        self.server._connections.remove(self)

    def dataReceived(self, data: bytes) -> None:
        if self.answered and not data.startswith((b"GET", b"HEAD", b"POST", b"DELETE")):
            self.server.received += len(data)
            return
        self.answered = False
        self.buffer += data
        if self.waiting is None and b"\r\n\r\n" in self.buffer:
            head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
            first, *lines = head.decode().split("\r\n")
            method, path, _version = first.split(" ")
            headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
            asked = Asked(method, path, headers)
            script = self.server.script(asked)
            self.waiting = asked, script
            if getattr(script, "whole", False) and self.server.says_continue:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self.waiting is not None:
            self.go_on(*self.waiting)

    def go_on(self, asked: Asked, script: Script) -> None:
        length = int(asked.headers.get("content-length", "0"))
        wants_body = getattr(script, "whole", False) or "json" in asked.headers.get(
            "content-type", ""
        )
        if wants_body and len(self.buffer) < length:
            return
        self.waiting = None
        if wants_body:
            asked = Asked(asked.method, asked.path, asked.headers, self.buffer[:length])
        self.buffer = b""
        self.server.asked.append(asked)
        if shown := self.transport.getPeerCertificate():
            self.server.shown.append(shown)
        self.answered = True
        answer = script(asked)
        if asked.method == "HEAD":
            head, end, _ = answer.partition(b"\r\n\r\n")
            answer = head + end + CLOSE * answer.endswith(CLOSE)
        self.say(answer.removesuffix(CLOSE), answer.endswith(CLOSE))

    def say(self, data: bytes, hangs_up: bool) -> None:
        self.transport.write(data[: self.server.piece])
        if rest := data[self.server.piece :]:
            reactor.callLater(self.server.pause(), self.say, rest, hangs_up)  # type: ignore[attr-defined]
        elif hangs_up:
            self.transport.loseConnection()
