"""A line for each answered request."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from repoman.errors import Misconfigured
from repoman.interfaces import Clock

FIELDS = (
    "time", "request_id", "peer", "dn", "user", "limited", "method", "path", "range", "status",
    "bytes", "received", "milliseconds", "digest", "complete",
)  # fmt: skip
"""What a line tells, in order."""

STDOUT = 1
"""The descriptor of standard output."""


def entry(request: Any, moment: datetime, milliseconds: float) -> dict[str, Any]:
    """The facts of an answered request; ``None`` for what there is none of."""
    caller = getattr(request, "caller", None)
    # Not the caller's: a request that fits no route has none, and somebody made it all the same.
    identity = request.peer.identity if request.peer else None
    sent = request.responseHeaders.getRawHeaders("repr-digest") or [request.stored_digest]
    return {
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


def as_text(facts: dict[str, Any]) -> str:
    """``key=value`` pairs; values with blanks or quotes, and all odd characters, as JSON."""
    return " ".join(f"{name}={_word(facts[name])}" for name in FIELDS)


@lru_cache(maxsize=1000, typed=True)  # 0 is not False
def _word(value: Any) -> str:
    if value is None:
        return "-"
    text = value if isinstance(value, str) else json.dumps(value)
    plain = text.isascii() and text.isprintable() and not set(text) & set(' "\\=') and text
    return text if plain else json.dumps(text)


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
