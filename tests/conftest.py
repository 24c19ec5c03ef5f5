"""What all tests share: how hypothesis runs, and one running server."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import settings

from tests.ceph import ceph as ceph
from tests.ledger import Ledger
from tests.ledger import board as board
from tests.server import Daemon
from tests.server import daemon as daemon

IN_A_BUCKET = os.environ.get("REPOMAN_TEST_STORE") == "ceph"
"""``make test-ceph``: every daemon keeps its bytes in a bucket of a real Ceph."""

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
    """Leave out what looks at a directory's files, where there are none."""
    if IN_A_BUCKET:
        for item in items:
            if item.get_closest_marker("directory_store"):
                item.add_marker(pytest.mark.skip(reason="looks at the files of a directory"))


@pytest.fixture(scope="session", autouse=IN_A_BUCKET)
def in_a_bucket(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every daemon that a test makes keeps its bytes in a bucket of its own."""
    ceph = request.getfixturevalue("ceph")

    def files(ledger: Ledger) -> set[str]:
        [bucket] = re.findall("^bucket = (.*)$", ledger.daemon.config.read_text(), re.MULTILINE)
        stored = ceph.s3cmd("ls", "--recursive", f"s3://{bucket}/data/")
        arriving = ceph.s3cmd("multipart", f"s3://{bucket}")
        return set(re.findall("/data/../([0-9a-f]{32})", stored + arriving))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Daemon, "storage", lambda: ceph.storage(ceph.bucket()))
        patch.setattr(Ledger, "files", files)
        yield
