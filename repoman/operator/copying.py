"""``copy-store``: every file into another store, while the daemon runs."""

from __future__ import annotations

import json
import sys
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path
from typing import Any

from attrs import asdict

from repoman import config, settings
from repoman.assembly import digesting, make_store
from repoman.config import Config
from repoman.database.copies import CopyRecords
from repoman.errors import Misconfigured
from repoman.operator.command import Command
from repoman.operator.database import Reached, with_database
from repoman.repository.copying import Copied, Copier, Unresumed

LINE_EVERY = 60.0
"""Seconds between lines where there is no terminal."""


def copy_store(arguments: Namespace) -> int:
    """Copy from the store of the one configuration into that of the other."""
    here, there = config.load(arguments.config), config.load(arguments.to)
    if here.storage.place == there.storage.place:
        raise Misconfigured(
            [f"{arguments.to}: [storage] names {there.storage.place}, where the files are already"]
        )

    async def work(reached: Reached) -> int:
        copied = await _copy(reached, there, arguments.rate, Progress(arguments.json))
        for one in copied.damaged:
            print(f"{one} is missing or not what was stored: not copied.", file=sys.stderr)
        if arguments.json:
            print(json.dumps(asdict(copied)))
        else:
            print(*_told(copied, here, there), sep="\n")
        return 1 if copied.damaged else 0

    return with_database(here, work)


async def _copy(reached: Reached, there: Config, rate: int | None, progress: Progress) -> Copied:
    records = CopyRecords(reached.pool)
    source = await make_store(reached.reactor, reached.config, records)
    target = await make_store(reached.reactor, there, records, Unresumed(), is_new=True)
    for store in (source, target):
        await store.start()
        reached.stack.push_async_callback(store.stop)
    await target.hold()  # a directory that a daemon uses is no target
    copier = Copier(
        records, source, target, there.storage.place, digesting, reached.reactor, rate,
        progress.begin, progress.moved,
    )  # fmt: skip
    try:
        return await copier.run()
    finally:
        progress.end()


def _told(copied: Copied, here: Config, there: Config) -> list[str]:
    lines = [
        f"{copied.files} files of {copied.size} bytes copied to {there.storage.place}, each as it "
        f"was stored; {copied.there} were there."
    ]
    if copied.put_away:
        lines.append(f"{copied.put_away} copies of what was removed since put in quarantine/.")
    if copied.unfinished:
        lines.append(f"{copied.unfinished} unfinished uploads are not copied: they begin anew.")
    lines.append(
        f"To change over from {here.storage.place}: stop the daemon; run this again, for what has "
        "come since; change [storage]; start the daemon."
    )
    return lines


class Progress:
    """A bar on a terminal, a line a minute elsewhere, nothing for a program; on standard error."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: Any = None
        self._total = self._done = 0
        self._next_line = time.monotonic() + LINE_EVERY

    def begin(self, total: int) -> None:
        """There are ``total`` bytes to copy."""
        self._total = total
        if sys.stderr.isatty() and not self._quiet:
            from tqdm import tqdm

            tqdm.monitor_interval = 0  # it would start a thread
            self._bar = tqdm(
                total=total, unit="B", unit_scale=True, unit_divisor=1024, file=sys.stderr
            )

    def moved(self, count: int) -> None:
        """``count`` bytes more."""
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
        elif not self._quiet and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_EVERY
            print(f"{self._done} of {self._total} bytes", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()


def _rate(text: str) -> int:
    try:
        return settings.size(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--to", type=Path, required=True, metavar="FILE",
        help="a configuration whose [storage] is the other store",
    )  # fmt: skip
    parser.add_argument(
        "--rate", type=_rate, metavar="SIZE", help="copy so much per second at most, as in 50MiB"
    )
    parser.add_argument("--json", action="store_true", help="say what was done as JSON")


COPY = Command(
    copy_store,
    "Copy every file that is not there yet into the store of another configuration, each held "
    "against its digest; status 1 if one was not what was stored.  The daemon may run or not.",
    _arguments,
)
