"""What a command of the operator's is."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable

from attrs import frozen

from repoman.errors import Misconfigured, RepomanError


def _nothing(parser: ArgumentParser) -> None:
    pass


@frozen
class Command:
    """One of the operator's commands.

    :ivar run: takes the arguments, answers the exit status, raises RepomanErrors.
    :ivar arguments: adds what can stand after the command.
    """

    run: Callable[[Namespace], int]
    summary: str
    arguments: Callable[[ArgumentParser], None] = _nothing


def complain(error: RepomanError) -> None:
    """Say on standard error what is wrong, a line for each mistake."""
    print(*lines_of(error), sep="\n", file=sys.stderr)


def lines_of(error: RepomanError) -> list[str]:
    """What is wrong, a line for each mistake."""
    return list(error.mistakes) if isinstance(error, Misconfigured) else [error.message]
