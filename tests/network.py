"""Hosts of their own on one machine: network namespaces on a bridge, for tests that need root."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from attrs import frozen

LOCK = Path("/run/repoman-tests-network.lock")
"""Is held while a network is made, so that two runs of the tests take different addresses."""


@frozen
class Host:
    """A namespace with an address.

    :ivar enter: what begins the command of a program that shall run there.
    """

    address: str
    enter: tuple[str, ...]


@contextmanager
def network(*names: str) -> Iterator[dict[str, Host]]:
    """Hosts that reach one another, and whom the test reaches, until the block ends."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and ip, for hosts of their own")
    bridge = f"rm{os.getpid()}"
    spaces = [f"{bridge}-{name}" for name in names]
    try:
        try:
            with LOCK.open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                _remove_what_the_dead_left()
                prefix = _free_prefix()
                _ip("link", "add", bridge, "type", "bridge")
                _ip("address", "add", f"{prefix}.1/24", "dev", bridge)
            _ip("link", "set", bridge, "up")
            hosts = {
                name: Host(f"{prefix}.{number}", ("ip", "netns", "exec", space))
                for number, (name, space) in enumerate(zip(names, spaces, strict=True), 11)
            }
            for number, host in enumerate(hosts.values()):
                _join(bridge, number, host)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"the kernel gives no hosts of their own: {error.stderr}")
        yield hosts
    finally:
        for space in spaces:
            subprocess.run(["ip", "netns", "delete", space], capture_output=True)
        subprocess.run(["ip", "link", "delete", bridge], capture_output=True)


def _remove_what_the_dead_left() -> None:
    """Remove the networks of runs that were killed: their addresses would lead nowhere."""
    for kind in ("netns", "link"):
        for name, process in re.findall(r"\b(rm(\d+)(?:-\w+)?)\b", _ip(kind, "show")):
            if not Path("/proc", process).exists():
                subprocess.run(["ip", kind, "delete", name], capture_output=True)


def _free_prefix() -> str:
    """Return the first three bytes of addresses that nothing on this machine has."""
    taken = _ip("-4", "address", "show")
    return next(p for n in range(256) if f" {(p := f'10.213.{n}')}." not in taken)


def _join(bridge: str, number: int, host: Host) -> None:
    name, here = host.enter[-1], f"{bridge}p{number}"
    _ip("netns", "add", name)
    _ip("link", "add", here, "type", "veth", "peer", "name", "eth0", "netns", name)
    _ip("link", "set", here, "master", bridge, "up")
    _ip("-n", name, "address", "add", f"{host.address}/24", "dev", "eth0")
    _ip("-n", name, "link", "set", "eth0", "up")
    _ip("-n", name, "link", "set", "lo", "up")


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
    return done.stdout
