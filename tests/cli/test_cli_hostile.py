"""As a new user would meet it: lines that break, programs and servers that die, full disks."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from repoman.client.part_names import part_of
from tests.cli.conftest import ROOT
from tests.cli.relay import Relay
from tests.server import Daemon, Person

SIZE = 32 * 2**20
CONTENT = random.Random(7).randbytes(SIZE)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SLOW = 25 * 2**20
"""A line on which the file takes a while."""


@frozen
class Desk:
    """Somebody's place, with a line to the server."""

    place: Path
    person: Person
    line: Relay

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "repoman.cli", "-H", f"localhost:{self.line.port}", *words]

    @property
    def environ(self) -> dict[str, str]:
        return {
            "PATH": os.defpath, "PYTHONPATH": str(ROOT), "HOME": str(self.place),
            "X509_USER_PROXY": str(self.person.proxy),
            "X509_CERT_DIR": str(self.person.daemon.ca_directory),
        }  # fmt: skip

    def start(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*words), cwd=self.place, env=self.environ,
            **{"text": True, "stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE,
               "stderr": subprocess.PIPE, **options},
        )  # fmt: skip

    def run(self, *words: str, **options: Any) -> tuple[int, str, str]:
        return self.end(self.start(*words, **options))

    def end(self, running: subprocess.Popen[str]) -> tuple[int, str, str]:
        out, err = running.communicate(timeout=90)
        assert "Traceback" not in (err or "")
        assert running.returncode == 0 or "[OK]" not in (out or "")
        return running.returncode, out, err

    def stored(self, name: str = "vm") -> str | None:
        value = self.person.ask("GET", f"/api/images/{name}").json["checksum"]["value"]
        return None if value is None else str(value)

    def pending(self) -> int:
        return len(self.person.ask("GET", "/api/uploads").json)


@pytest.fixture
def desk(daemon: Daemon, tmp_path: Path) -> Iterator[Desk]:
    (tmp_path / "disk").write_bytes(CONTENT)
    person = daemon.newcomer()
    person.ask("POST", "/api/images", form={"name": "vm"})
    with Relay(daemon.https) as line:
        yield Desk(tmp_path, person, line)


def interrupted(desk: Desk, number: int, at: int = SIZE // 2) -> None:
    """Put, on a slow line, and send a signal in the middle."""
    desk.line.rate, before = SLOW, desk.line.upwards
    running = desk.start("put", "disk", "vm", "-f")
    desk.line.wait_for(upwards=before + at)
    running.send_signal(number)
    code, _, err = desk.end(running)
    assert code == (-9 if number == signal.SIGKILL else 130), err
    desk.line.rate = 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_put_goes_on_in_the_next_run(desk: Desk, number: int) -> None:
    interrupted(desk, number)
    assert desk.stored() is None
    before = desk.line.upwards
    code, out, err = desk.run("put", "disk", "vm")
    assert (code, err) == (0, f"Into the account of {desk.person.name}.\n")
    assert "[OK]     disk uploaded" in out
    assert desk.stored() == SHA256
    assert desk.line.upwards - before < SIZE * 3 // 4
    assert desk.pending() == 0
    assert list((desk.place / ".local/state/repoman/uploads").iterdir()) == []


def test_it_goes_on_with_a_renewed_proxy(desk: Desk) -> None:
    interrupted(desk, signal.SIGKILL)
    before = desk.line.upwards
    assert desk.person.credential is not None
    assert desk.person.proxy is not None
    desk.person.credential.proxy().write(desk.person.proxy)
    desk.person.hang_up()
    assert desk.run("put", "disk", "vm")[0] == 0
    assert desk.stored() == SHA256
    assert desk.line.upwards - before < SIZE * 3 // 4


def test_a_file_that_was_written_to_is_sent_anew(desk: Desk) -> None:
    interrupted(desk, signal.SIGKILL)
    with (desk.place / "disk").open("r+b") as file:
        file.write(b"changed")
    assert desk.run("put", "disk", "vm")[0] == 0
    assert desk.stored() == hashlib.sha256(b"changed" + CONTENT[7:]).hexdigest()
    assert desk.pending() == 0


def test_bytes_that_are_not_what_was_sent_before_are_found_out(desk: Desk) -> None:
    interrupted(desk, signal.SIGKILL)
    path = desk.place / "disk"
    state = path.stat()
    with path.open("r+b") as file:
        file.write(b"changed")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))  # and nobody can tell
    assert desk.run("put", "disk", "vm")[0] == 0
    assert desk.stored() == hashlib.sha256(b"changed" + CONTENT[7:]).hexdigest()


def test_the_old_file_is_served_until_the_new_one_is_whole(desk: Desk) -> None:
    (desk.place / "old").write_bytes(b"old")
    assert desk.run("put", "old", "vm")[0] == 0
    interrupted(desk, signal.SIGKILL)
    assert desk.stored() == hashlib.sha256(b"old").hexdigest()
    assert desk.run("put", "disk", "vm")[0] == 6
    assert desk.run("put", "disk", "vm", "-f")[0] == 0
    assert desk.stored() == SHA256


def test_two_puts_of_one_image_do_not_meet(desk: Desk) -> None:
    desk.line.rate = SLOW
    running = desk.start("put", "disk", "vm")
    desk.line.wait_for(upwards=SIZE // 4)
    desk.line.rate = SLOW // 10  # it is not to end before the other one has begun
    code, _, err = desk.run("put", "disk", "vm")
    assert code == 6
    assert "Another upload" in err
    desk.line.rate = 0
    assert desk.end(running)[0] == 0
    assert desk.stored() == SHA256


@pytest.mark.parametrize("file", ["disk", "-"])
def test_a_put_survives_a_line_that_breaks_again_and_again(desk: Desk, file: str) -> None:
    desk.line.rate = SLOW
    with (desk.place / "pipe").open("wb"):
        pipe = subprocess.Popen(["cat", desk.place / "disk"], stdout=subprocess.PIPE)
    running = desk.start("put", file, "vm", stdin=pipe.stdout)
    for cut in range(1, 4):
        desk.line.wait_for(upwards=cut * SIZE // 5)
        desk.line.cut()
    desk.line.rate = 0
    code, out, err = desk.end(running)
    pipe.kill()
    pipe.wait()
    assert (code, "[OK]" in out, "Trying again" in err) == (0, True, True), err
    assert desk.stored() == SHA256
    assert desk.line.upwards < 2 * SIZE


def test_put_and_get_outlive_the_servers_sudden_death(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(CONTENT)
    (tmp_path / "daemon").mkdir()
    with Daemon(tmp_path / "daemon").running() as daemon, Relay(daemon.https, SLOW) as line:
        desk = Desk(tmp_path, daemon.newcomer(), line)
        desk.person.ask("POST", "/api/images", form={"name": "vm"})
        running = desk.start("put", "disk", "vm")
        line.wait_for(upwards=SIZE // 2)
        daemon.stop(signal.SIGKILL)
        time.sleep(0.5)
        daemon.start()
        code, _, err = desk.end(running)
        assert (code, "Trying again" in err) == (0, True), err
        assert desk.stored() == SHA256
        running = desk.start("get", "vm", "-j", "3", "-d", "copy")
        line.wait_for(downwards=line.downwards + SIZE // 2)
        daemon.stop(signal.SIGKILL)
        daemon.start()
        code, _, err = desk.end(running)
        assert (code, "Trying again" in err) == (0, True), err
        assert (tmp_path / "copy").read_bytes() == CONTENT


@pytest.mark.parametrize("streams", ["1", "4"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_get_goes_on_in_the_next_run(desk: Desk, number: int, streams: str) -> None:
    desk.run("put", "disk", "vm")
    desk.line.rate, before = SLOW // int(streams), desk.line.downwards
    running = desk.start("get", "vm", "-j", streams, "-d", "copy")
    # Past the first range of each connection, whose bytes are kept only when it is whole.
    desk.line.wait_for(downwards=before + SIZE * 3 // 4)
    running.send_signal(number)
    desk.end(running)
    path = part_of(desk.place / "copy", SHA256)
    part = path.read_bytes()
    assert len(part) > SIZE // 10
    assert part == CONTENT[: len(part)]
    assert not (desk.place / "copy").exists()
    desk.line.rate, before = 0, desk.line.downwards
    assert desk.run("get", "vm", "-j", streams, "-d", "copy")[0] == 0
    assert (desk.place / "copy").read_bytes() == CONTENT
    assert not path.exists()
    assert desk.line.downwards - before < SIZE - len(part) // 2


def test_a_get_into_a_pipe_survives_a_broken_line(desk: Desk) -> None:
    desk.run("put", "disk", "vm")
    desk.line.rate, before = SLOW, desk.line.downwards
    with (desk.place / "copy").open("wb") as copy:
        cat = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=copy)
        running = desk.start("get", "vm", "-d", "-", stdout=cat.stdin)
        for cut in range(1, 3):
            desk.line.wait_for(downwards=before + cut * SIZE // 4)
            desk.line.cut()
        assert desk.end(running)[0] == 0
        cat.communicate()
    assert (desk.place / "copy").read_bytes() == CONTENT


def test_a_slow_reader_costs_no_memory_and_loses_nothing(desk: Desk) -> None:
    desk.run("put", "disk", "vm")
    running = desk.start("get", "vm", "-d", "-", text=False)
    assert running.stdout is not None
    time.sleep(1.5)
    status = Path(f"/proc/{running.pid}/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0])
    assert running.stdout.read() == CONTENT
    assert running.wait() == 0
    assert peak < 150_000


def test_a_device_or_a_pipe_is_written_to_and_never_replaced(desk: Desk) -> None:
    """As root, ``-d /dev/null`` would otherwise cost the system its /dev/null."""
    desk.run("put", "disk", "vm")
    pipe = desk.place / "pipe"
    os.mkfifo(pipe)
    code, _, err = desk.run("get", "vm", "-d", "pipe")
    assert (code, "Traceback" in err) == (1, False), "nobody reads there"
    with (desk.place / "copy").open("wb") as copy:
        cat = subprocess.Popen(["cat", pipe], stdout=copy)
        time.sleep(0.3)
        assert desk.run("get", "vm", "-d", "pipe")[0] == 0
        assert cat.wait(20) == 0
    assert (desk.place / "copy").read_bytes() == CONTENT
    assert pipe.is_fifo()
    if os.geteuid() == 0:
        for name, expected in (("null", 0), ("full", 1)):
            device = desk.place / name
            os.mknod(device, 0o666 | stat.S_IFCHR, os.stat(f"/dev/{name}").st_rdev)
            code, out, _ = desk.run("get", "vm", "-d", name)
            assert (code, "[OK]" in out) == (expected, False)
            assert device.is_char_device()


@pytest.mark.parametrize(
    ("words", "stream"), [("put -f - vm", "<&-"), ("get vm -d -", ">&-")], ids=["in", "out"]
)
def test_a_closed_standard_stream_is_no_empty_one(desk: Desk, words: str, stream: str) -> None:
    desk.run("put", "disk", "vm")
    command = f'exec "$@" {stream}'
    done = subprocess.run(
        ["sh", "-c", command, "sh", *desk.command(*words.split())],
        cwd=desk.place, env=desk.environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, "is closed" in done.stderr) == (2, True), done.stderr
    assert desk.stored() == SHA256


def test_a_part_that_somebody_else_laid_there_is_not_taken_up(desk: Desk) -> None:
    desk.run("put", "disk", "vm")
    (desk.place / "mine").write_bytes(b"mine")
    part = part_of(desk.place / "copy", SHA256)
    os.link(desk.place / "mine", part)
    code, _, err = desk.run("get", "vm", "-d", "copy")
    assert (code, part.name in err) == (1, True), err
    assert (desk.place / "mine").read_bytes() == b"mine"


@pytest.mark.parametrize("name", [".", "..", "bob/"])
def test_what_names_no_image_is_a_usage_error(desk: Desk, name: str) -> None:
    code, _, err = desk.run("get", name)
    assert (code, "Traceback" in err) == (2, False), err


def test_a_full_disk_is_told_and_leaves_no_file(desk: Desk) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    desk.run("put", "disk", "vm")
    small = desk.place / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", small], check=True)
    try:
        before = desk.line.downwards
        code, _, err = desk.run("get", "vm", "-d", "small/copy")
        assert (code, os.listdir(small)) == (1, [])
        assert f"small/copy takes {SIZE} bytes, and there is room for {8 * 2**20}: make" in err
        assert desk.line.downwards - before < SIZE // 10, "refused at once"
        subprocess.run(["mount", "-o", "remount,size=40m", small], check=True)
        desk.line.rate, before = SLOW, desk.line.downwards
        running = desk.start("get", "vm", "-d", "small/copy")
        desk.line.wait_for(downwards=before + SIZE // 4)
        (small / "other").write_bytes(bytes(20 * 2**20))
        code, _, err = desk.end(running)
        assert code == 1
        assert "There is no more room for small/copy: make some" in err
        desk.line.rate = 0
        assert {*os.listdir(small)} == {"other", part_of(small / "copy", SHA256).name}
        subprocess.run(["mount", "-o", "remount,size=200m", small], check=True)
        assert desk.run("get", "vm", "-d", "small/copy")[0] == 0
        assert (small / "copy").read_bytes() == CONTENT
    finally:
        subprocess.run(["umount", small], check=True)


def test_an_upload_that_cannot_be_remembered_works_all_the_same(desk: Desk) -> None:
    (desk.place / ".local").touch()
    code, _, err = desk.run("put", "disk", "vm")
    assert (code, err) == (0, f"Into the account of {desk.person.name}.\n")
    assert desk.stored() == SHA256


def test_a_refusal_is_known_before_the_first_byte(desk: Desk) -> None:
    desk.person.ask("POST", "/api/images/vm", form={"read_only": "true"})
    before = desk.line.upwards
    code, _, err = desk.run("put", "disk", "vm")
    assert code == 5, err
    assert desk.line.upwards - before < 100_000
