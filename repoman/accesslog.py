"""A line for each answered request."""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from repoman.errors import Misconfigured
from repoman.interfaces import Clock

FIELDS = (
    "time", "request_id", "peer", "dn", "user", "limited", "method", "path", "range", "status",
    "bytes", "received", "milliseconds", "digest", "complete",
)  # fmt: skip
"""What a line tells, in order."""

LIMITS = {"method": 32, "path": 1024, "range": 256, "digest": 512, "user": 128, "dn": 2000}
"""Characters that are kept of what others choose: what is longer is cut, and says so."""

_PLAIN = re.compile(r"[!#-<>-\[\]-~]+")
"""ASCII without blanks, quotes, backslashes and equals signs."""

STDOUT = 1
"""The descriptor of standard output."""


def entry(request: Any, moment: datetime, milliseconds: float) -> dict[str, Any]:
    """The facts of an answered request; ``None`` for what there is none of."""
    caller = getattr(request, "caller", None)
    # Not the caller's: a request that fits no route has none, and somebody made it all the same.
    identity = request.peer.identity if request.peer else None
    sent = request.responseHeaders.getRawHeaders("repr-digest") or [request.stored_digest]
    facts = {
        "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "request_id": request.request_id,
        "peer": getattr(request.client, "host", None),
        "dn": identity.subject if identity else None,
        "user": caller.user.user_name if caller and caller.user else None,
        "limited": identity.limited if identity else None,
        "method": request.method.decode("latin-1"),
        "path": request.uri.decode("latin-1"),
        "range": request.getHeader("range"),
        "status": request.status,
        "bytes": request.sentLength,
        "received": request.body.count,
        "milliseconds": round(milliseconds, 1),
        "digest": sent[0],
        "complete": not request.was_cut,
    }
    return {**facts, **{name: cut(facts[name], limit) for name, limit in LIMITS.items()}}


def cut(text: str | None, limit: int) -> str | None:
    """``text``, or its beginning and how many characters more there were.

    :param limit: of characters; as JSON, with its escapes, twice as many.
    """
    if text is None or (len(text) <= limit and _PLAIN.fullmatch(text)):
        return text
    kept = text[:limit]
    while len(json.dumps(kept)) > 2 * limit:
        kept = kept[: len(kept) // 2]
    return kept if kept == text else f"{kept}...+{len(text) - len(kept)}"


def as_text(facts: dict[str, Any]) -> str:
    """``key=value`` pairs; values with blanks or quotes, and all odd characters, as JSON."""
    return " ".join(f"{name}={_word(facts[name])}" for name in FIELDS)


def _word(value: Any) -> str:
    if value is None:
        return "-"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


class AccessLog:
    """Appends to a file that only its owner can read.

    :param path: ``None`` for standard output.
    :param form: ``text`` or ``json``.
    :raises Misconfigured: it cannot be written.
    """

    def __init__(self, path: Path | None, form: str, clock: Clock) -> None:
        self._clock = clock
        self._file: int | None = None
        self.reopen(path, form)

    def reopen(self, path: Path | None, form: str) -> None:
        """Open the file anew, after it was moved away, or another one.

        :raises Misconfigured: it cannot be written; the old one stays in use.
        """
        opened = None if path is None else self._open(path)
        self._format = json.dumps if form == "json" else as_text
        old, self._file = self._file, opened
        if old is not None:
            os.close(old)

    def _open(self, path: Path) -> int:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Misconfigured(
                [
                    f"[log] access: {path} cannot be written: {error.strerror}: mend that,"
                    " or name another file"
                ]
            ) from None

    def log(self, request: Any, seconds: float) -> None:
        """Note a request that was answered after ``seconds``."""
        line = self._format(entry(request, self._clock(), seconds * 1000))
        # Not sys.stdout: that is the daemon's log by now.
        place = STDOUT if self._file is None else self._file
        # A full disk costs the line, not the request.
        with suppress(OSError):
            # In one call: other processes append to the same file.
            os.write(place, line.encode("ascii", "backslashreplace") + b"\n")
