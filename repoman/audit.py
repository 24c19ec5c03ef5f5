"""Who changed what, when and from where: rows that a later hand cannot change unseen.

Each row's digest covers its content and the digest of the row before, so that
a row that was altered, removed or put between others breaks the chain.

Who and where come from a context variable that is set once per request, in
the one place that finds the caller.  To pass them through every method of
every layer would be the alternative; a method that nobody gave them to would
then not be able to say, and here it says at worst "the daemon itself".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from datetime import datetime
from typing import Any

from attrs import evolve, field, frozen

DONE, REFUSED = "done", "refused"
"""What came of it."""


@frozen
class Origin:
    """Who asks, and from where.

    :ivar user: by name; in parentheses for who is no user of the repository.
    :ivar address: of the peer.
    :ivar request_id: as in the access log.
    """

    user: str
    dn: str = ""
    address: str = ""
    request_id: str = ""


OPERATOR = "(operator)"
"""In place of a user: who runs ``repoman-server`` on the host."""

DAEMON = Origin("(repoman)")
"""The daemon's own doing."""

ORIGIN: ContextVar[Origin] = ContextVar("origin", default=DAEMON)
"""On whose behalf the code runs now; each request and each chore has its own."""


def storable(text: str) -> str:
    """Text as a database can hold it."""
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(_plain, value))
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return storable(value) if isinstance(value, str) else value


DETAIL_LIMIT = 4096
"""The most that the detail of a new row takes, in bytes of JSON; older rows stay as they are."""

SUBJECT_LIMIT = 500
"""The longest subject of a new row, in characters: whoever is refused may have made it up."""

CUTS = ((1000, 100), (200, 20), (40, 5))
"""How long texts, in characters, and lists may be; the first that is short enough counts."""


def _cut(value: Any, text: int, items: int) -> Any:
    """``value`` with long texts and lists cut off; a mark says how much there was."""
    if isinstance(value, str):
        more = len(value) - text
        return value if more <= 0 else f"{value[:text]}… and {more} more characters"
    if isinstance(value, list):
        kept = [_cut(one, text, items) for one in value[:items]]
        more = len(value) - items
        return kept if more <= 0 else [*kept, f"… and {more} more"]
    if isinstance(value, Mapping):
        pairs = list(value.items())
        found = {_cut(key, text, items): _cut(one, text, items) for key, one in pairs[:items]}
        return found if len(pairs) <= items else {**found, "…": f"and {len(pairs) - items} more"}
    return value


def bounded(change: Change) -> Change:
    """A change as it is written: subject and detail cut to what a row may take."""
    subject = _cut(storable(change.subject), SUBJECT_LIMIT, 0)
    detail: Mapping[str, Any] = change.detail
    for text, items in CUTS:
        if len(json.dumps(detail)) <= DETAIL_LIMIT:
            break
        detail = _cut(change.detail, text, items)
    return evolve(change, subject=subject, detail=detail)


@frozen
class Change:
    """What was done, or refused.

    :ivar action: ``noun.verb``, as the policy names them.
    :ivar subject: to what, by the name that it had: ``bob``, ``impeyr/sl6``.
    :ivar detail: with which values; as JSON has them.
    """

    action: str
    subject: str
    detail: Mapping[str, Any] = field(factory=dict, converter=_plain)
    outcome: str = DONE


@frozen
class Entry:
    """A row of the audit.

    :ivar number: counts from 1 without gaps.
    :ivar time: of the database, aware, UTC.
    :ivar digest: SHA-256 in hex, see :func:`chained`.
    """

    number: int
    time: datetime
    origin: Origin
    change: Change
    digest: str = ""


@frozen
class End:
    """A row that begins or ends the chain as it is kept.

    :ivar digest: empty for number 0, before the first row ever.
    """

    number: int = 0
    digest: str = ""


@frozen
class AuditQuery:
    """Which rows to list, the newest first.

    :ivar since: from then on.
    :ivar until: before that.
    :ivar after: only those with a smaller number.
    """

    user: str | None = None
    action: str | None = None
    subject: str | None = None
    outcome: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    after: int | None = None
    limit: int = 100


def chained(previous: str, entry: Entry) -> str:
    """The digest of a row: SHA-256 of a JSON array without blanks, keys in order, as ASCII.

    The array has the digest before, number, time (ISO 8601, UTC, microseconds), user, DN,
    address, request id, action, subject, outcome and detail.
    """
    origin, change = entry.origin, entry.change
    content = [
        previous, entry.number, entry.time.isoformat(timespec="microseconds"),
        origin.user, origin.dn, origin.address, origin.request_id,
        change.action, change.subject, change.outcome, change.detail,
    ]  # fmt: skip
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def first_fault(before: End, entries: Iterable[Entry]) -> str:
    """Where a chain that goes on after ``before`` is broken, in words; empty if nowhere."""
    for entry in entries:
        if entry.number != before.number + 1:
            return f"row {before.number + 1} is missing"
        if entry.digest != chained(before.digest, entry):
            return f"row {entry.number}, or the one before, is not as it was written"
        before = End(entry.number, entry.digest)
    return ""
