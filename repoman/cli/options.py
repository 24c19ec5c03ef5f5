"""The command line of both generations, in one grammar.

First come the options for every command, then the command, then the rest: its
own words, which one parser reads, made for that command alone.  The options
for every command are understood behind it, too, in their long form.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from typing import Any

from repoman.cli.command import Arguments, Command, Options
from repoman.cli.exits import Usage


class PortOrProxy(argparse.Action):
    """``-P``: the port in 2011, the proxy in 2012; only one of them is a number."""

    def __call__(self, parser: Any, options: Options, value: Any, option: Any = None) -> None:
        """Decide which it is."""
        setattr(options, "port" if value.isdigit() else "proxy", value)


def find_command(commands: Iterable[Command], name: str) -> Command:
    """The command of a name or an alias.

    :raises Usage: there is none.
    """
    for command in commands:
        if name == command.name or name in command.aliases:
            return command
    raise Usage(f"There is no command {name!r}; repoman --help-all lists them all.")


def parse(commands: Iterable[Command], words: Sequence[str]) -> tuple[Command | None, Options]:
    """Read a command line.

    :return: no command, if help or the version is asked for (or nothing at all).
    :raises Usage: it makes no sense.
    """
    options = global_parser().parse_args(words)
    rest = options.rest
    if options.subcommand is None or options.help or options.help_all or options.version:
        return None, options
    if words[: len(words) - len(rest)][-1] == "--":
        rest = ["--", *rest]  # argparse takes the first one for its own
    command = find_command(commands, _meant(options.subcommand, rest))
    if _wants_help(command, rest):
        options.help = True
        return command, options
    parser = command_parser(command)
    options.pairs = {}
    if command.pairs:
        rest, options.pairs = split_pairs(rest, parser)
    parser.parse_args(rest, options)
    return command, options


def global_parser() -> Arguments:
    """The parser of what stands before the command."""
    parser = Arguments(prog="repoman", usage="repoman [options] SUBCOMMAND ...")
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--help-all", action="store_true", help="list every command")
    parser.add_argument("--version", action="store_true", help="print the version")
    parser.add_argument("-H", "-r", dest="host", metavar="HOST", help=argparse.SUPPRESS)
    parser.add_argument("-p", dest="port", metavar="PORT", help=argparse.SUPPRESS)
    parser.add_argument("-P", action=PortOrProxy, metavar="PORT|PROXY", help=argparse.SUPPRESS)
    _add_common(parser, default=None)
    parser.add_argument("subcommand", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def _add_common(parser: Arguments, default: object) -> None:
    for names, metavar, words in (
        (("--host", "--repository"), "HOST", "the server, HOST or HOST:PORT"),
        (("--port",), "PORT", "the server's port"),
        (("--proxy",), "PROXY", "your proxy certificate"),
        (("--cert",), "FILE", "your certificate, instead of a proxy"),
        (("--key",), "FILE", "its private key"),
        (("--ca-dir",), "DIRECTORY", "the certificates of the CAs to believe"),
    ):
        parser.add_argument(*names, metavar=metavar, help=words, default=default)
    parser.add_argument(
        "--json", action="store_true", help="print JSON",
        default=False if default is None else default,
    )  # fmt: skip


def command_parser(command: Command) -> Arguments:
    """The parser of one command's own words."""
    examples = "\n  ".join(["examples:", *command.examples])
    also = f" (also: {', '.join(command.aliases)})" if command.aliases else ""
    parser = Arguments(
        prog=f"repoman {command.name}",
        description=command.summary[0].upper() + command.summary[1:] + f".{also}",
        epilog=examples if command.examples else None,
    )
    command.arguments(parser)
    _add_common(parser, default=argparse.SUPPRESS)
    return parser


def split_pairs(words: Sequence[str], parser: Arguments) -> tuple[list[str], dict[str, str]]:
    """Take the free ``--key value`` pairs of 2011 out of ``words``.

    :raises Usage: a key has no value.
    """
    left, pairs, remaining = list[str](), dict[str, str](), list(words)
    while remaining:
        word = remaining.pop(0)
        name, equals, value = word.partition("=")
        known = parser.known.get(name)
        if known is not None:
            left.append(word)
            if known.nargs != 0 and not equals and remaining:
                left.append(remaining.pop(0))
        elif not name.startswith("--") or name == "--":
            left.append(word)
        else:
            if not equals:
                if not remaining or remaining[0].startswith("--"):
                    raise Usage(f"{name} needs a value.")
                value = remaining.pop(0)
            pairs[name[2:].replace("-", "_")] = value
    return left, pairs


def _meant(name: str, rest: Sequence[str]) -> str:
    """``si`` with a user or a group shared in 2011; in 2012 it saved."""
    whom = r"-[ug]|--(user|group)(=|$)"
    if name == "si" and any(re.match(whom, word) for word in rest):
        return "share-image"
    return name


def _wants_help(command: Command, rest: Sequence[str]) -> bool:
    if "--help" in rest:
        return True
    if "-h" not in rest:
        return False
    after = rest[rest.index("-h") + 1 :]
    return not command.short_h or not after or after[0].startswith("-")
