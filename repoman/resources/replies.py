"""Answers: JSON, and refusals as one line of text or as an RFC 9457 problem."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from attrs import field, frozen

from repoman.errors import (
    MethodNotAllowed,
    RepomanError,
    UnsatisfiableRange,
    UnsupportedMedia,
    WrongOffset,
)
from repoman.wire import KEPT_BY_NOBODY, PROBLEM_JSON, REASONS, problem, status_of

LONGEST_TEXT = 1200
"""Characters of a refusal that are told whole."""

ABOUT_BYTES = (
    "Accept-Ranges", "Content-Disposition", "Content-Range", "Digest", "ETag", "Last-Modified",
    "Repr-Digest",
)  # fmt: skip
"""Fields about a file that a refusal must not carry."""


@frozen
class Reply:
    """An answer with a small body.

    :ivar body: encoded as JSON; ``None`` for no body.
    """

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(factory=dict)


def send(request: Any, reply: Reply) -> None:
    """Write ``reply``, but do not finish the request."""
    data = b"" if reply.body is None else json.dumps(reply.body).encode()
    if data:
        request.setHeader("Content-Type", "application/json")
    for name, value in reply.headers.items():
        request.setHeader(name, value)
    if reply.status != 204:  # RFC 9110 section 8.6
        request.setHeader("Content-Length", str(len(data)))
    request.setResponseCode(reply.status)
    request.write(data)


def refuse(request: Any, error: RepomanError) -> None:
    """Write a refusal, but do not finish the request.

    Nothing, if an answer has begun: then the only honest end is a cut.
    """
    if request.startedWriting:
        request.abandon()
        return
    request.refusal = error.message  # for who looks at the refusals later
    status = status_of(error)
    for name in ABOUT_BYTES:
        request.responseHeaders.removeHeader(name)
    if "json" in (request.getHeader("accept") or "").lower():
        request.setHeader("Content-Type", PROBLEM_JSON)
        told = problem(error).items()
        shown = {
            name: shortened(value) if isinstance(value, str) else value for name, value in told
        }
        data = json.dumps(shown).encode()
    else:
        request.setHeader("Content-Type", "text/plain; charset=utf-8")
        line = shortened(" ".join(error.message.splitlines()))
        data = line.encode("utf-8", "replace") + b"\n"
    for name, value in special_headers(error).items():
        request.setHeader(name, value)
    request.setHeader("Cache-Control", KEPT_BY_NOBODY)
    request.setHeader("Content-Length", str(len(data)))
    reason = REASONS.get(status)
    request.setResponseCode(status, reason.encode() if reason else None)
    request.write(data)


def shortened(text: str) -> str:
    """``text``, without the middle of one that holds what a client has sent at length."""
    if len(text) <= LONGEST_TEXT:
        return text
    return f"{text[: LONGEST_TEXT // 2]} ... {text[-LONGEST_TEXT // 4 :]}"


def special_headers(error: RepomanError) -> dict[str, str]:
    """The fields that a refusal is to have, whatever its body."""
    if error.retry_after is not None:
        return {"Retry-After": str(math.ceil(error.retry_after))}  # RFC 9110 section 10.2.3
    if isinstance(error, UnsatisfiableRange) and error.size is not None:
        return {"Content-Range": f"bytes */{error.size}"}
    if isinstance(error, WrongOffset) and error.offset is not None:
        return {"Upload-Offset": str(error.offset)}
    if isinstance(error, UnsupportedMedia) and error.field == "Content-Encoding":
        return {"Accept-Encoding": "identity"}  # RFC 9110 section 15.5.16
    if isinstance(error, MethodNotAllowed) and error.allowed:
        return {"Allow": ", ".join(error.allowed)}
    return {}


@frozen
class Voice:
    """How answers are written on a request, which is not finished by that.

    :ivar send: writes what a route returned.
    :ivar refuse: writes an error.
    """

    send: Callable[[Any, Any], None]
    refuse: Callable[[Any, RepomanError], None]


JSON = Voice(send, refuse)
"""The API's own."""
