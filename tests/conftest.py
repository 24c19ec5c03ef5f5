"""What all tests share: how hypothesis runs, and one running server."""

from __future__ import annotations

import os
import signal

from hypothesis import settings

from tests.ceph import ceph as ceph
from tests.ledger import board as board
from tests.server import daemon as daemon

# How long one example takes says nothing on a machine that is busy with others.
settings.register_profile("repoman", deadline=None, database=None)
settings.load_profile("repoman")

# A shell that runs us in its background has Ctrl-C ignored, by us and by all that we start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Where Debian keeps mkfs.ext4 and its like, which an ordinary user's PATH leaves out.
os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
