"""What all tests share: how hypothesis runs, and one running server."""

from __future__ import annotations

import os

from hypothesis import settings

from tests.ledger import board as board
from tests.server import daemon as daemon

# How long one example takes says nothing on a machine that is busy with others.
settings.register_profile("repoman", deadline=None, database=None)
settings.load_profile("repoman")

# Where Debian keeps mkfs.ext4 and its like, which an ordinary user's PATH leaves out.
os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
