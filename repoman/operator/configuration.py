"""``check-config`` and ``sample-config``."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable
from datetime import datetime, timezone
from importlib.resources import files

from repoman import config
from repoman.admins import read_admins
from repoman.assembly import check_store
from repoman.errors import RepomanError
from repoman.inspection import Inspection, inspect_trust, remark_on_clock, remark_on_redirect
from repoman.operator.command import Command, lines_of


def check_config(arguments: Namespace) -> int:
    """Say what is wrong with the configuration, certificate, key, CAs, CRLs and clock."""
    settings, mistakes = config.load_partly(arguments.config)
    stops, wrong = [mistake.line for mistake in mistakes], _sections(mistakes)
    if "accounts" not in wrong:
        stops += _said(lambda: read_admins(settings.accounts.admins))
    if "storage" not in wrong:
        stops += _said(lambda: check_store(settings))
    found = Inspection()
    if not wrong & {"tls", "server"}:  # else it would be about files that nobody named
        found = inspect_trust(settings, datetime.now(timezone.utc))
    remarks = remark_on_clock(), remark_on_redirect(settings.storage)
    notes = [f"Note: {remark}" for remark in (*found.notes, *filter(None, remarks))]
    for line in (*stops, *found.faults, *notes):
        print(line, file=sys.stderr)
    if stops or found.faults:
        starts = found.starts and not stops
        print(f"The daemon would {'start all the same' if starts else 'not start'}.")
        return 1
    print("The configuration is good.")
    return 0


def _sections(mistakes: list[config.Mistake]) -> set[str]:
    """The sections that mistakes are about: all, if one may be about any of them."""
    found = {mistake.section for mistake in mistakes}
    return set(config.SECTIONS) if "" in found else found


def _said(look: Callable[[], object]) -> list[str]:
    """What is wrong by one of several looks, so that the others are taken all the same."""
    try:
        look()
    except RepomanError as error:
        return lines_of(error)
    return []


def sample_config(arguments: Namespace) -> int:
    """Print a configuration with every setting."""
    sys.stdout.write(files("repoman").joinpath("repoman.conf").read_text("utf-8"))
    return 0


CHECK = Command(check_config, "Say what is wrong with configuration, trust and clock.")
SAMPLE = Command(sample_config, "Print a configuration with every setting.")
