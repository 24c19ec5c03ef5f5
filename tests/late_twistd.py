"""twistd, beside it a clock that notes each time the reactor came late.

A line for each lateness: when (CLOCK_MONOTONIC), for how long, and how much of that the process
spent running or waiting for a disk, in milliseconds.  The rest, waiting for a processor that
others have, says nothing about the daemon.

Run as a program, with twistd's own arguments; ``LATE_FILE`` names the file.
"""

from __future__ import annotations

import os
import time

PERIOD = 0.005
"""Seconds between two looks."""

NOTED = 0.010
"""Seconds of lateness from which on it is noted."""


class LateClock:
    """Looks at the time again and again."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._schedule = os.open("/proc/self/schedstat", os.O_RDONLY)

    def start(self) -> None:
        """Begin to look."""
        from twisted.internet import reactor

        self._reactor = reactor
        self._plan()

    def _plan(self) -> None:
        self._due = time.monotonic() + PERIOD
        self._queued = self._in_queue()
        self._reactor.callLater(PERIOD, self._look)

    def _in_queue(self) -> float:
        """Seconds that this process was ready to run, but did not."""
        return int(os.pread(self._schedule, 100, 0).split()[1]) / 1e9

    def _look(self) -> None:
        now = time.monotonic()
        late = now - self._due
        if late > NOTED:
            own = late - (self._in_queue() - self._queued)
            os.write(self._file, f"{now:.3f} {late * 1000:.1f} {own * 1000:.1f}\n".encode())
        self._plan()


def main() -> None:
    """Run twistd."""
    from twisted.internet import reactor
    from twisted.scripts.twistd import run

    reactor.callWhenRunning(LateClock(os.environ["LATE_FILE"]).start)
    run()


if __name__ == "__main__":
    main()
