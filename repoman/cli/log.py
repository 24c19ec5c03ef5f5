"""The client's own log file, for those whose configuration asks for one."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, TextIO

from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    InvalidLogLevelError,
    LogLevel,
    LogLevelFilterPredicate,
    textFileLogObserver,
)

from repoman.cli.output import printable
from repoman.client.settings import Settings, expanded, home_of
from repoman.client.shared import open_for_writing
from repoman.client.sudo import rights_of_caller


def observers(settings: Settings) -> list[ILogObserver]:
    """Where log events go: ``repoman.log`` in the configured directory, or nowhere.

    A log that cannot be written is told on stderr and keeps no command from its work.
    """
    if not settings.logging:
        return []
    path = _path(settings)
    try:
        # Under sudo the configuration is the caller's: root appends to nothing that they could not.
        with rights_of_caller(os.environ):
            file = _opened(path)
    except OSError as error:
        print(printable(f"No log is written to {path}: {error.strerror}."), file=sys.stderr)
        return []
    level = LogLevelFilterPredicate(_level(settings.log_level))
    return [FilteringLogObserver(textFileLogObserver(file), [level])]


def _path(settings: Settings) -> Path:
    """The log file; ``~`` is the home of the person at the keyboard, also under sudo."""
    directory = Path(settings.log_directory)
    if directory.parts[:1] == ("~",):
        directory = home_of(os.environ).joinpath(*directory.parts[1:])
    return expanded(str(directory)) / "repoman.log"


def _opened(path: Path) -> TextIO:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = open_for_writing(path, os.O_APPEND | os.O_CREAT)
    return os.fdopen(file, "a", encoding="utf-8")


def _level(name: str) -> Any:
    """A level by the name that Python's logging, which the old clients used, has for it."""
    try:
        return LogLevel.levelWithName(name.lower().removesuffix("ing"))
    except InvalidLogLevelError:
        return LogLevel.info
