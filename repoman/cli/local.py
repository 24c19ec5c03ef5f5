"""Commands that need no server."""

from __future__ import annotations

import os
from pathlib import Path

from attrs import evolve

from repoman import __version__
from repoman.atomic_files import alone_in, atomic_file
from repoman.cli.access import stated_server
from repoman.cli.command import Arguments, Command, Options
from repoman.cli.output import Output, aligned
from repoman.client.settings import Settings, expanded, file_text, user_file
from repoman.client.sudo import rights_of_caller
from repoman.errors import Conflict

MOST_BACKUPS = 99
"""How many older configurations ``make-config`` keeps."""


def version(options: Options, settings: Settings, out: Output) -> None:
    """``version``."""
    out.show(__version__, f"repoman {__version__}")


def about(options: Options, settings: Settings, out: Output) -> None:
    """``about``: what this client is and works with."""
    facts = (
        ("client version", __version__),
        ("config files in use", ", ".join(map(str, settings.sources)) or "none"),
        ("repository_host", settings.repository),
        ("repository_port", settings.port),
        ("user_proxy_cert", settings.proxy_cert),
        ("snapshot", str(settings.place(settings.snapshot))),
        ("mountpoint", str(settings.place(settings.mountpoint))),
        ("lockfile", str(settings.place(settings.lockfile))),
        ("system_excludes", settings.system_excludes),
        ("user_excludes", settings.user_excludes),
        ("logging", "on" if settings.logging else "off"),
    )
    out.show(dict(facts), aligned(facts))


def _make_config_arguments(parser: Arguments) -> None:
    parser.add_argument("--stdout", action="store_true", help="print it instead of writing it")


def make_config(options: Options, settings: Settings, out: Output) -> None:
    """``make-config``: what is configured now, and what the command line adds."""
    host, port = stated_server(options, settings)
    proxy = settings.proxy_cert
    if options.proxy:
        proxy = os.path.abspath(expanded(options.proxy))
    text = file_text(evolve(settings, repository=host, port=port, proxy_cert=proxy))
    if options.stdout:
        print(text, end="")
        return
    path = user_file(os.environ)
    with rights_of_caller(os.environ):
        _write(path, text)
    out.show({"path": str(path)}, f"New repoman configuration file written to {path}")


def _write(path: Path, text: str) -> None:
    """Write a file; the one that is there goes to ``.bak``, and what that was, to ``.bak.N``."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Of two make-configs at once, one's backup would replace the other's.
    with alone_in(path.parent), atomic_file(path) as file:
        file.write(text.encode())
        file.flush()  # a full disk is to be found before anything moves
        if path.is_file():
            backup = path.with_name(path.name + ".bak")
            if os.path.lexists(backup) and not _are_equal(path, backup):
                backup.rename(_free(backup))
            path.rename(backup)


def _are_equal(one: Path, other: Path) -> bool:
    return other.is_file() and one.read_bytes() == other.read_bytes()


def _free(backup: Path) -> Path:
    """Where an older backup can be: it may be the only copy of what somebody wrote by hand."""
    for number in range(1, MOST_BACKUPS + 1):
        place = backup.with_name(f"{backup.name}.{number}")
        if not os.path.lexists(place):
            return place
    raise Conflict(f"There are {MOST_BACKUPS} backups beside {backup} already: remove some.")


COMMANDS = (
    Command(
        "make-config",
        "write your configuration file",
        "Writing configuration.",
        local=make_config,
        arguments=_make_config_arguments,
        aliases=("mc",),
        examples=("repoman -H vmrepo.example.org make-config", "repoman make-config --stdout"),
    ),
    Command(
        "about",
        "print what this client works with",
        "Looking around.",
        local=about,
        examples=("repoman about",),
    ),
    Command(
        "version",
        "print the version",
        "Looking around.",
        local=version,
        configured=False,
        examples=("repoman version",),
    ),
)
"""The commands of this module."""
