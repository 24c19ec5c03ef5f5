"""HTTP header fields about bytes: ranges, conditions, digests.  Pure functions."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime, parsedate_to_datetime

from repoman.errors import Invalid, UnsatisfiableRange

ALGORITHMS: Mapping[str, str] = {
    "sha-256": "sha256", "sha-512": "sha512", "md5": "md5", "adler32": "adler32",
    "sha256": "sha256", "sha512": "sha512", "adler": "adler32",
}  # fmt: skip
"""Digest names in header fields (RFC 9530, RFC 3230 and their users) to ours."""

_VALUES = {"sha256": "sha-256", "sha512": "sha-512"}
"""Our names as Digest has them (RFC 3230 section 4.1.1)."""

_KEYS = {**_VALUES, "adler32": "adler"}
"""Our names as Repr-Digest has them (RFC 9530 section 7.2)."""

LENGTHS = {"sha256": 32, "sha512": 64, "md5": 16, "adler32": 4}
"""How long a digest is, in bytes."""

SEEN = timedelta(minutes=1)
"""How much later than its date a change may be seen: transactions wait for a few locks, each for
some seconds; and clocks differ."""

# RFC 9110 section 14.1.1: numbers may be large; a thousand digits are no attack on int().
_RANGE = re.compile(r"\s*bytes\s*=\s*(\d{0,1000})\s*-\s*(\d{0,1000})\s*", re.ASCII | re.IGNORECASE)


def etag(sha256: str) -> str:
    """The strong entity tag of bytes with this digest (RFC 9110 section 8.8.3)."""
    return f'"{sha256}"'


def http_date(moment: datetime) -> str:
    """``moment`` as HTTP writes it (RFC 9110 section 5.6.7)."""
    return format_datetime(moment.astimezone(timezone.utc).replace(microsecond=0), usegmt=True)


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The first byte and the number of bytes that a Range asks for; ``None`` for all.

    What we do not understand, and several ranges at once, count as no range
    (RFC 9110 section 14.2 lets us).

    :raises UnsatisfiableRange: no byte of it is in the file.
    """
    match = _RANGE.fullmatch(header) if header else None
    if match is None or match.group(1) == match.group(2) == "":
        return None
    first, last = match.groups()
    if first and last and int(last) < int(first):
        return None
    start = int(first) if first else max(size - int(last), 0)
    end = min(int(last), size - 1) if first and last else size - 1
    if start > end:
        raise UnsatisfiableRange(f"The file has {size} bytes; none is in the range.", size=size)
    return start, end - start + 1


def tag_matches(header: str, tag: str, *, weak: bool) -> bool:
    """``tag`` is in an If-Match (strong) or If-None-Match (``weak``) list."""
    if header.strip() == "*":
        return True
    listed = (part.strip() for part in header.split(","))
    return tag in ((part.removeprefix("W/") if weak else part) for part in listed)


def not_after(header: str, moment: datetime) -> bool | None:
    """``moment`` is not later than the date in the header; ``None`` if that is no date."""
    limit = _date(header)
    try:
        return None if limit is None else moment.replace(microsecond=0) <= limit
    except OverflowError:
        return None


def _date(header: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(header)
    except (ValueError, TypeError, OverflowError):
        return None
    return date.replace(tzinfo=timezone.utc) if date.tzinfo is None else date


def unmodified_since(header: str, bound: datetime) -> bool:
    """Nothing has changed since the date of an If-Modified-Since (RFC 9110 section 13.1.3).

    A client may give the time at which it fetched instead of our Last-Modified.  Bytes that took
    the place of others, whose date is a whole second, are seen later than they are dated by as
    long as their transaction waits to end, or the database's clock is behind ours.  Who fetched
    so soon after that date may have the others.

    :param bound: since when the address has its bytes.
    """
    if not not_after(header, bound):
        return False
    is_replacement = bound.microsecond == 0
    return not is_replacement or _date(header) == bound or not_after(header, bound + SEEN) is True


def takes_redirect(prefer: str | None) -> bool | None:
    """What a Prefer (RFC 7240) says of ``redirect``: yes; ``redirect=no``; ``None``: nothing."""
    for preference in (prefer or "").split(","):
        name, _, value = preference.partition(";")[0].partition("=")
        if name.strip().lower() == "redirect":
            return {"": True, "no": False}.get(value.strip(' \t"').lower())
    return None


def range_applies(if_range: str | None, tag: str, modified: datetime) -> bool:
    """A Range is to be heeded under this If-Range (RFC 9110 section 13.1.5)."""
    if if_range is None:
        return True
    if if_range.strip().startswith(('"', "W/")):
        return if_range.strip() == tag
    return if_range.strip() == http_date(modified)


def repr_digest(digests: Mapping[str, str]) -> str:
    """A Repr-Digest (RFC 9530 section 3) of what is known; names are ours, values hex."""
    return ", ".join(f"{_KEYS.get(n, n)}=:{_base64(v)}:" for n, v in digests.items())


def old_digest(wanted: str, digests: Mapping[str, str]) -> str | None:
    """A Digest (RFC 3230) with what a Want-Digest asks for and is known, the best first."""
    chosen = [
        f"{_VALUES.get(name, name)}="
        f"{digests[name] if name == 'adler32' else _base64(digests[name])}"
        for name in _preferences(wanted)
        if name in digests
    ]
    return ",".join(chosen) or None


def _preferences(wanted: str) -> list[str]:
    weighted = []
    for part in wanted.split(","):
        name, _, parameters = part.strip().partition(";")
        quality = re.search(r"q=([0-9.]+)", parameters)
        try:
            weight = float(quality.group(1)) if quality else 1.0
        except ValueError:
            weight = 0.0
        known = ALGORITHMS.get(name.strip().lower())
        if known and weight > 0:
            weighted.append((-weight, known))
    return [name for _, name in sorted(weighted, key=lambda pair: pair[0])]


def _base64(digest: str) -> str:
    return base64.b64encode(bytes.fromhex(digest)).decode()


def announced_digests(fields: Mapping[str, str | None]) -> dict[str, str]:
    """What a client says that its bytes hash to: our names, values in hex.

    :param fields: of Repr-Digest, Content-Digest, Digest and Content-MD5.
    :raises Invalid: a digest that cannot be one.  Unknown algorithms are no mistake.
    """
    found: dict[str, str] = {}
    for field, value in fields.items():
        if value is None:
            continue
        members = [("md5", value)] if field == "Content-MD5" else _members(field, value)
        for name, digest in members:
            known = ALGORITHMS.get(name.lower())
            if known is None:
                continue
            decoded = _decode(field, known, digest)
            if found.setdefault(known, decoded) != decoded:
                raise Invalid(f"{field}: two different {known} digests.", field=field)
    return found


def _members(field: str, value: str) -> list[tuple[str, str]]:
    members = [part.partition("=") for part in value.split(",") if part.strip()]
    if not members or not all(name.strip() and equals for name, equals, _ in members):
        raise Invalid(f"{field}: must be algorithm=digest, ….", field=field)
    return [(name.strip(), digest) for name, _, digest in members]


def _decode(field: str, name: str, text: str) -> str:
    # RFC 8941: a member may have parameters; a missing padding is no mistake (section 4.2.7).
    text = text.partition(";")[0].strip().strip(":")
    if name == "adler32" and re.fullmatch("[0-9A-Fa-f]{1,8}", text):
        text = text.zfill(8)  # RFC 3230's registry: leading zeros may be left out
    try:
        raw = bytes.fromhex(text) if _is_hex(name, text) else _from_base64(text)
    except (ValueError, binascii.Error):
        raw = b""
    if len(raw) != LENGTHS[name]:
        raise Invalid(f"{field}: that is not a {name} digest.", field=field)
    return raw.hex()


def _from_base64(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


def _is_hex(name: str, text: str) -> bool:
    return len(text) == 2 * LENGTHS[name] and re.fullmatch("[0-9A-Fa-f]+", text) is not None
