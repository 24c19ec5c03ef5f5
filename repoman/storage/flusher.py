"""The daemon's side of the store's helper process.

See :mod:`repoman.storage.flush_process` for what it does and why.  Its death
harms no committed blob: requests in flight fail, files that were incoming are
refused from then on, and a new one is started.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import (
    IDelayedCall,
    IProcessTransport,
    IReactorProcess,
    IReactorTime,
)
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from repoman.errors import StoreUnavailable
from repoman.storage.flush_process import BURIALS

FIRST_RESTART = 0.1
"""Seconds from the death of a helper to the start of the next."""

LAST_RESTART = 10.0
"""The most that this grows to, doubling while helpers die without an answer."""

PACKAGES = str(Path(__file__).parents[2])
"""Where the helper process finds this package."""

# No environment, no site-packages: nothing but this package and the standard library.
_ALONE = ("-I", "-S")
_PROGRAM = (
    "import sys; sys.path.append(sys.argv[2]); "
    "from repoman.storage.flush_process import main; main()"
)


class IReactor(IReactorProcess, IReactorTime):
    """What the store needs of a reactor."""


class _Life(ProcessProtocol):
    """One life of the helper process."""

    log = Logger()

    def __init__(self, over: Callable[[str], None], alive: Callable[[], None]) -> None:
        self._over = over
        self._alive = alive
        self._asked: dict[int, Deferred[Any]] = {}
        self._number = 0
        self._tail = b""

    def ask(self, operation: str, *arguments: Any) -> Deferred[Any]:
        self._number += 1
        answer = self._asked[self._number] = Deferred()
        line = json.dumps([self._number, operation, *arguments]).encode() + b"\n"
        self._process.write(line)
        return answer

    def close(self) -> None:
        self._process.closeStdin()

    @property
    def _process(self) -> IProcessTransport:
        assert self.transport is not None  # noqa: S101  # set by spawnProcess
        return self.transport

    def outReceived(self, data: bytes) -> None:
        *lines, self._tail = (self._tail + data).split(b"\n")
        for line in lines:
            number, failed, result = json.loads(line)
            self._alive()
            # Its death may be known before its last words are read.
            answer = self._asked.pop(number, None)
            if answer is None:
                continue
            if failed is None:
                answer.callback(result)
            else:
                answer.errback(OSError(failed, result))

    def errReceived(self, data: bytes) -> None:
        self.log.error("blob store's helper says: {text}", text=data.decode(errors="replace"))

    def processExited(self, reason: Failure) -> None:
        self._over(str(reason.value))
        asked, self._asked = self._asked, {}
        for answer in asked.values():
            answer.errback(_unavailable())


class Flusher:
    """Has the blocking work done by the helper process, and keeps one alive.

    :param root: the directory of the store.
    """

    log = Logger()

    def __init__(self, reactor: IReactor, root: str) -> None:
        self._reactor = reactor
        self._root = root
        self._life: _Life | None = None
        self._burials: socket.socket | None = None
        self._pause = FIRST_RESTART
        self._restart: IDelayedCall | None = None
        self._stopped: Deferred[None] | None = None

    def start(self) -> None:
        """Start the helper process."""
        self._stopped = self._restart = None
        life = _Life(self._died, self._answered)
        program = [sys.executable, *_ALONE, "-c", _PROGRAM, self._root, PACKAGES]
        self._burials, theirs = socket.socketpair()
        self._burials.setblocking(False)
        fds: dict[int, str | int] = {0: "w", 1: "r", 2: "r", BURIALS: theirs.fileno()}
        try:
            self._reactor.spawnProcess(life, program[0], program, env=None, childFDs=fds)
            self._life = life
        except OSError as error:
            self._died(str(error))
        finally:
            theirs.close()

    async def stop(self) -> None:
        """Let the helper process end; its forks end what they are at."""
        if self._restart is not None:
            self._restart.cancel()
            self._restart = None
        if self._life is not None and self._stopped is None:
            self._stopped = Deferred()
            self._life.close()
        if self._stopped is not None:
            await self._stopped

    def ask(self, operation: str, *arguments: Any) -> Deferred[Any]:
        """Have an operation of :mod:`~repoman.storage.operations` done.

        :return: fires with its result; fails with its OSError, or with
            StoreUnavailable when the helper process died or is not there.
        """
        if self._life is None:
            return fail(_unavailable())
        return self._life.ask(operation, *arguments)

    def bury(self, fd: int) -> None:
        """Close a descriptor that may be the last one of a deleted file."""
        if self._burials is not None:
            with suppress(OSError):  # then it is closed here, slowly
                socket.send_fds(self._burials, [b"."], [fd])
        os.close(fd)

    def _answered(self) -> None:
        self._pause = FIRST_RESTART

    def _died(self, why: str) -> None:
        self._life = None
        if self._burials is not None:
            self._burials.close()
            self._burials = None
        if self._stopped is not None:
            self._stopped.callback(None)
            return
        self.log.error("blob store: the helper process ended: {why}", why=why)
        self._restart = self._reactor.callLater(self._pause, self.start)
        self._pause = min(2 * self._pause, LAST_RESTART)


def _unavailable() -> StoreUnavailable:
    return StoreUnavailable("The blob store does not answer just now; try again.")
