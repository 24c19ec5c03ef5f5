"""What the daemon promises, promised again with a real Ceph behind it: the same tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ceph import Ceph
from tests.server import Daemon


@pytest.fixture(scope="package", autouse=True)
def on_ceph(ceph: Ceph) -> Iterator[None]:
    """Every daemon that a test makes here keeps its bytes in a bucket of its own."""
    before = Daemon.storage
    Daemon.storage = lambda: ceph.storage(ceph.bucket())
    yield
    Daemon.storage = before


@pytest.fixture(scope="package")
def daemon(on_ceph: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A server for all tests here that only talk to one."""
    with Daemon(tmp_path_factory.mktemp("daemon")).running() as daemon:
        yield daemon
