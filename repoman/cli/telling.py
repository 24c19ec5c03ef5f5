"""Commands that tell about all commands, themselves included."""

from __future__ import annotations

from repoman.cli import manpage, manual
from repoman.cli.command import Arguments, Command, Options
from repoman.cli.options import find_command
from repoman.cli.output import Output
from repoman.cli.shells import SHELLS
from repoman.client.settings import Settings


def with_help(*others: Command) -> tuple[Command, ...]:
    """The other commands, and those that tell about all of them."""

    def help_(options: Options, settings: Settings, out: Output) -> None:
        if options.man:
            print(manpage.page(commands), end="")
        elif options.topic:
            print(manual.page(find_command(commands, options.topic)))
        else:
            print(manual.overview(commands, everything=True))

    def completion(options: Options, settings: Settings, out: Output) -> None:
        print(SHELLS[options.shell](commands), end="")

    commands = (
        *others,
        Command(
            "help",
            "print all commands, or all about one",
            "Looking around.",
            local=help_,
            configured=False,
            arguments=_help_arguments,
            examples=("repoman help get", "repoman help --man | man -l -"),
        ),
        Command(
            "completion",
            "print what lets your shell complete commands and options",
            "Looking around.",
            local=completion,
            configured=False,
            arguments=_completion_arguments,
            examples=(
                "source <(repoman completion bash)",
                "repoman completion fish > ~/.config/fish/completions/repoman.fish",
            ),
        ),
    )
    return commands


def _help_arguments(parser: Arguments) -> None:
    parser.add_argument("topic", nargs="?", metavar="SUBCOMMAND", help="one of them")
    parser.add_argument("--man", action="store_true", help="the manual page, for man -l -")


def _completion_arguments(parser: Arguments) -> None:
    parser.add_argument("shell", choices=tuple(SHELLS), help="bash, zsh or fish")
