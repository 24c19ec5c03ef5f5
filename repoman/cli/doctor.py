"""``doctor``: what stands between a person and the repository."""

from __future__ import annotations

import json
import os
from typing import Any

from repoman.cli.access import find_server, named_by
from repoman.cli.command import Command, Options
from repoman.cli.exits import exit_code
from repoman.cli.output import Output, printable
from repoman.client.credentials import find_ca_directory, find_credential
from repoman.client.settings import Settings


async def doctor(reactor: Any, options: Options, settings: Settings, out: Output) -> int:
    """Print a line for each check; answer the exit code of the first that failed."""
    from repoman.client.diagnosis import Diagnosis

    host, port = find_server(options, settings, os.environ)
    named = named_by(options, settings)
    diagnosis = Diagnosis(
        reactor, host, port,
        lambda: find_credential(named, os.environ, os.getuid()),
        lambda: find_ca_directory(named, os.environ),
    )  # fmt: skip
    code = 0
    async for finding in diagnosis.run():
        words = printable(str(finding.error or finding.text))
        if finding.error and not code:
            code = exit_code(finding.error)
        if out.as_json:
            line = json.dumps({"check": finding.subject, "good": not finding.error, "text": words})
        else:
            line = f"{'[FAILED]' if finding.error else '[OK]    '} {finding.subject}: {words}"
        print(line, flush=True)
    return code


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
