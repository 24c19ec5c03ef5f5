"""One process at a time per state directory."""

from __future__ import annotations

import os
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path

from repoman.errors import Misconfigured


def hold(state: Path) -> int:
    """Take ``<state>/lock`` for the life of this process.

    :returns: its descriptor; to close it gives the lock back, as does any death.
    :raises Misconfigured: another process has it.
    """
    descriptor = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        flock(descriptor, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 20).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise Misconfigured(
            [f"[server] state: {state} is in use by process {holder}: stop it first"]
        ) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor
