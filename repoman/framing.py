"""Headers that two readers may understand differently, or that cost too much.  Pure functions."""

from __future__ import annotations

LONGEST_NAME = 256
"""Bytes of a header's name: Twisted keeps the first ten thousand that it sees for ever."""

LONGEST_LENGTH = 18
"""Digits of a Content-Length: more are no number of bytes that anybody has."""


def fault_of(line: bytes, *, has_encoding: bool) -> tuple[int, str] | None:
    """Return the status and the sentence with which a header is refused; ``None``: it is good.

    :param has_encoding: a Transfer-Encoding came before.
    """
    name, _, value = line.partition(b":")
    if len(name) > LONGEST_NAME:
        return 431, "The name of a header is too long."
    name = name.strip().lower()
    if name == b"content-length" and len(value.strip()) > LONGEST_LENGTH:
        return 400, "Content-Length is not a length."
    if not _is_text(value):
        return 400, "A header is not text."
    # RFC 9112 section 6.3: what two readers may frame differently is refused.
    is_chunked = value.strip(b" \t").lower() == b"chunked"
    if name == b"transfer-encoding" and (has_encoding or not is_chunked):
        return 400, "The only transfer encoding known here is chunked, once."
    return None


def _is_text(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
