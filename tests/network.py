"""Hosts of their own on one machine: network namespaces on a bridge, for tests that need root."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from attrs import frozen

PREFIX = "10.213.77"
"""Of the addresses; the test itself is at .1."""


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
    hosts = {
        name: Host(f"{PREFIX}.{number}", ("ip", "netns", "exec", f"{bridge}-{name}"))
        for number, name in enumerate(names, 11)
    }
    try:
        try:
            _ip("link", "add", bridge, "type", "bridge")
            _ip("address", "add", f"{PREFIX}.1/24", "dev", bridge)
            _ip("link", "set", bridge, "up")
            for number, host in enumerate(hosts.values()):
                _join(bridge, number, host)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"the kernel gives no hosts of their own: {error.stderr}")
        yield hosts
    finally:
        for host in hosts.values():
            subprocess.run(["ip", "netns", "delete", host.enter[-1]], capture_output=True)
        subprocess.run(["ip", "link", "delete", bridge], capture_output=True)


def _join(bridge: str, number: int, host: Host) -> None:
    name, here = host.enter[-1], f"{bridge}p{number}"
    _ip("netns", "add", name)
    _ip("link", "add", here, "type", "veth", "peer", "name", "eth0", "netns", name)
    _ip("link", "set", here, "master", bridge, "up")
    _ip("-n", name, "address", "add", f"{host.address}/24", "dev", "eth0")
    _ip("-n", name, "link", "set", "eth0", "up")
    _ip("-n", name, "link", "set", "lo", "up")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
