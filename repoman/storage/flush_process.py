"""The directory store's helper process: all that may block on a disk.

The daemon has one thread, and a sync of a gigabyte takes ten seconds on a slow
disk.  So it asks this process, one JSON array per line::

    [number, operation, argument, ...]      on standard input
    [number, null, result]                  on standard output, in any order
    [number, errno, text]                   when the operation failed

Each request is worked on in a fork of its own, so none waits for another and a
fork that dies costs one request.  The process keeps every incoming file open
from before its first byte until its commit: the kernel reports a failed write
only to descriptors that were open when it failed, and only once.  After one
failure the file is therefore closed for good, and its commit refused.

Descriptors that arrive over the socket on descriptor 3 are closed in a fork:
to close the last one of a deleted file frees its blocks, which takes time.

Only the standard library, nothing of Twisted: it must start at once.  It ends
when its standard input does, however the daemon died.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

from repoman.storage import operations
from repoman.storage.operations import Layout

BURIALS = 3
"""The descriptor of the socket over which descriptors come to be closed."""

_OPERATIONS: dict[str, Callable[..., Any]] = {
    name: getattr(operations, name)
    for name in (
        "prepare", "create", "reopen", "cut", "flush", "keep", "commit", "delete",
        "quarantine", "size", "fetch", "arriving", "committed", "digest",
    )
}  # fmt: skip
_OPENING_A_FILE = ("create", "reopen")
_OF_OPEN_FILES = ("cut", "flush", "keep", "commit")
_LAST_OF_A_FILE = ("keep", "commit", "delete", "quarantine")


class Server:
    """Takes requests and has each worked on in a fork."""

    def __init__(self, root: str) -> None:
        self._at = Layout(root)
        self._files: dict[str, int] = {}
        self._forks: dict[int, tuple[int, Callable[[int | None, Any], None]]] = {}
        self._poll = select.poll()
        self._tail = b""

    def run(self) -> None:
        """Serve until standard input ends."""
        burials = socket.socket(fileno=BURIALS)
        self._poll.register(0, select.POLLIN)
        self._poll.register(BURIALS, select.POLLIN)
        while True:
            for fd, _ in self._poll.poll():
                if fd == 0:
                    if not self._take_requests():
                        return
                elif fd == BURIALS:
                    self._bury(burials)
                else:
                    self._harvest(fd)

    def _take_requests(self) -> bool:
        data = os.read(0, 65536)
        *lines, self._tail = (self._tail + data).split(b"\n")
        for line in lines:
            number, name, *arguments = json.loads(line)
            self._begin(number, name, arguments)
        return bool(data)

    def _begin(self, number: int, operation: str, arguments: list[Any]) -> None:
        key = arguments[0] if arguments else ""
        file = self._files.get(key, -1)
        if operation in _OF_OPEN_FILES and file < 0:
            self._say(number, errno.EBADF, "not open, or broken before")
            return

        def ended(failed: int | None, result: Any) -> None:
            if operation in _OPENING_A_FILE and failed is None:
                failed = self._open(key)
            elif operation == "flush" and failed is not None:
                self._close(key)
            self._say(number, failed, result)

        work = _OPERATIONS[operation]
        try:
            self._fork(lambda: work(self._at, file, *arguments), [file], ended)
        except OSError as error:
            self._say(number, error.errno, error.strerror)
        if operation in _LAST_OF_A_FILE:
            self._close(key)

    def _bury(self, burials: socket.socket) -> None:
        data, dead, _, _ = socket.recv_fds(burials, 1, 16)
        if data:
            self._fork(lambda: None, dead, lambda failed, result: None)
        else:
            self._poll.unregister(BURIALS)
        for fd in dead:
            os.close(fd)

    def _fork(
        self,
        work: Callable[[], Any],
        files: list[int],
        ended: Callable[[int | None, Any], None],
    ) -> None:
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            _close_all_but(writing, *files)
            _work(writing, work)
        os.close(writing)
        self._forks[reading] = (pid, ended)
        self._poll.register(reading, select.POLLIN)

    def _harvest(self, reading: int) -> None:
        self._poll.unregister(reading)
        with open(reading, "rb") as pipe:
            reply = pipe.read()
        pid, ended = self._forks.pop(reading)
        os.waitpid(pid, 0)
        failed, result = json.loads(reply) if reply else (errno.EINTR, "its fork died")
        ended(failed, result)

    def _open(self, key: str) -> int | None:
        self._close(key)
        try:
            self._files[key] = os.open(self._at.arriving(key), os.O_WRONLY)
        except OSError as error:  # deleted already, or too many files are open
            return error.errno
        return None

    def _close(self, key: str) -> None:
        file = self._files.pop(key, -1)
        if file >= 0:
            os.close(file)

    def _say(self, number: int, failed: int | None, result: Any) -> None:
        os.write(1, json.dumps([number, failed, result]).encode() + b"\n")


def _work(writing: int, operation: Callable[[], Any]) -> None:
    try:
        reply = [None, operation()]
    except OSError as error:
        reply = [error.errno or errno.EIO, error.strerror]
    except BaseException as error:
        reply = [errno.EINVAL, repr(error)]
    with open(writing, "wb") as pipe:
        pipe.write(json.dumps(reply).encode())
    os._exit(0)


def _close_all_but(*kept: int) -> None:
    # A fork that lives long must not keep others' deleted files or pipes open.
    low = 0
    for fd in sorted(fd for fd in kept if fd >= 0):
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, 1 << 16)


def main() -> None:
    """Serve the root named by the only argument."""
    os.umask(0o077)
    # Asked to stop, the daemon first lets its transfers end: it needs us.
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    Server(sys.argv[1]).run()
