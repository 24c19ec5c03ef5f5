"""A line that is slow and breaks when a test says so: TCP bytes through a port of ours."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import Any


class Relay:
    """Passes connections on to a port of 127.0.0.1.

    :ivar rate: bytes a second in each direction of each connection; 0: as they come.
    :ivar upwards: how many bytes went to the server.
    :ivar downwards: how many came back.
    """

    def __init__(self, port: int, rate: int = 0) -> None:
        self.rate, self.upwards, self.downwards = rate, 0, 0
        self._to = port
        self._open: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: Any) -> None:
        # close() alone would leave accept() waiting, on a number that is soon another file's.
        self._listening.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listening.close()
        self.cut()

    def cut(self) -> None:
        """Break all connections."""
        connections, self._open = self._open, []
        for one in connections:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def wait_for(self, upwards: int = 0, downwards: int = 0) -> None:
        """Until so many bytes are through since the relay was made."""
        end = time.monotonic() + 60
        while self.upwards < upwards or self.downwards < downwards:
            assert time.monotonic() < end, (self.upwards, self.downwards)
            time.sleep(0.01)

    def _accept(self) -> None:
        while True:
            try:
                near = self._listening.accept()[0]
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                near.close()
                continue
            self._open += [near, far]
            threading.Thread(target=self._pump, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near, False), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, upwards: bool) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
                if upwards:
                    self.upwards += len(data)
                else:
                    self.downwards += len(data)
                if self.rate:
                    time.sleep(len(data) / self.rate)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            for one in (source, target):
                one.close()
