"""The client's own log file, for those whose configuration asks for one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    InvalidLogLevelError,
    LogLevel,
    LogLevelFilterPredicate,
    textFileLogObserver,
)

from repoman.client.settings import Settings


def observers(settings: Settings) -> list[ILogObserver]:
    """Where log events go: ``repoman.log`` in the configured directory, or nowhere.

    A log that cannot be written is told on stderr and keeps no command from its work.
    """
    if not settings.logging:
        return []
    path = Path(settings.log_directory).expanduser() / "repoman.log"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = path.open("a", encoding="utf-8")
    except OSError as error:
        print(f"No log is written to {path}: {error.strerror}.", file=sys.stderr)
        return []
    level = LogLevelFilterPredicate(_level(settings.log_level))
    return [FilteringLogObserver(textFileLogObserver(file), [level])]


def _level(name: str) -> Any:
    """A level by the name that Python's logging, which the old clients used, has for it."""
    try:
        return LogLevel.levelWithName(name.lower().removesuffix("ing"))
    except InvalidLogLevelError:
        return LogLevel.info
