"""What a reply says: its value, its error, its length, the page that follows it."""

from __future__ import annotations

import json
import re
import time
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from twisted.web.iweb import UNKNOWN_LENGTH, IResponse

from repoman.client.records import as_record
from repoman.errors import BadReply, RepomanError
from repoman.wire import error_from_reply

COUNT = "([0-9]{1,18})"
"""A count of bytes in a header, as a pattern; int() itself raises at thousands of digits."""

HUGE_DIGITS = 9
"""Of a number of seconds: 30 years and more are all the same."""

GATEWAY = frozenset({502, 504})
"""Statuses of a proxy whose server does not reply (RFC 9110 sections 15.6.3 and 15.6.5)."""


def header(reply: IResponse, name: str) -> str:
    """The last value of a reply's header, or an empty string."""
    values: list[str] = reply.headers.getRawHeaders(name) or [""]
    return values[-1]


def retry_after(stated: str, date: str, now: float) -> float | None:
    """The seconds that a ``Retry-After`` names (RFC 9110 section 10.2.3); ``None``: nothing.

    :param stated: a number of seconds, or a moment.
    :param date: the reply's ``Date``, from which a moment counts: our clock may be wrong.
    :param now: seconds since 1970, where the reply has no date.
    """
    if re.fullmatch("[0-9]+", stated):
        return float(stated[:HUGE_DIGITS])
    moment = _moment(stated)
    if moment is None:
        return None
    return max(moment - (_moment(date) or now), 0.0)


def _moment(text: str) -> float | None:
    """An HTTP date as seconds since 1970."""
    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def error_of(reply: IResponse, body: bytes) -> RepomanError:
    """The error that a reply other than 2xx stands for."""
    pause = retry_after(header(reply, "Retry-After"), header(reply, "Date"), time.time())
    return reply_error(reply.code, content_type(reply), body, header(reply, "Location"), pause)


def reply_error(
    status: int,
    content_type: str,
    body: bytes,
    location: str = "",
    pause: float | None = None,
) -> RepomanError:
    """The same, of its parts.

    :param pause: the seconds that its ``Retry-After`` names.
    """
    error = _reply_error(status, content_type, body, location)
    # Not the class's own: a server that names no time does not know one.
    error.retry_after = pause
    return error


def _reply_error(status: int, content_type: str, body: bytes, location: str) -> RepomanError:
    if 300 <= status < 400:
        return BadReply(
            f"The server sends us elsewhere ({status}, {location[:200] or 'nowhere'}), where "
            "Repoman does not follow with your certificate; is the server's name right?"
        )
    if content_type.startswith("text/html"):
        body = b"The server answers with a web page (%d); is it a repository?" % status
    # A proxy in front of the server that cannot reach it says no more than the server's 503.
    return error_from_reply(503 if status in GATEWAY else status, content_type, body)


def content_type(reply: IResponse) -> str:
    """The media type of a reply's body."""
    return header(reply, "Content-Type")


def decoded(reply: IResponse, body: bytes) -> Any:
    """The value of a JSON reply, its objects as records; ``None`` without a body.

    :raises RepomanError: the error that it reports.
    """
    if reply.code not in (200, 201, 204):
        raise error_of(reply, body)
    if not body:
        return None
    try:
        return json.loads(body, object_hook=as_record)
    except (ValueError, RecursionError) as error:
        raise BadReply("The server answered with something else than JSON.") from error


def next_page(reply: IResponse) -> str:
    """Path and query of the ``rel="next"`` link (RFC 8288), wherever its host is.

    :raises BadReply: it is no URL.
    """
    for link in header(reply, "Link").split(","):
        target, _, rest = link.partition(">")
        if 'rel="next"' in rest:
            try:
                parts = urlsplit(target.strip().lstrip("<"))
            except ValueError:
                raise BadReply("The server's answer has a URL that is none.") from None
            return f"{parts.path}?{parts.query}"
    return ""


def known_length(reply: IResponse) -> int:
    """A reply's announced length in bytes.

    :raises BadReply: there is none, so that nobody could tell a whole body
        from a torn one.
    """
    if reply.length is UNKNOWN_LENGTH:
        raise BadReply("The server does not say how long the file is.")
    return int(reply.length)
