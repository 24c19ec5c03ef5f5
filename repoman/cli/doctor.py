"""``doctor``: what stands between a person and the repository."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from repoman.cli.access import find_server, named_by
from repoman.cli.command import Command, Options
from repoman.cli.exits import exit_code
from repoman.cli.output import Output, printable
from repoman.client.credentials import find_ca_directory, find_credential
from repoman.client.settings import Settings, read_settings

if TYPE_CHECKING:  # what it imports takes long, and no other command needs it
    from repoman.client.diagnosis import Finding


async def doctor(reactor: Any, options: Options, settings: Settings, out: Output) -> int:
    """Print a line for each check, whatever the others find.

    :returns: the exit code of the first that failed.
    """
    from repoman.client.diagnosis import Diagnosis

    named = named_by(options, settings)
    diagnosis = Diagnosis(
        reactor,
        lambda: read_settings(os.environ),
        lambda: find_server(options, settings, os.environ),
        lambda: find_credential(named, os.environ, os.getuid()),
        lambda: find_ca_directory(named, os.environ),
    )
    code = 0
    async for finding in diagnosis.run():
        if finding.error and not code:
            code = exit_code(finding.error)
        for line in _lines(finding, as_json=out.as_json):
            print(line, flush=True)
    return code


def _lines(finding: Finding, *, as_json: bool) -> Iterator[str]:
    """A line for what was found, and one for what is wrong but no trouble of this user's."""
    words, note = printable(str(finding.error or finding.text)), printable(finding.note)
    if as_json:
        yield json.dumps({"check": finding.subject, "good": not finding.error, "text": words})
        if note:
            yield json.dumps({"check": finding.subject, "good": True, "note": True, "text": note})
        return
    yield f"{'[FAILED]' if finding.error else '[OK]    '} {finding.subject}: {words}"
    if note:
        yield f"[NOTE]   {finding.subject}: {note}"


COMMANDS = (
    Command(
        "doctor",
        "find out what keeps you from your images",
        "Looking for trouble.",
        alone=doctor,
        examples=("repoman doctor", "repoman doctor --json"),
    ),
)
"""The command of this module."""
