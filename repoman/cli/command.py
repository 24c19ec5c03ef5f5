"""What a command of the ``repoman`` program is."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from attrs import field, frozen

from repoman.cli.exits import Usage
from repoman.cli.output import Output
from repoman.client.settings import Settings

if TYPE_CHECKING:
    # Only for the types: these import Twisted, which --help has no use for.
    from repoman.client.repository import RepositoryClient

Options = argparse.Namespace
"""What the command line says; free ``--key value`` pairs are in ``pairs``."""


@frozen
class Session:
    """What a command works with.

    :ivar settings: what the configuration files say.
    """

    client: RepositoryClient
    options: Options
    out: Output
    settings: Settings
    reactor: Any

    async def me(self) -> str:
        """The user's own name."""
        return str((await self.client.whoami())["user_name"])


class Arguments(argparse.ArgumentParser):
    """A parser of one command's words.

    :ivar known: its options by name.
    :ivar words: its other arguments.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(
            add_help=False,
            allow_abbrev=False,  # "--n" is a free key of 2011, not short for "--new_name"
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **settings,
        )
        self.known: dict[str, argparse.Action] = {}
        self.words: list[argparse.Action] = []

    def add_argument(self, *names: Any, **settings: Any) -> argparse.Action:
        """Remember what is added."""
        action = super().add_argument(*names, **settings)
        self.known.update(dict.fromkeys(action.option_strings, action))
        if not action.option_strings:
            self.words.append(action)
        return action

    def error(self, message: str) -> NoReturn:
        """Refuse a command line as everything else is refused, with the usage.

        :raises Usage: always.
        """
        raise Usage(f"{message[0].upper()}{message[1:]}.\n{self.format_usage().rstrip()}")


Work = Callable[[Session], Coroutine[Any, Any, None]]
LocalWork = Callable[[Options, Settings, Output], None]


class LoneWork(Protocol):
    """A command that finds server and credential on its own; answers the exit code."""

    def __call__(
        self, reactor: Any, options: Options, settings: Settings, out: Output
    ) -> Coroutine[Any, Any, int]:
        """Do it."""


@frozen
class Command:
    """One command.

    :ivar doing: what it does while it runs, for messages of failure.
    :ivar work: the command itself, when it needs the server.
    :ivar local: the command itself, when it does not.
    :ivar alone: the command itself, when it finds server and credential on its own.
    :ivar first: what must be settled with the person before anything else;
        raises an error if it is not.
    :ivar pairs: free ``--key value`` pairs are taken, as in 2011.
    :ivar short_h: ``-h`` with a value is the hypervisor, as in 2012.
    :ivar anonymous: works without a credential, too.
    :ivar everyday: listed by plain ``--help``.
    :ivar configured: has a use for the configuration, and may fail for it.
    """

    name: str
    summary: str
    doing: str
    work: Work | None = None
    local: LocalWork | None = None
    alone: LoneWork | None = None
    arguments: Callable[[Arguments], None] = lambda parser: None
    aliases: tuple[str, ...] = ()
    examples: tuple[str, ...] = field(default=())
    first: Callable[[Options], None] = lambda options: None
    pairs: bool = False
    short_h: bool = False
    anonymous: bool = False
    everyday: bool = False
    configured: bool = True

    def is_for_anybody(self, options: Options) -> bool:
        """It needs no credential, or not for what is public and no more."""
        return self.anonymous or bool(getattr(options, "public", False))
