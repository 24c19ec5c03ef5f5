"""The table of commands: the one place that knows every module with some."""

from __future__ import annotations

from repoman.cli import doctor, files, groups, images, local, offers, sharing, users
from repoman.cli.snapshot import save
from repoman.cli.telling import with_help

COMMANDS = with_help(
    *files.COMMANDS,
    *save.COMMANDS,
    *images.COMMANDS,
    *sharing.COMMANDS,
    *offers.COMMANDS,
    *users.COMMANDS,
    *groups.COMMANDS,
    *doctor.COMMANDS,
    *local.COMMANDS,
)
"""Every command."""
