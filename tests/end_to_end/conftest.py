"""A user whose proxy was made by the real grid-proxy-init, and big files."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.credentials import p256_key
from tests.server import Daemon, Person

MIB = 1 << 20


@pytest.fixture(scope="module")
def roger(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Person:
    """A registered user with a proxy by grid-proxy-init."""
    if shutil.which("grid-proxy-init") is None:
        pytest.skip("grid-proxy-init is not installed")
    person = daemon.newcomer()
    assert person.credential is not None
    place = tmp_path_factory.mktemp("globus")
    certificate, key, proxy = place / "usercert.pem", place / "userkey.pem", place / "x509up"
    person.credential.write_pair(certificate, key)
    subprocess.run(
        ["grid-proxy-init", "-q", "-rfc", "-cert", certificate, "-key", key, "-out", proxy],
        env={**os.environ, "HOME": str(place), "X509_CERT_DIR": str(daemon.ca_directory)},
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    person.hang_up()
    person.proxy = proxy
    return person


@pytest.fixture(scope="module")
def random_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """4 GiB that no compression and no hole makes smaller."""
    path = tmp_path_factory.mktemp("big") / "image.raw"
    with path.open("wb") as file:
        for _ in range(4096 // 64):
            file.write(os.urandom(64 * MIB))
    yield path
    path.unlink()


def sha256(path: Path) -> str:
    """The digest of a file."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(MIB):
            digest.update(block)
    return digest.hexdigest()


@pytest.fixture(scope="session")
def p256() -> object:
    """A key for credentials of a test's own."""
    return p256_key("end to end")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A mounted disk of 32 MiB, in memory."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small disk")
    disk = tmp_path / "small"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32M", "none", disk], check=True)
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)
