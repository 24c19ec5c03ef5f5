"""Completion for bash, zsh and fish, made from the table of commands."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence

from attrs import frozen

from repoman.cli.command import Command
from repoman.cli.options import command_parser, global_parser

FILES = frozenset({"FILE", "PATH", "PROXY", "DIRECTORY", "PORT|PROXY"})
"""Values that are names of files."""

GLOBAL_HELP = {
    "-h": "show help", "-H": "the server, HOST or HOST:PORT", "-r": "the server, HOST or HOST:PORT",
    "-p": "the server's port", "-P": "the port, or the proxy", "--help": "show help",
}  # fmt: skip


@frozen
class Option:
    """An option as the shells want to know it.

    :ivar value: its value is a ``file`` or a ``word``; empty: it has none.
    """

    flags: tuple[str, ...]
    help: str
    value: str


def options_of(actions: Mapping[str, argparse.Action]) -> list[Option]:
    """The options that a parser knows."""
    found = []
    for action in dict.fromkeys(actions.values()):
        flags = tuple(action.option_strings)
        if not flags:
            continue
        value = ""
        if action.nargs != 0:
            named = action.metavar or action.dest.upper()
            value = "file" if named in FILES else "word"
        words = action.help if action.help not in (None, argparse.SUPPRESS) else ""
        found.append(Option(flags, words or GLOBAL_HELP.get(flags[0], ""), value))
    return found


def _options(command: Command | None) -> list[Option]:
    parser = command_parser(command) if command else global_parser()
    return options_of(parser.known)


def _names(command: Command) -> tuple[str, ...]:
    return (command.name, *command.aliases)


def bash(commands: Sequence[Command]) -> str:
    """For bash."""
    with_value = sorted({f for o in _options(None) if o.value for f in o.flags})
    all_options = [o for c in (None, *commands) for o in _options(c)]
    with_file = sorted({f for o in all_options if o.value == "file" for f in o.flags})
    names = " ".join(n for c in commands for n in _names(c))
    first = " ".join([*(f for o in _options(None) for f in o.flags), names])
    cases = "\n".join(f"        {'|'.join(_names(c))}) words='{_flags(c)}' ;;" for c in commands)
    return f"""\
# bash completion of repoman; made by: repoman completion bash
_repoman() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}}
    local command= words= at
    for ((at = 1; at < COMP_CWORD; at++)); do
        case ${{COMP_WORDS[at]}} in
            {"|".join(with_value)}) ((at++)) ;;
            -*) ;;
            *) command=${{COMP_WORDS[at]}}; break ;;
        esac
    done
    COMPREPLY=()
    case $before in
        {"|".join(with_file)}) mapfile -t COMPREPLY < <(compgen -f -- "$current"); return ;;
    esac
    case $command in
        '') words='{first}' ;;
        help) words='{names}' ;;
{cases}
    esac
    if [[ -z $command || $command == help || $current == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
    else
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
    fi
}}
complete -o filenames -F _repoman repoman
"""


def _flags(command: Command) -> str:
    return " ".join(flag for option in _options(command) for flag in option.flags)


def zsh(commands: Sequence[Command]) -> str:
    """For zsh."""
    described = "\n".join(
        f"        {_quoted(name + ':' + command.summary.replace(':', ' '))}"
        for command in commands
        for name in _names(command)
    )
    cases = "\n".join(
        f"        {'|'.join(_names(c))})\n            _arguments {_zsh_options(_options(c))}"
        " '*:file:_files' ;;"
        for c in commands
    )
    return f"""\
#compdef repoman
# zsh completion of repoman; made by: repoman completion zsh
_repoman() {{
    local -a commands
    commands=(
{described}
    )
    local context state state_descr line
    typeset -A opt_args
    _arguments -C {_zsh_options(_options(None))} '1:command:->command' '*::words:->words'
    case $state in
        command) _describe command commands ;;
        words) case $words[1] in
{cases}
        esac ;;
    esac
}}
_repoman "$@"
"""


def _zsh_options(options: list[Option]) -> str:
    return " ".join(_zsh_option(option, flag) for option in options for flag in option.flags)


def _zsh_option(option: Option, flag: str) -> str:
    words = option.help.replace("[", "(").replace("]", ")").replace(":", " ")
    value = {"file": ":file:_files", "word": ":value: ", "": ""}[option.value]
    return _quoted(f"{flag}[{words}]{value}")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def fish(commands: Sequence[Command]) -> str:
    """For fish."""
    head = "# fish completion of repoman; made by: repoman completion fish"
    return "\n".join([head, *_fish(commands), ""])


def _fish(commands: Sequence[Command]) -> Iterator[str]:
    yield "complete -c repoman -f -n __fish_use_subcommand"
    for command in commands:
        for name in _names(command):
            summary = _quoted(command.summary)
            yield f"complete -c repoman -f -n __fish_use_subcommand -a {name} -d {summary}"
    for option in _options(None):
        yield from _fish_option(option, "__fish_use_subcommand")
    for command in commands:
        condition = f"__fish_seen_subcommand_from {' '.join(_names(command))}"
        for option in _options(command):
            yield from _fish_option(option, condition)


def _fish_option(option: Option, condition: str) -> Iterator[str]:
    flags = " ".join(
        f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in option.flags
    )
    value = {"file": " -rF", "word": " -x", "": ""}[option.value]
    yield f"complete -c repoman -n '{condition}' {flags}{value} -d {_quoted(option.help)}"


SHELLS: Mapping[str, Callable[[Sequence[Command]], str]] = {"bash": bash, "zsh": zsh, "fish": fish}
"""The shells that can be served."""
