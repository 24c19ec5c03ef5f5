"""Child processes whose end can be awaited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from signal import SIGKILL
from types import MappingProxyType
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ProcessExitedAlready, ProcessTerminated
from twisted.internet.interfaces import IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C", "TZ": "UTC"}
"""All that a child learns of our environment: nothing."""

_KEPT = 8192
"""How much of a child's output is kept, in bytes from the end."""


class ChildFailed(Exception):
    """A program ended with something else than success.

    :ivar output: the end of what it wrote, as one line.
    """

    def __init__(self, status: int, output: str) -> None:
        self.output = " ".join(output.split())
        super().__init__(f"{self.output} (status {status})")


class Child(ProcessProtocol):
    """A running program.

    :ivar status: its exit code, or minus the signal that killed it.
    """

    def __init__(self, stdin: bytes = b"") -> None:
        self._waiting: list[Deferred[None]] = []
        self.status: int | None = None
        self._stdin = stdin
        self._output = b""

    def ended(self) -> Deferred[None]:
        """Answer when the program is gone and reaped."""
        end: Deferred[None] = Deferred()
        self._waiting.append(end)
        if self.status is not None:
            end.callback(None)
        return end

    @property
    def output(self) -> str:
        """The end of what it wrote."""
        return self._output.decode(errors="replace").strip()

    @property
    def pid(self) -> int | None:
        """Its process id, while it runs."""
        return None if self.transport is None else self.transport.pid

    def connectionMade(self) -> None:
        """Feed it its input."""
        self._process.writeToChild(0, self._stdin)
        self._process.closeChildFD(0)

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """Keep the end of its output."""
        self._output = (self._output + data)[-_KEPT:]

    def processEnded(self, reason: Failure) -> None:
        """Tell who waits."""
        why = cast(ProcessTerminated, reason.value)
        self.status = -why.signal if why.signal else why.exitCode or 0
        for end in self._waiting:
            if not end.called:
                end.callback(None)

    def signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        with suppress(ProcessExitedAlready):
            self._process.signalProcess(number)

    @property
    def _process(self) -> IProcessTransport:
        if self.transport is None:
            raise RuntimeError("not started")
        return self.transport


def spawn(
    reactor: Any,
    command: Sequence[str],
    *,
    stdin: bytes = b"",
    files: Mapping[int, int | str] | None = None,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Child:
    """Start a program in ``/`` with an empty environment.

    :param environment: what it learns nevertheless.
    :param files: as for ``spawnProcess``: its descriptors, by default pipes.
    """
    child = Child(stdin)
    reactor.spawnProcess(
        child,
        command[0],
        list(command),
        env={**ENVIRONMENT, **environment},
        path="/",
        childFDs=files,
    )
    return child


async def run(
    reactor: Any,
    command: Sequence[str],
    *,
    stdin: bytes = b"",
    environment: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Run a program to its end; answer what it wrote.

    To cancel that kills it.

    :raises ChildFailed: it did not succeed.
    """
    child = spawn(reactor, command, stdin=stdin, environment=environment)
    try:
        await child.ended()
    except CancelledError:
        child.signal(SIGKILL)
        await child.ended()
        raise
    if child.status:
        raise ChildFailed(child.status, child.output)
    return child.output
