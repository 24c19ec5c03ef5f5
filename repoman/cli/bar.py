"""How far a transfer is: a bar on a terminal, a line now and then elsewhere, all on stderr."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from repoman.cli.output import size
from repoman.client.progress import Progress

LINE_EVERY = 60.0
"""Seconds between lines where there is no terminal."""


class Bar(Progress):
    """Shows one transfer."""

    def __init__(self, label: str, *, as_json: bool = False) -> None:
        self._label, self._as_json = label, as_json
        self._bar: Any = None
        self._total = self._done = 0
        self._next_line = 0.0

    def begin(self, total: int, done: int) -> None:
        """Show that it begins."""
        self.end()
        self._total, self._done = total, done
        self._next_line = time.monotonic() + LINE_EVERY
        if sys.stderr.isatty() and not self._as_json:
            # Imported here, because most commands show no bar.
            from tqdm import tqdm

            tqdm.monitor_interval = 0  # it would start a thread
            self._bar = tqdm(
                total=total,
                initial=done,
                desc=self._label,
                unit="B",
                unit_scale=True,
                unit_divisor=1024,
                file=sys.stderr,
                disable=None,
            )

    def advance(self, count: int) -> None:
        """Show that it goes on."""
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
        elif time.monotonic() >= self._next_line:
            self._next_line += LINE_EVERY
            self._line()

    def waiting(self, error: Exception, seconds: float) -> None:
        """Say why nothing moves."""
        self.end()
        print(f"{error} Trying again in {seconds:.0f} s ...", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _line(self) -> None:
        if self._as_json:
            line = json.dumps({"file": self._label, "done": self._done, "total": self._total})
        else:
            line = f"{self._label}: {size(self._done)} of {size(self._total)}"
        print(line, file=sys.stderr, flush=True)
