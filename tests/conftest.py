"""What all tests share: how hypothesis runs, and one running server."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.ceph import Ceph
from tests.ceph import ceph as ceph
from tests.ledger import Ledger
from tests.ledger import board as board
from tests.server import ROOT, Daemon
from tests.server import daemon as daemon

STORE = os.environ.get("REPOMAN_TEST_STORE", "directory")
"""Where every daemon keeps its bytes: ``ceph`` for "make test-ceph", ``memory`` for
"make test-memory"."""

LEFT_OUT = {"directory": (), "ceph": ("directory_store",),
            "memory": ("directory_store", "lasting_store")}[STORE]  # fmt: skip
"""The marks (see ``setup.cfg``) of tests that say nothing about such a store."""

# How long one example takes says nothing on a machine that is busy with others.
settings.register_profile("repoman", deadline=None, database=None)
settings.load_profile("repoman")

# A shell that runs us in its background has Ctrl-C ignored, by us and by all that we start;
# nohup does the same with SIGHUP.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Where Debian keeps mkfs.ext4 and its like, which an ordinary user's PATH leaves out.
os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Leave out what says nothing about the store that there is."""
    for item in items:
        for mark in LEFT_OUT:
            if item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=f"needs a {mark}"))


@pytest.fixture(scope="session", autouse=True)
def store_of_all_daemons(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let every daemon that a test makes keep its bytes where they all do."""
    with pytest.MonkeyPatch.context() as patch:
        if STORE == "ceph":
            keep_in_buckets(patch, request.getfixturevalue("ceph"))
        elif STORE == "memory":
            keep_in_memory(patch)
        yield


def keep_in_buckets(patch: pytest.MonkeyPatch, ceph: Ceph) -> None:
    """To each daemon a bucket of its own, of a real Ceph."""

    def files(ledger: Ledger) -> set[str]:
        [bucket] = re.findall("^bucket = (.*)$", ledger.daemon.config.read_text(), re.MULTILINE)
        stored = ceph.s3cmd("ls", "--recursive", f"s3://{bucket}/data/")
        arriving = ceph.s3cmd("multipart", f"s3://{bucket}")
        return set(re.findall("/data/../([0-9a-f]{32})", stored + arriving))

    patch.setattr(Daemon, "storage", lambda: ceph.storage(ceph.bucket()))
    patch.setattr(Ledger, "files", files)


def keep_in_memory(patch: pytest.MonkeyPatch) -> None:
    """To each daemon its memory."""
    make = Daemon.__init__

    def make_with_memory(daemon: Daemon, directory: Path, **settings: Any) -> None:
        make(daemon, directory, **settings)
        daemon.twistd.insert(0, ROOT / "tests" / "memory_twistd.py")
        daemon.twistd.insert(0, sys.executable)
        daemon.environment["KEYS_FILE"] = str(directory / "keys")

    def files(ledger: Ledger) -> set[str]:
        return set((ledger.daemon.directory / "keys").read_text().split())

    patch.setattr(Daemon, "__init__", make_with_memory)
    patch.setattr(Ledger, "files", files)
