"""What the tests of the directory store share."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_twisted
from directory_store import Tracing, reactor

from repoman.storage.directory import DirectoryStore


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the store lies."""
    return tmp_path / "blobs"


@pytest_twisted.async_yield_fixture
async def store(root: Path) -> AsyncIterator[DirectoryStore]:
    """A started store."""
    made = DirectoryStore(reactor, root, repository_id="this")
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
def tracing(tmp_path: Path) -> Tracing:
    """Attach strace to a process and all its forks: ``with tracing(pid, "-e…") as log``."""
    program = shutil.which("strace")
    if program is None:
        pytest.skip("needs strace")

    @contextmanager
    def trace(pid: int, *options: str) -> Iterator[Path]:
        log = tmp_path / f"strace-{len(list(tmp_path.iterdir()))}"
        command = [program, "-f", "-y", "-o", str(log), *options, "-p", str(pid)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
            assert strace.stderr is not None
            said = strace.stderr.readline()
            if "attached" not in said:
                pytest.skip(f"strace may not attach: {said}")
            try:
                yield log
            finally:
                strace.terminate()

    return trace


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A mounted disk of 16 MiB, in memory."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small disk")
    disk = tmp_path / "small"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16M", "none", disk], check=True)
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)
