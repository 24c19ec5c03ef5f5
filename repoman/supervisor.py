"""What systemd is told: that we serve, reload, stop, and are alive (sd_notify(3))."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress

from attrs import field, frozen


@frozen
class Supervisor:
    """Whoever started the daemon and waits to hear of it; nobody, if it was a shell.

    :ivar place: the socket to tell it on; empty for nobody.
    :ivar patience: seconds within which it wants to hear that we are alive; 0: never.
    """

    place: str = field(factory=lambda: os.environ.get("NOTIFY_SOCKET", ""))
    patience: float = field(factory=lambda: int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6)

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
        self._tell("WATCHDOG=1")

    def _tell(self, *lines: str) -> None:
        if not self.place:
            return
        # An abstract one is written with an "@".
        address = "\0" + self.place[1:] if self.place.startswith("@") else self.place
        with (
            suppress(OSError),  # its loss, not ours
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as to,
        ):
            to.sendto("\n".join(lines).encode(), address)
