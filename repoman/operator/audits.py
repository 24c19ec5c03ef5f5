"""``verify-audit``: show that nobody has changed who changed what."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

from repoman import config
from repoman.audit import End
from repoman.database.audit import AuditRecords
from repoman.errors import Invalid
from repoman.operator.command import Command
from repoman.operator.database import Reached, with_database


def verify_audit(arguments: Namespace) -> int:
    """Follow the chain of digests from its first row to its last."""
    known = _known(arguments.known)

    async def work(reached: Reached) -> int:
        records = AuditRecords(reached.pool)
        pruned, newest = await records.ends()
        fault = await records.fault() or await _compare(records, known, pruned, newest)
        if fault:
            print(f"The audit is not as it was written: {fault}.", file=sys.stderr)
            return 1
        count = newest.number - pruned.number
        print(f"{count} rows are as they were written; the newest is {_word(newest)}")
        return 0

    return with_database(config.load(arguments.config), work)


async def _compare(records: AuditRecords, known: End | None, pruned: End, newest: End) -> str:
    """Hold the chain against a row that was noted elsewhere, while it was the newest."""
    if known is None or known.number < pruned.number:
        return ""
    if known.number > newest.number:
        return f"row {known.number} was there, and is not"
    found = await records.digest_of(known.number)
    return "" if found == known.digest else f"row {known.number} is another one than was noted"


def _known(text: str | None) -> End | None:
    if text is None:
        return None
    number, colon, digest = text.partition(":")
    if not (colon and number.isdigit() and len(digest) == 64):
        raise Invalid("--known takes NUMBER:DIGEST, as this command prints it.")
    return End(int(number), digest)


def _word(end: End) -> str:
    return f"{end.number}:{end.digest}"


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--known",
        metavar="NUMBER:DIGEST",
        help="the newest row of an earlier day, as printed then: it must still be there",
    )


VERIFY = Command(
    verify_audit,
    "Follow the audit's chain of digests; status 1 if a row was altered or removed.",
    _arguments,
)
