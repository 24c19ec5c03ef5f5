"""The operator's commands by name, and the program that runs one of them."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from repoman import config
from repoman.errors import RepomanError
from repoman.operator import (
    audits,
    configuration,
    copying,
    gridmaps,
    originals,
    plugins,
    restoring,
    saving,
    setup,
    upkeep,
)
from repoman.operator.command import complain

COMMANDS = {
    "check-config": configuration.CHECK,
    "sample-config": configuration.SAMPLE,
    "init": setup.INIT,
    "import-gridmap": gridmaps.IMPORT,
    "import-original": originals.IMPORT,
    "backup": saving.BACKUP,
    "restore": restoring.RESTORE,
    "copy-store": copying.COPY,
    "verify-audit": audits.VERIFY,
    "sweep": upkeep.SWEEP,
    "scrub": upkeep.SCRUB,
    "refresh-plugins": plugins.REFRESH,
}
"""The commands by name."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; answer the exit status: 0 done, 1 not done, 2 not understood."""
    parsed = _parser().parse_args(arguments)
    try:
        return COMMANDS[parsed.command].run(parsed)
    except RepomanError as error:
        complain(error)
        return 1


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="repoman-server", description="Look after a Repoman server.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        one = commands.add_parser(name, help=command.summary, description=command.summary)
        one.add_argument(
            "-c", "--config", type=Path, help=f"the configuration ({config.DEFAULT_PATH})"
        )
        command.arguments(one)
    return parser
