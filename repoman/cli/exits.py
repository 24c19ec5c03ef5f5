"""Exit codes, and errors in words: what failed, with what on which server, what to do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TextIO

from repoman import errors
from repoman.cli.output import printable

FAILED = 1
USAGE = 2
INTERRUPTED = 130

_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (errors.DigestMismatch, 8),
    (errors.Missing, 3),
    (errors.Expired, 3),
    (errors.NotIdentified, 4),
    (errors.CredentialProblem, 4),
    (errors.CredentialRefused, 4),
    (errors.Refused, 5),
    (errors.Conflict, 6),
    (errors.PreconditionFailed, 6),
    (errors.ConnectionProblem, 7),
    (errors.Unavailable, 7),
    (errors.TooManyUploads, 7),
    (errors.Misconfigured, USAGE),
)


class Usage(errors.RepomanError):
    """The command line lacks something."""

    title = "Usage"


def exit_code(error: BaseException) -> int:
    """The exit code that stands for ``error``."""
    if isinstance(error, Usage):
        return USAGE
    return next((code for kind, code in _CODES if isinstance(error, kind)), FAILED)


def report(
    error: BaseException, doing: str, context: str, stream: TextIO, *, as_json: bool = False
) -> int:
    """Say on ``stream`` what failed, and answer the exit code.

    :param doing: what was being done, as a sentence.
    :param context: which server and which credential; may be empty.
    """
    code = exit_code(error)
    if as_json:
        print(told(doing, type(error).__name__, code, _reasons(error), context), file=stream)
        return code
    print(f"[FAILED] {doing}", file=stream)
    for line in (*_reasons(error), context):
        if line:
            print(f"         {printable(line)}", file=stream)
    return code


def told(doing: str, error: str, code: int, reasons: Sequence[str] = (), context: str = "") -> str:
    """A failure as a JSON document on its line."""
    document = {"failed": doing, "error": error, "reasons": reasons, "context": context}
    return json.dumps({**document, "exit_code": code})


def _reasons(error: BaseException) -> list[str]:
    if isinstance(error, OSError):
        what = error.strerror or str(error)
        return [f"{error.filename}: {what}" if error.filename else what]
    text = str(error) or type(error).__name__
    return text.splitlines()
