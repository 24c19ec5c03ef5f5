"""The program against the real daemon, with its own PostgreSQL and real proxies."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import define, field

from repoman.client.part_names import part_of
from tests.cli.conftest import ROOT
from tests.credentials import Grid

CONFIGURATION = """\
[server]
https = tcp:{port}:interface=127.0.0.1
url = https://localhost:{port}
state = {place}/state
[tls]
certificate = {place}/hostcert.pem
key = {place}/hostkey.pem
ca_directory = {place}/certificates
[accounts]
admins = {place}/admins
[metrics]
endpoint =
"""


@define
class Daemon:
    """A repository that Roger Impey administers."""

    grid: Grid
    port: int
    process: subprocess.Popen[bytes] = field(init=False)

    @property
    def place(self) -> Path:
        """Where everything is."""
        return self.grid.place

    def start(self) -> None:
        """Start, and wait until it serves."""
        self.process = subprocess.Popen(
            [Path(sys.executable).with_name("twistd"), "--nodaemon", "--pidfile=",
             f"--logfile={self.place}/twistd.log", "repoman", "-c", f"{self.place}/repoman.conf"],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while not self.serves():
            assert self.process.poll() is None
            assert time.monotonic() < deadline, (self.place / "twistd.log").read_text()
            time.sleep(0.1)

    def serves(self) -> bool:
        """It listens, and knows its administrator."""
        try:
            socket.create_connection(("127.0.0.1", self.port)).close()
        except OSError:
            return False
        return self.run("whoami").returncode == 0

    def command(self, *words: str) -> list[str]:
        """``repoman`` with some words."""
        return [sys.executable, "-m", "repoman.cli", "-H", f"localhost:{self.port}", *words]

    def environment(self, **more: str) -> dict[str, str]:
        """A grid user's."""
        return {
            "PATH": os.defpath, "PYTHONPATH": str(ROOT), "HOME": str(self.place),
            "X509_CERT_DIR": str(self.grid.directory.path),
            "X509_USER_PROXY": str(self.place / "x509up"), **more,
        }  # fmt: skip

    def run(self, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            self.command(*words), cwd=self.place, env=self.environment(**environ),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    def does(self, *words: str) -> str:
        """Run a command that must succeed; what it printed."""
        done = self.run(*words)
        # With --json, progress is told on a machine that takes its time.
        expected = ('"bytes_per_second"', "Into the account of impeyr.")
        said = [s for s in done.stderr.splitlines() if not any(e in s for e in expected)]
        assert (done.returncode, said) == (0, [])
        return done.stdout


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    grid = Grid(tmp_path_factory.mktemp("daemon"))
    grid.host()
    grid.user().proxy().proxy().write(grid.place / "x509up")
    grid.user("Kyle Fransham").proxy().write(grid.place / "kyle")
    daemon = Daemon(grid, free_port())
    (grid.place / "admins").write_text("impeyr,r@example.org,/C=CA/O=Grid/CN=Roger Impey\n")
    (grid.place / "repoman.conf").write_text(
        CONFIGURATION.format(port=daemon.port, place=grid.place)
    )
    daemon.start()
    yield daemon
    daemon.process.terminate()
    assert daemon.process.wait(30) == -signal.SIGTERM


@pytest.fixture(scope="module")
def disk(daemon: Daemon) -> Path:
    """A disk with a boot sector, a hole, and something behind it."""
    path = daemon.place / "disk.img"
    with path.open("wb") as file:
        file.write(random.Random(4).randbytes(3_000_000))
        file.truncate(64 * 2**20)
        file.seek(0, os.SEEK_END)
        file.write(b"end")
    return path


def test_the_session_of_the_slides(daemon: Daemon, disk: Path) -> None:
    place = daemon.place
    assert daemon.does("whoami") == "impeyr\n"
    assert daemon.does("list") == ""
    assert daemon.does("create-image", "--name", "vm", "--description", "a disk") == (
        "[OK]     Created new image 'vm'\n"
    )
    assert "[OK]" in daemon.does("upload-image", "vm", "--file", str(disk))
    assert daemon.does("list") == "impeyr/vm\n"
    described = ast.literal_eval(daemon.does("describe-image", "vm"))
    assert (described["size"], described["description"]) == (disk.stat().st_size, "a disk")
    got = json.loads(daemon.does("get", "vm", "--dest", "copy.img", "--json"))
    assert got["sha256"] == described["checksum"]["value"]
    assert (place / "copy.img").read_bytes() == disk.read_bytes()
    assert (place / "copy.img").stat().st_blocks * 512 < 8_000_000
    assert daemon.does("rename", "vm", "disk") == "[OK]     Renaming image.\n"
    assert daemon.does("list", "--all") == "impeyr/disk\n"
    assert daemon.does("delete", "disk", "--force") == "[OK]     Removed image disk.\n"
    assert daemon.does("list") == ""


def test_what_goes_wrong_has_its_exit_code(daemon: Daemon, disk: Path) -> None:
    daemon.does("ci", "vm")
    for words, code in (
        (["ci", "vm"], 6),
        (["ci", "v m"], 1),
        (["get", "vm"], 3),
        (["get", "nothing"], 3),
        (["up", "nothing", "--file", str(disk)], 3),
        (["mi", "vm", "--color", "red"], 1),
        (["pi", str(disk), "vm", "-h", "kvm"], 6),
        (["di", "vm", "--proxy", str(daemon.place / "kyle")], 4),
        (["up", "vm", "--file", str(disk), "--proxy", str(daemon.place / "kyle")], 4),
    ):
        done = daemon.run(*words)
        assert (done.returncode, "[OK]" in done.stdout) == (code, False), (words, done)
        assert "Traceback" not in done.stderr
    assert daemon.does("list") == "impeyr/vm\n"
    daemon.does("mi", "vm", "--read_only", "true")
    assert daemon.run("up", "vm", "--file", str(disk)).returncode == 5
    assert daemon.run("ri", "vm", "-f").returncode == 5
    daemon.does("mi", "vm", "--read_only", "false")
    daemon.does("ri", "vm", "-f")


def test_a_public_image_needs_no_credential(daemon: Daemon, disk: Path) -> None:
    daemon.does("ci", "vm", "-a", "true")
    daemon.does("up", "vm", "--file", str(disk))
    nobody = {"X509_USER_PROXY": "", "SUDO_UID": "987654321"}
    done = daemon.run("get", "impeyr/vm", "-d", "public.img", **nobody)
    assert (done.returncode, done.stderr) == (0, "")
    assert (daemon.place / "public.img").read_bytes() == disk.read_bytes()
    daemon.does("mi", "vm", "-a", "false")
    assert daemon.run("get", "impeyr/vm", **nobody).returncode == 4
    daemon.does("ri", "vm", "-f")


def test_an_image_goes_to_who_accepts_it(daemon: Daemon, disk: Path) -> None:
    daemon.grid.user("Anna Lind").proxy().write(daemon.place / "anna")
    kyle = {"X509_USER_PROXY": str(daemon.place / "anna")}
    daemon.does("cu", "kyle", "/C=CA/O=Grid/CN=Anna Lind")
    assert daemon.run("ci", "vm", **kyle).returncode == 0
    given = daemon.run("mi", "vm", "-N", "impeyr", **kyle)
    assert (given.returncode, given.stdout) == (0, "[OK]     Modifying image.\n")
    assert given.stderr == "It is offered to impeyr, and yours until impeyr accepts it.\n"
    assert "kyle/vm  impeyr" in daemon.does("offers")
    daemon.does("decline", "kyle/vm")
    assert daemon.run("withdraw", "vm", **kyle).returncode == 3
    assert daemon.run("offer", "vm", "impeyr", **kyle).returncode == 0
    assert daemon.run("withdraw", "vm", **kyle).returncode == 0
    assert daemon.run("offer", "vm", "impeyr", **kyle).returncode == 0
    assert daemon.run("accept", "kyle/vm", "--seen", "7").returncode == 6
    assert "as 'gift'" in daemon.does("accept", "kyle/vm", "-n", "gift")
    assert daemon.does("list").splitlines() == ["impeyr/gift"]
    assert daemon.run("list", **kyle).stdout == ""
    daemon.does("ri", "gift", "-f")
    daemon.does("ru", "kyle", "-f")


def test_an_interrupted_upload_leaves_the_old_file(daemon: Daemon, disk: Path) -> None:
    daemon.does("ci", "vm")
    daemon.does("up", "vm", "--file", str(disk))
    before = daemon.does("di", "vm")
    endless = daemon.place / "endless"
    with endless.open("wb") as file:
        file.write(b"x" * 2**20)  # zeros would not be seen below
        file.truncate(2**34)
    running = subprocess.Popen(
        daemon.command("up", "vm", "--file", str(endless)), env=daemon.environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    incoming = daemon.place / "state/blobs/incoming"
    while not any(file.stat().st_blocks for file in incoming.iterdir()):
        assert running.poll() is None
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=10)
    assert (running.returncode, err) == (130, "Into the account of impeyr.\nInterrupted.\n")
    assert "[OK]" not in out
    assert daemon.does("di", "vm") == before
    daemon.does("ri", "vm", "-f")


def test_a_download_outlives_the_servers_sudden_death(daemon: Daemon) -> None:
    content = random.Random(5).randbytes(2**20) * 200
    (daemon.place / "big.img").write_bytes(content)
    daemon.does("ci", "big")
    daemon.does("up", "big", "--file", "big.img")
    running = subprocess.Popen(
        daemon.command("get", "big", "-d", "back.img"), cwd=daemon.place,
        env=daemon.environment(), stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    part = part_of(daemon.place / "back.img", hashlib.sha256(content).hexdigest())
    while not (part.exists() and part.stat().st_size > 2**20):
        assert running.poll() is None
        time.sleep(0.002)
    daemon.process.kill()
    daemon.process.wait()
    daemon.start()
    _, err = running.communicate(timeout=60)
    assert "Trying again" in err
    assert running.returncode == 0, err
    assert (daemon.place / "back.img").read_bytes() == content
