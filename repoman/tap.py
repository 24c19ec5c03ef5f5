"""``twistd repoman``: options in, the service out, or a reason why not."""

from __future__ import annotations

import atexit
import ctypes
import os
import resource
import sys
import time
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from twisted.application.service import IService
from twisted.internet.defer import CancelledError
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.usage import Options as UsageOptions

from repoman import __version__
from repoman.config import DEFAULT_PATH, load
from repoman.errors import Misconfigured, RepomanError

DESCRIPTORS = 1 << 16
"""The most that are of use."""

LARGE_BLOCK = 1 << 20
"""Bytes from which a block goes back to the kernel as soon as it is freed: no piece is so large."""

KEPT_FREE = 16 << 20
"""Bytes of freed memory at the end of the heap that the process keeps."""

log = Logger()


class Options(UsageOptions):
    """What can be said after ``twistd repoman``."""

    optParameters = [  # noqa: RUF012 # how usage.Options is told
        ["config", "c", None, f"The configuration file (default {DEFAULT_PATH})", Path],
    ]

    def opt_print_config(self) -> None:
        """Print a configuration file that shows every setting, and exit."""
        sys.stdout.write(files("repoman").joinpath("repoman.conf").read_text("utf-8"))
        sys.exit(0)

    def opt_version(self) -> None:
        """Print Repoman's version, and exit."""
        sys.stdout.write(f"repoman {__version__}\n")
        sys.exit(0)


def makeService(options: Options) -> IService:
    """Make the service that twistd will start.

    Ends the process with status 1 when that cannot be, with the reasons on standard
    error: at once for what can be judged now (configuration, certificates), after a
    clean stop for what only starting shows (a port in use, no database).
    """
    # Imported late: the choice of the reactor is twistd's, and its --help shall be quick.
    from twisted.internet import reactor

    from repoman.workers.orders import read_orders

    use_monotonic_clock(reactor)
    allow_many_descriptors()
    keep_freed_memory()
    orders = read_orders()
    if orders is not None:
        from repoman.workers.employed import work

        worker: IService = work(reactor, orders, _lines)
        return worker
    try:
        service: Any = _make_daemon(reactor, options["config"])
    except RepomanError as error:
        sys.exit("\n".join(_lines(error)))
    service.started.addErrback(_stop_with_reason, reactor)
    made: IService = service
    return made


def _make_daemon(reactor: Any, path: Path | None) -> Any:
    from repoman.service import make_service

    reread = partial(load, path)
    config = reread()
    service = make_service(reactor, config, reread)
    if config.server.workers == 1:
        return service
    from repoman.workers.foreman import Foreman

    # What was made here has shown that certificates and keys can be used.
    return Foreman(reactor, config, reread, _command_of_worker(path))


def _command_of_worker(path: Path | None) -> list[str]:
    """The program that runs here, once more, without what it was told about running."""
    journal = "--logger=repoman.workers.journal.observer"
    program = [sys.executable, os.path.abspath(sys.argv[0]), "--nodaemon", "--pidfile=", journal]
    return [*program, "repoman", *([f"--config={path}"] if path else [])]


def use_monotonic_clock(reactor: Any) -> None:
    """Let all timers run on a clock that nobody sets.

    Twisted's own is the wall clock: a step forwards would close every connection,
    a step back would stop every timer for as long.
    """
    reactor.seconds = time.monotonic


def allow_many_descriptors() -> None:
    """Take the descriptors that this process may have: the usual 1,024 are few for a server."""
    usual, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if most == resource.RLIM_INFINITY else min(most, DESCRIPTORS)
    if wanted > usual != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def keep_freed_memory() -> None:
    """Keep the memory that a transfer frees after each piece: it asks for it again at once.

    glibc would return blocks of 128 KiB and more to the kernel, and take each anew as 64
    pages to be cleared, which can cost more than the encryption (docs/performance.md).
    Where the C library has no ``mallopt``, nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(-3, LARGE_BLOCK)  # M_MMAP_THRESHOLD
        mallopt(-1, KEPT_FREE)  # M_TRIM_THRESHOLD


def _lines(error: RepomanError) -> list[str]:
    """Tell an error on standard error: a mistake per line, each naming its file."""
    if isinstance(error, Misconfigured):
        return list(error.mistakes)
    return [f"repoman: {error.message}"]


def _stop_with_reason(failure: Failure, reactor: Any) -> None:
    """Say why the service did not start, stop what did, and exit with status 1."""
    error = failure.value
    if isinstance(error, CancelledError):
        return  # stopped before it had started
    if isinstance(error, RepomanError):
        lines = _lines(error)
        log.critical("Not started: {reason}", reason="; ".join(lines))
    else:
        lines = ["repoman: not started because of a fault of its own; the log has it"]
        log.failure("Not started", failure)
    # sys.stderr is the log by now.
    print(*lines, sep="\n", file=sys.__stderr__, flush=True)
    atexit.register(_exit_with_failure)
    reactor.callWhenRunning(reactor.stop)


def _exit_with_failure() -> None:
    """Leave with status 1, after twistd has cleaned up.

    However the reactor came to stop, twistd exits with 0, or by the signal that
    stopped it, which a supervisor takes for a wanted end.
    """
    sys.stdout.flush()
    os._exit(1)
