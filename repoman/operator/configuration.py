"""``check-config`` and ``sample-config``."""

from __future__ import annotations

import sys
from argparse import Namespace
from importlib.resources import files

from repoman import config
from repoman.admins import read_admins
from repoman.operator.command import Command


def check_config(arguments: Namespace) -> int:
    """Say whether the configuration, and the file of administrators, can be read."""
    read_admins(config.load(arguments.config).accounts.admins)
    print("The configuration is good.")
    return 0


def sample_config(arguments: Namespace) -> int:
    """Print a configuration with every setting."""
    sys.stdout.write(files("repoman").joinpath("repoman.conf").read_text("utf-8"))
    return 0


CHECK = Command(check_config, "Say whether the configuration can be read.")
SAMPLE = Command(sample_config, "Print a configuration with every setting.")
