"""What systemd is told: that we serve, reload, stop, and are alive (sd_notify(3))."""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from typing import Any

from attrs import define, field

RETRY_SECONDS = 0.05
"""Seconds until a message for which the socket had no room is sent once more."""


@define
class Supervisor:
    """Whoever started the daemon and waits to hear of it; nobody, if it was a shell.

    :ivar reactor: schedules what is sent once more.
    :ivar place: the socket to tell it on; empty for nobody.
    :ivar patience: seconds within which it wants to hear that we are alive; 0: never.
    """

    _reactor: Any
    place: str = field(factory=lambda: os.environ.get("NOTIFY_SOCKET", ""))
    patience: float = field(factory=lambda: int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6)
    _unsent: deque[bytes] = field(factory=lambda: deque(maxlen=16), init=False)

    def ready(self, status: str = "Serving") -> None:
        """Requests are answered, if only by "not yet"."""
        self._tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """Files are being read again; to be followed by :meth:`ready`."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Running transfers end, then the daemon."""
        self._tell("STOPPING=1", "STATUS=Running transfers end")

    async def alive(self) -> None:
        """The event loop comes round."""
        if not self._unsent:  # else the next sign of life does
            self._tell("WATCHDOG=1")

    def _tell(self, *lines: str) -> None:
        if not self.place:
            return
        self._unsent.append("\n".join(lines).encode())
        if len(self._unsent) == 1:
            self._send()

    def _send(self) -> None:
        """Send what waits, in its order.

        The services of a machine share one socket with room for a few
        messages.  libsystemd blocks while it is full; we may not, and a
        READY=1 that is lost ends the daemon when the start takes too long.
        """
        # An abstract one is written with an "@".
        address = "\0" + self.place[1:] if self.place.startswith("@") else self.place
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as to:
            while self._unsent:
                try:
                    to.sendto(self._unsent[0], address)
                except BlockingIOError:
                    self._reactor.callLater(RETRY_SECONDS, self._send)
                    return
                except OSError:
                    pass  # its loss, not ours
                self._unsent.popleft()
