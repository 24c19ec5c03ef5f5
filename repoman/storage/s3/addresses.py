"""Where the object store is, as the name service says."""

from __future__ import annotations

import os
from contextlib import suppress
from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

KNOWN_SECONDS = 30.0
"""For how long an answer of the name service holds."""

LOOKUP_SECONDS = 6.0
"""How long it may think: more than the system waits for the first of its servers."""


class Addresses:
    """Those of one host.

    However many ask, the name service is asked once; while it fails, the last good answer holds.
    """

    def __init__(self, reactor: Any, host: str) -> None:
        self._reactor = reactor
        self._host = host
        self._known: list[str] = []
        self._asked = float("-inf")
        self._waiting: list[Deferred[None]] = []

    async def get(self) -> list[str]:
        """All of them, the best first; none if there never was an answer."""
        try:
            return [str(ip_address(self._host))]
        except ValueError:
            pass
        if self._reactor.seconds() - self._asked > KNOWN_SECONDS or not self._known:
            await self._fresh()
        return self._known

    def _fresh(self) -> Deferred[None]:
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        if len(self._waiting) == 1:
            Deferred.fromCoroutine(self._ask())
        return waiting

    async def _ask(self) -> None:
        # Whoever is cancelled meanwhile only waits no longer: the answer is everybody's.
        try:
            lines = (await self._look_up()).decode().splitlines()
            self._known = list(dict.fromkeys(line.split()[0] for line in lines)) or self._known
            self._asked = self._reactor.seconds()
        finally:
            waiting, self._waiting = self._waiting, []
            for one in waiting:
                one.callback(None)

    async def _look_up(self) -> bytes:
        # The system's own way, in a child: a library in here would block, or know less.
        child = _Child()
        try:
            process = self._reactor.spawnProcess(
                child, "getent", ["getent", "ahosts", self._host], {"PATH": os.defpath}
            )
        except OSError:
            return b""
        limit = self._reactor.callLater(LOOKUP_SECONDS, _kill, process)
        said = await child.done
        if limit.active():
            limit.cancel()
        return said


class _Child(ProcessProtocol):
    """Fires ``done`` with what was said, or with nothing if it failed."""

    def __init__(self) -> None:
        self.done: Deferred[bytes] = Deferred()
        self._said = b""

    def outReceived(self, data: bytes) -> None:
        self._said += data

    def processEnded(self, reason: Failure) -> None:
        self.done.callback(self._said if reason.check(ProcessDone) else b"")


def _kill(process: Any) -> None:
    with suppress(ProcessExitedAlready):
        process.signalProcess("KILL")
