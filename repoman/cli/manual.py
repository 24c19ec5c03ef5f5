"""What ``--help`` and ``help`` print."""

from __future__ import annotations

from collections.abc import Iterable

from repoman.cli.command import Command
from repoman.cli.options import command_parser

USAGE = "usage: repoman [-h] [--help-all] [--version] [-H HOST] [-P PORT] [--proxy PROXY]"
"""The first line, as on the slides."""

GLOBAL_OPTIONS = (
    ("-h, --help", "show this message"),
    ("--help-all", "list every command"),
    ("--version", "print the version"),
    ("-H, --host HOST", "Override host setting (also -r, --repository)"),
    ("-P, --port PORT", "Override port setting for host (also -p)"),
    ("--proxy PROXY", "Override default proxy certificate (also -P PROXY)"),
    ("--cert FILE, --key FILE", "a certificate and its key, instead of a proxy"),
    ("--ca-dir DIRECTORY", "the certificates of the CAs to believe"),
    ("--json", "print JSON"),
)
"""The options for every command."""

OPTION_WIDTH = 24
"""How much room they take."""


def overview(commands: Iterable[Command], *, everything: bool = False) -> str:
    """The commands: the everyday ones, or all."""
    chosen = [c for c in commands if everything or c.everyday]
    rows = [(c.name, c.summary) for c in chosen]
    if everything:
        rows = [(", ".join((c.name, *c.aliases)), c.summary) for c in chosen]
    width = min(max(len(name) for name, _ in rows), 30)
    lines = [
        f"  {name:<{width}}  {summary}"
        if len(name) <= width
        else f"  {name}\n  {'':<{width}}  {summary}"
        for name, summary in rows
    ]
    return "\n".join(
        [f"{USAGE}\n               SUBCOMMAND ...", "", _options(), "", "SUBCOMMANDS:", *lines, "",
         "repoman help SUBCOMMAND tells more about one of them."]
    )  # fmt: skip


def _options() -> str:
    """The options for every command."""
    rows = (f"  {a:<{OPTION_WIDTH}}  {b}" for a, b in GLOBAL_OPTIONS)
    return "\n".join(["optional arguments:", *rows])


def page(command: Command) -> str:
    """All about one command."""
    return command_parser(command).format_help().rstrip()
