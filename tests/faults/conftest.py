"""Disks of the tests' own: small, slow, and such as lose their power."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from attrs import frozen

MIB = 1 << 20
THROTTLE = Path("/sys/fs/cgroup/blkio")


@frozen
class Disk:
    """A mounted ext4 image.

    :ivar image: the file that is the disk.
    :ivar device: the loop device.
    :ivar place: where it is mounted.
    """

    image: Path
    device: str
    place: Path

    def cut(self) -> Path:
        """What a power cut now would leave: a copy of the image, not unmounted."""
        copy = self.image.with_suffix(".cut")
        subprocess.run(["cp", "--sparse=always", self.image, copy], check=True)
        return copy

    def throttle(self, bytes_per_second: int) -> None:
        """Let the device be slow; 0 for as fast as it can."""
        number = os.stat(self.device).st_rdev
        limit = f"{os.major(number)}:{os.minor(number)} {bytes_per_second}"
        for direction in ("read", "write"):
            (THROTTLE / f"blkio.throttle.{direction}_bps_device").write_text(limit)


@contextmanager
def mounted(image: Path, place: Path) -> Iterator[Disk]:
    """Mount an image.  Its journal commits when asked, not by the clock."""
    place.mkdir(exist_ok=True)
    found = subprocess.run(
        ["losetup", "--find", "--show", image], check=True, capture_output=True, text=True
    )
    device = found.stdout.strip()
    subprocess.run(["mount", "-o", "commit=300", device, place], check=True)
    try:
        yield Disk(image, device, place)
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)
        subprocess.run(["losetup", "--detach", device], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A disk of 1 GiB."""
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        pytest.skip("needs root and mkfs.ext4")
    image = tmp_path / "disk.ext4"
    with image.open("wb") as file:
        file.truncate(1024 * MIB)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    with mounted(image, tmp_path / "disk") as disk:
        yield disk


@pytest.fixture
def slow_disk(disk: Disk) -> Iterator[Disk]:
    """A disk of 40 MB/s."""
    if not (THROTTLE / "blkio.throttle.write_bps_device").exists():
        pytest.skip("this kernel cannot throttle a device")
    disk.throttle(40_000_000)
    yield disk
    disk.throttle(0)
