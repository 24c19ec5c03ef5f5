"""The manual page repoman(1), made from the table of commands."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from repoman import __version__
from repoman.cli.command import Command
from repoman.cli.manual import GLOBAL_OPTIONS, OPTION_WIDTH
from repoman.cli.options import command_parser
from repoman.cli.shells import options_of

EXIT_CODES = (
    ("0", "done"),
    ("1", "failed"),
    ("2", "the command line makes no sense, or lacks something"),
    ("3", "not found"),
    ("4", "credential missing, expired or refused"),
    ("5", "not permitted"),
    ("6", "exists already, or another conflict"),
    ("7", "network or server unavailable, after several tries"),
    ("8", "the bytes are not those of the image"),
    ("130", "interrupted"),
)
"""What the exit codes mean."""

ENVIRONMENT = (
    ("X509_USER_PROXY", "the proxy certificate"),
    ("X509_USER_CERT, X509_USER_KEY", "a certificate and its key, instead of a proxy"),
    ("X509_CERT_DIR", "the directory with the certificates of the CAs to believe"),
    ("REPOMAN_CLIENT_CONFIG", "one more configuration file"),
    ("XDG_STATE_HOME", "where unfinished uploads are remembered (default: ~/.local/state)"),
)
"""The variables that matter."""

FILES = (
    ("/etc/repoman/repoman.conf, ~/.repoman/repoman.conf", "configuration; the latter wins"),
    (
        "/tmp/x509up_uUID",  # noqa: S108 -- where grid-proxy-init puts it
        "the proxy certificate, if no other is named",
    ),
    ("~/.globus/usercert.pem, ~/.globus/userkey.pem", "the certificate, if there is no proxy"),
    ("~/.globus/certificates, /etc/grid-security/certificates", "the CAs to believe"),
    (
        "NAME@sha256-HEX.part",
        "a download that is not complete; the next get of the same bytes goes on",
    ),
)
"""The files that matter."""


def page(commands: Iterable[Command]) -> str:
    """The whole page, in the macros of man(7)."""
    return "\n".join([*_head(), *_commands(commands), *_tail(), ""])


def _head() -> Iterator[str]:
    yield f'.TH REPOMAN 1 "" "Repoman {__version__}" "User commands"'
    yield ".SH NAME\nrepoman \\- store, fetch and share images of virtual machines"
    yield ".SH SYNOPSIS\n.B repoman\n[\\fIoptions\\fR] \\fISUBCOMMAND\\fR ..."
    yield (
        ".SH DESCRIPTION\nRepoman keeps images of virtual machines in a repository, where you are"
        " known by your grid certificate: make a proxy with \\fBgrid\\-proxy\\-init\\fR, and go."
        " Results go to standard output, everything else to standard error."
    )
    yield ".SH OPTIONS"
    for flags, words in GLOBAL_OPTIONS:
        yield f".TP {OPTION_WIDTH}\n.B {_text(flags)}\n{_text(words)}"


def _commands(commands: Iterable[Command]) -> Iterator[str]:
    yield ".SH COMMANDS"
    for command in commands:
        yield from _command(command)


def _command(command: Command) -> Iterator[str]:
    parser = command_parser(command)
    yield f".SS {_text(', '.join((command.name, *command.aliases)))}"
    yield _text(command.summary[0].upper() + command.summary[1:] + ".")
    usage = " ".join(parser.format_usage().removeprefix("usage: ").split())
    own, _, rest = usage.partition(" [--host HOST]")
    yield f".PP\n{_text(own + rest.partition('[--json]')[2])}"
    for action in parser.words:
        if action.help:
            yield f".TP\n.I {_text(str(action.metavar or action.dest))}\n{_text(action.help)}"
    for option in options_of(parser.known):
        if option.flags[0] not in _COMMON:
            yield f".TP\n.B {_text(', '.join(option.flags))}\n{_text(option.help)}"
    if command.examples:
        yield ".PP\nExamples:\n.PP\n.nf"
        yield from (f"    {_text(example)}" for example in command.examples)
        yield ".fi"


_COMMON = frozenset({"--host", "--port", "--proxy", "--cert", "--key", "--ca-dir", "--json"})


def _tail() -> Iterator[str]:
    for title, rows in (
        ("EXIT STATUS", EXIT_CODES), ("ENVIRONMENT", ENVIRONMENT), ("FILES", FILES)
    ):  # fmt: skip
        yield f".SH {title}"
        for name, words in rows:
            yield f".TP\n.B {_text(name)}\n{_text(words)}"
    yield ".SH SEE ALSO\n.BR grid\\-proxy\\-init (1),\n.BR curl (1)"


def _text(text: str) -> str:
    """Text without meaning to roff."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + text if text.startswith((".", "'")) else text
