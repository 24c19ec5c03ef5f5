"""Programs of the system that do part of the work."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol

from repoman.errors import RepomanError

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
"""Where they are looked for, besides the caller's own path."""

OUTPUT_LIMIT = 64 * 1024
"""How much of a program's output is kept, in bytes: the end of it."""


class ProgramFailed(RepomanError):
    """A program of the system did not do its work.

    :ivar status: its exit status, or the negative number of the signal that ended it.
    """

    title = "A program failed"

    def __init__(self, message: str, *, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


class ProgramMissing(RepomanError):
    """A program of the system is not installed."""

    title = "A program is missing"


@define(eq=False)
class _Running(ProcessProtocol):
    ended: Deferred[int] = field(factory=Deferred)
    out: bytes = b""
    err: bytes = b""

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.closeStdin()

    def outReceived(self, data: bytes) -> None:
        self.out = (self.out + data)[-OUTPUT_LIMIT:]

    def errReceived(self, data: bytes) -> None:
        self.err = (self.err + data)[-OUTPUT_LIMIT:]

    def processEnded(self, reason: Any) -> None:
        status = reason.value
        self.ended.callback(-status.signal if status.signal else status.exitCode)


@frozen
class Programs:
    """Runs programs.

    :ivar verbose: let the person see what they print.
    """

    reactor: Any
    verbose: bool = False

    def find(self, *names: str) -> str:
        """The first program that is installed.

        :raises ProgramMissing: there is none.
        """
        path = os.pathsep.join(filter(None, [os.environ.get("PATH"), PATH]))
        for name in names:
            if found := shutil.which(name, path=path):
                return found
        raise ProgramMissing(f"{names[0]} is not installed; save needs it.")

    async def run(
        self,
        name: str,
        *words: str,
        fine: Sequence[int] = (0,),
        stdout: int | None = None,
        show: bool = False,
    ) -> str:
        """Run one to its end and answer what it printed.  Cancelling ends it first.

        :param fine: the exit statuses of success.
        :param stdout: a descriptor for its output, instead of an answer.
        :param show: what it prints may interest a person.
        :raises ProgramFailed: any other end, with what it said.
        """
        running = _Running()
        descriptors: dict[int, int | str] = {0: "w", 1: "r", 2: "r"}
        if stdout is not None:
            descriptors[1] = stdout
        elif show and self.verbose:
            descriptors[1] = 2
        command = self.find(name)
        environment = {**os.environ, "LC_ALL": "C"}
        process = self.reactor.spawnProcess(
            running, command, [name, *words], environment, childFDs=descriptors
        )
        waiting: Deferred[int] = Deferred(lambda _: process.signalProcess("TERM"))

        def over(status: int) -> None:
            if not waiting.called:
                waiting.callback(status)

        running.ended.addCallback(over)
        try:
            status = await waiting
        finally:
            if not running.ended.called:  # cancelled: it must be gone before others clean up
                await _quietly(running.ended)
        if status not in fine:
            said = (running.err or running.out).decode("utf-8", "replace").strip()
            last = said.splitlines()[-1] if said else f"it ended with {status}"
            raise ProgramFailed(f"{name} failed: {last}", status=status)
        return running.out.decode("utf-8", "replace")


async def _quietly(ended: Deferred[Any]) -> None:
    gone: Deferred[None] = Deferred()
    ended.addBoth(lambda _: gone.callback(None))
    await gone
