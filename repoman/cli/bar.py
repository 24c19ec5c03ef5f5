"""How far a transfer is: a bar on a terminal, a line now and then elsewhere, all on stderr."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from repoman.cli.output import printable, size
from repoman.client.progress import Progress

LINE_EVERY = 60.0
"""Seconds between lines where there is no terminal."""

JSON_EVERY = 1.0
"""Seconds between lines for a program."""


class Bar(Progress):
    """Shows one transfer."""

    def __init__(self, label: str, *, as_json: bool = False) -> None:
        self._label, self._as_json = label, as_json
        self._every = JSON_EVERY if as_json else LINE_EVERY
        self._bar: Any = None
        self._total: int | None = None
        self._done = self._before = 0
        self._begun = self._next_line = 0.0
        self._waits = False

    def begin(self, total: int | None, done: int) -> None:
        """Show that it begins."""
        self.end()
        self._total, self._done, self._before = total, done, done
        self._begun = time.monotonic()
        self._next_line = self._begun + self._every
        if sys.stderr.isatty() and not self._as_json:
            # Imported here, because most commands show no bar.
            from tqdm import tqdm

            tqdm.monitor_interval = 0  # it would start a thread
            self._bar = tqdm(
                total=total,
                initial=done,
                desc=printable(self._label),
                unit="B",
                unit_scale=True,
                unit_divisor=1024,
                file=sys.stderr,
                # A terminal that does not know its width (expect(1) has such) gets the usual one.
                ncols=None if os.get_terminal_size(sys.stderr.fileno()).columns else 80,
                nrows=24,
                disable=None,
            )

    def advance(self, count: int) -> None:
        """Show that it goes on."""
        self._waits = False
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + self._every
            self._line()

    def waiting(self, error: Exception, seconds: float | None) -> None:
        """Say why nothing moves; once, while it waits for its turn."""
        if self._bar is not None and self._done == self._before:
            self._bar.leave = False  # it never moved, and there will be another
        self.end()
        if seconds is None and self._waits:
            return
        self._waits = seconds is None
        then = "Waiting for a turn" if seconds is None else f"Trying again in {seconds:.0f} s"
        text = printable(f"{error} {then} ...")
        line = json.dumps({"file": self._label, "message": text}) if self._as_json else text
        print(line, file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _line(self) -> None:
        speed = (self._done - self._before) / max(time.monotonic() - self._begun, 0.001)
        left = None if self._total is None else (self._total - self._done) / max(speed, 1.0)
        if self._as_json:
            facts = {
                "file": self._label,
                "done": self._done,
                "total": self._total,
                "bytes_per_second": round(speed),
                "seconds_left": None if left is None else round(left),
            }
            line = json.dumps(facts)
        else:
            line = f"{printable(self._label)}: {size(self._done)}"
            line += f" of {size(self._total)}" if self._total is not None else ""
            line += f", {size(round(speed))}/s"
            line += f", {left:.0f} s left" if left is not None else ""
        print(line, file=sys.stderr, flush=True)
