"""What keeps the daemon from starting is one line with the cause and the remedy; nothing is left.

Mistakes in the configuration itself are in tests/test_tap.py.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.credentials import host, p256_key, write_private
from tests.end_to_end.conftest import small_disk as small_disk
from tests.gsi.test_credential_files import DROPPED, pkcs8
from tests.postgres import on_server
from tests.server import ROOT, Daemon


@pytest.fixture
def daemon(tmp_path: Path) -> Daemon:
    """One that was never started."""
    return Daemon(tmp_path)


def start(daemon: Daemon, *before: str) -> str:
    """Try to start a daemon that cannot; answer the one line that says why."""
    done = subprocess.run(
        [*before, *daemon.twistd, "--nodaemon", "--pidfile=", "--logfile=t.log",
         "repoman", "-c", daemon.config],
        cwd=daemon.directory, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    log = daemon.directory / "t.log"
    assert not log.exists() or "Traceback" not in log.read_text()
    assert left_behind(daemon) == []
    return line


def left_behind(daemon: Daemon) -> list[str]:
    """What still runs there, or listens."""
    found = [str(path) for path in (daemon.directory / "state").rglob("postmaster.pid")]
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes()
        except OSError:
            continue
        if os.fsencode(daemon.directory) in command and str(os.getpid()) not in entry.parts:
            found.append(command.decode())
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", daemon.https)) == 0:
            found.append(f"port {daemon.https}")
    return found


def test_a_certificate_that_does_not_fit_its_key(daemon: Daemon) -> None:
    other = daemon.grid.user("Other", key=p256_key("another"))
    other.write_pair(daemon.directory / "other.pem", daemon.directory / "hostkey.pem")
    line = start(daemon)
    assert "hostkey.pem" in line
    assert "[tls]" in line
    assert not (daemon.directory / "state").exists()


@pytest.mark.parametrize("which", ["RSASSA-PSS", "P-224", "DSA"])
def test_a_key_that_no_client_would_see(daemon: Daemon, which: str) -> None:
    make, words = DROPPED[which]
    key = make()
    made = host(daemon.grid.ca, "localhost", key=key)
    (daemon.directory / "hostcert.pem").write_bytes(made.pem())
    write_private(daemon.directory / "hostkey.pem", pkcs8(key))
    line = start(daemon)
    assert f"hostkey.pem is {words}" in line
    assert "Set certificate and key in section [tls]" in line


def test_no_certificate(daemon: Daemon) -> None:
    (daemon.directory / "hostcert.pem").unlink()
    assert "hostcert.pem cannot be read (No such file or directory)" in start(daemon)


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="to be another user")
def test_a_key_that_cannot_be_read(daemon: Daemon) -> None:
    # Of another user and another mode than ours: without privileges, root may not read it.
    (daemon.directory / "hostkey.pem").chmod(0)
    without = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    line = start(daemon, *without)
    assert "hostkey.pem cannot be read (Permission denied)" in line
    assert "[tls]" in line


def test_a_ca_directory_without_a_ca(daemon: Daemon) -> None:
    for file in daemon.ca_directory.iterdir():
        file.unlink()
    assert "install your grid's CA certificates" in start(daemon)


def test_a_ca_directory_whose_only_ca_is_closed_to_us(daemon: Daemon) -> None:
    [ca] = daemon.ca_directory.glob("*.0")
    ca.chmod(0)
    line = start(daemon, "setpriv", "--bounding-set=-all", "--inh-caps=-all")
    assert f"{ca.name} cannot be read (Permission denied)" in line


def test_a_port_in_use(daemon: Daemon) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = daemon.config.read_text().replace(str(daemon.https), str(port), 1)
        daemon.config.write_text(text)
        line = start(daemon)
    assert f"tcp:{port}:interface=127.0.0.1: Address already in use: stop what listens" in line


@pytest.fixture
def used(daemon: Daemon) -> Daemon:
    """One that has run, and has an image."""
    with daemon.running():
        daemon.admin.ask("POST", "/api/images", form={"name": "one"})
        assert daemon.admin.ask("PUT", "/api/images/raw/one", body=b"bytes").status == 200
    return daemon


def test_an_address_of_another_host(daemon: Daemon) -> None:
    text = daemon.config.read_text()
    daemon.config.write_text(text.replace("interface=127.0.0.1", "interface=192.0.2.1"))
    assert start(daemon).endswith("Cannot assign requested address: name an address of this host")


def test_the_store_of_another_repository(used: Daemon) -> None:
    blobs = used.directory / "state" / "blobs"
    (blobs / "REPO_ID").write_text("0" * 32 + "\n")
    line = start(used)
    assert f"{blobs} belongs to repository {'0' * 32}" in line
    assert "mount the right store" in line


def test_a_store_that_is_not_mounted(used: Daemon) -> None:
    blobs = used.directory / "state" / "blobs"
    blobs.rename(used.directory / "elsewhere")
    assert "mount it, or restore a backup" in start(used)
    assert not blobs.exists()


def test_tables_of_a_newer_release(daemon: Daemon) -> None:
    with daemon.running():
        on_server(
            daemon.dsn,
            "INSERT INTO schema_version SELECT max(number) + 1, 'later', 'x' FROM schema_version",
        )
    line = start(daemon)
    assert "run the newer Repoman again" in line


def test_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    daemon = Daemon(tmp_path / "d", server={"state": small_disk / "state"})
    (small_disk / "filler").write_bytes(b"x" * (30 << 20))
    line = start(daemon)
    assert "No space left on device" in line
    assert "make room" in line or "mend that" in line


def test_no_socket_from_systemd(daemon: Daemon) -> None:
    text = daemon.config.read_text()
    old = f"tcp:{daemon.https}:interface=127.0.0.1"
    daemon.config.write_text(text.replace(old, "systemd:domain=INET6:index=0", 1))
    assert "systemd has handed over no such socket: start repoman.socket first" in start(daemon)
