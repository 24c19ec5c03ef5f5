"""What the object store answers, read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

from attrs import frozen
from twisted.logger import Logger
from twisted.web.http_headers import Headers

from repoman.errors import StoreUnavailable

_log = Logger()

_NUMBER = re.compile(r"[0-9]{1,15}")


@frozen
class Answer:
    """A status, headers and a small body."""

    status: int
    headers: Headers
    body: bytes

    @property
    def code(self) -> str:
        """The store's word for an error; empty if the body is none.

        Also of a 200: where the work takes long, the head is sent before its end is known.
        """
        try:
            root = _parsed(self.body)
        except (ElementTree.ParseError, ValueError, LookupError):
            return ""
        return text(root, "Code") if root.tag == "Error" else ""

    def xml(self) -> ElementTree.Element:
        """The body, its names without their namespace.

        :raises StoreUnavailable: it is no XML.
        """
        try:
            return _parsed(self.body)
        except (ElementTree.ParseError, ValueError, LookupError):  # also of odd encodings
            raise rejected("a question", self) from None

    def header(self, name: str) -> str:
        """A header's value, or nothing."""
        values = self.headers.getRawHeaders(name.encode()) or [b""]
        return values[-1].decode("latin-1")  # whatever it is

    @property
    def etag(self) -> str:
        """The entity tag, without its quotes."""
        return self.header("ETag").strip('"')

    def known(self, what: str, value: str) -> str:
        """``value``, if there is one.

        :raises StoreUnavailable: it is missing from this answer.
        """
        if not value:
            raise rejected(f"{what} (a field is empty)", self)
        return value

    def number(self, what: str, value: str) -> int:
        """The number that ``value`` is, in what was asked.

        :raises StoreUnavailable: it is none, or larger than any object.
        """
        if not _NUMBER.fullmatch(value):
            raise rejected(f"{what} (a number is none)", self)
        return int(value)


class Rejected(StoreUnavailable):
    """The object store answered, and not what it should.

    :ivar status: of HTTP.
    :ivar code: the store's own word.
    """

    def __init__(self, status: int, code: str) -> None:
        super().__init__("The object store refuses; try again later.")
        self.status = status
        self.code = code


def rejected(what: str, answer: Answer) -> Rejected:
    """The error for an answer that makes no sense, told in the log: clients must not see it."""
    code = answer.code
    _log.error(
        "object store: {what} was answered {status} {code}: see [storage] in the configuration",
        what=what,
        status=answer.status,
        code=code or "-",
    )
    return Rejected(answer.status, code)


def _parsed(body: bytes) -> ElementTree.Element:
    # The store has our bytes in its hands anyhow, and expat guards against endless entities.
    root = ElementTree.fromstring(body)  # noqa: S314
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def text(element: ElementTree.Element, name: str) -> str:
    """The text of a child, or nothing."""
    return (element.findtext(name) or "").strip()


def children(root: ElementTree.Element, name: str) -> Iterator[Any]:
    """The children of a name."""
    return root.iterfind(name)
