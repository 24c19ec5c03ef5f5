"""``check-config`` and ``sample-config``."""

from __future__ import annotations

import sys
from argparse import Namespace
from datetime import datetime, timezone
from importlib.resources import files

from repoman import config
from repoman.admins import read_admins
from repoman.assembly import check_store
from repoman.inspection import inspect_trust, remark_on_clock, remark_on_redirect
from repoman.operator.command import Command


def check_config(arguments: Namespace) -> int:
    """Say what is wrong with the configuration, certificate, key, CAs, CRLs and clock."""
    settings = config.load(arguments.config)
    read_admins(settings.accounts.admins)
    check_store(settings)
    faults, starts = inspect_trust(settings, datetime.now(timezone.utc))
    if faults:
        print(*faults, sep="\n", file=sys.stderr)
    for remark in filter(None, (remark_on_clock(), remark_on_redirect(settings.storage))):
        print(f"Note: {remark}", file=sys.stderr)
    if faults:
        print(f"The daemon would {'start all the same' if starts else 'not start'}.")
        return 1
    print("The configuration is good.")
    return 0


def sample_config(arguments: Namespace) -> int:
    """Print a configuration with every setting."""
    sys.stdout.write(files("repoman").joinpath("repoman.conf").read_text("utf-8"))
    return 0


CHECK = Command(check_config, "Say what is wrong with configuration, trust and clock.")
SAMPLE = Command(sample_config, "Print a configuration with every setting.")
