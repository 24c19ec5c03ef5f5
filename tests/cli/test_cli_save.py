"""``repoman save`` for real: a root tree on a loop device, saved, fetched, mounted, compared."""

from __future__ import annotations

import fcntl
import gzip
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import field, frozen

from repoman.cli.snapshot.plan import sizes_at_peak
from tests.cli.conftest import ROOT
from tests.cli.relay import Relay
from tests.server import Daemon, Person

MEBIBYTE = 2**20


def sh(*words: object) -> str:
    """Run a program that must succeed."""
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True)
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


@frozen
class Machine:
    """A system with its disk, and somebody who saves it.

    :ivar more: of the environment.
    """

    place: Path
    person: Person
    more: dict[str, str] = field(factory=dict)

    @property
    def root(self) -> Path:
        return self.place / "root"

    @property
    def snapshots(self) -> Path:
        return self.place / "snapshots"

    def command(self, *words: str) -> list[str]:
        host = f"localhost:{self.person.daemon.https}"
        return [sys.executable, "-m", "repoman.cli", "-H", host, *words]

    @property
    def environ(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(self.place),
            "X509_USER_PROXY": str(self.person.proxy),
            "X509_CERT_DIR": str(self.person.daemon.ca_directory),
            "REPOMAN_CLIENT_CONFIG": str(self.place / "conf"),
            **self.more,
        }  # fmt: skip

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words), cwd=self.place, env=self.environ,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    def saves(self, *words: str) -> str:
        done = self.run("save", *words, "--root", str(self.root))
        assert done.returncode == 0, done
        assert not os.path.ismount(self.snapshots / "mnt")
        return done.stdout

    def refuses(self, code: int, *words: str) -> str:
        done = self.run("save", *words, "--root", str(self.root))
        assert (done.returncode, "[OK]" in done.stdout) == (code, False), done
        assert "Traceback" not in done.stderr
        return done.stderr

    def fetch(self, name: str) -> Path:
        assert self.run("get", name, "-d", "fetched").returncode == 0
        return self.place / "fetched"


def fill(root: Path) -> None:
    """A small system with all that is hard to copy."""
    for name in ("bin", "dev", "etc", "proc", "tmp", "home/roger", "var/log", "mnt"):
        (root / name).mkdir(parents=True)
    (root / "bin/sh").write_bytes(os.urandom(300_000))
    (root / "bin/sh").chmod(0o4755)
    os.link(root / "bin/sh", root / "bin/dash")
    (root / "bin/tool").symlink_to("../bin/sh")
    (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
    (root / "etc/shadow").write_text("secret")
    (root / "etc/shadow").chmod(0)
    (root / "home/roger/a b\n*?[x]é").write_text("strange name")
    os.chown(root / "home/roger", 1234, 5678)
    os.setxattr(root / "etc/passwd", "user.comment", b"kept")
    with (root / "var/log/lastlog").open("wb") as file:
        file.truncate(1 << 28)  # far larger than the disk
    os.mkfifo(root / "var/pipe")
    os.mknod(root / "dev/null", 0o20666, os.makedev(1, 3))
    os.mknod(root / "dev/sda", 0o60660, os.makedev(8, 0))
    (root / "tmp/x509up_u0").write_text("a proxy")
    (root / "proc/cpuinfo").write_text("of another machine")
    (root / "big").write_bytes(os.urandom(6 * MEBIBYTE))


@pytest.fixture
def machine(daemon: Daemon, tmp_path: Path) -> Iterator[Machine]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    for tool in ("rsync", "mkfs.ext4", "losetup"):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed")
    disk, root = tmp_path / "disk", tmp_path / "root"
    with disk.open("wb") as file:
        file.truncate(64 * MEBIBYTE)
    sh("mkfs.ext4", "-q", "-F", "-L", "slash", disk)
    root.mkdir()
    mounted = subprocess.run(["mount", "-o", "loop", disk, root], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no loop devices here: {mounted.stderr}")
    try:
        fill(root)
        snapshots = tmp_path / "snapshots"
        (tmp_path / "conf").write_text(
            f"[ThisImage]\nsnapshot_dir: {snapshots}\nlockfile: {snapshots}/lock\n"
            f"snapshot: {snapshots}/snapshot.img\nmountpoint: {snapshots}/mnt\n"
            "user_excludes: /home/*/cache\n"
        )
        yield Machine(tmp_path, daemon.newcomer())
    finally:
        for point in (tmp_path / "snapshots/mnt", root):
            if os.path.ismount(point):
                sh("umount", point)


def differences(machine: Machine, image: Path) -> list[str]:
    """How the mounted image differs from the system, down to every byte and attribute."""
    point = machine.place / "look"
    point.mkdir(exist_ok=True)
    sh("mount", "-o", "loop,ro", image, point)
    try:
        return sh(
            "rsync", "-aHAXnci", "--numeric-ids", "--delete", f"{machine.root}/", f"{point}/"
        ).splitlines()
    finally:
        sh("umount", point)


LEFT_OUT = {
    ">f+++++++++ tmp/x509up_u0", ">f+++++++++ proc/cpuinfo", "cD+++++++++ dev/sda",
    "*deleting   .image.metadata",
}  # fmt: skip


def content(lines: list[str]) -> set[str]:
    """Without the times of directories that we wrote to."""
    return {line for line in lines if not line.startswith(".d..t......")}


def test_the_saved_image_is_the_system(machine: Machine) -> None:
    out = machine.saves("vm", "--comment", "ours")
    assert f"[OK]     {machine.snapshots}/snapshot.img uploaded to image 'vm'" in out
    image = machine.fetch("vm")
    assert image.stat().st_size == (machine.place / "disk").stat().st_size
    assert content(differences(machine, image)) == LEFT_OUT
    assert sh("blkid", "-s", "LABEL", "-o", "value", image) == "slash\n"
    assert image.stat().st_blocks * 512 < 40 * MEBIBYTE
    inside = sh("debugfs", "-R", "cat /.image.metadata", image)
    assert "name: vm\n" in inside
    assert "description: ours\n" in inside


def test_a_second_save_moves_only_what_has_changed(machine: Machine) -> None:
    machine.saves("vm", "--resize", "48")

    def inode(path: str) -> str:
        return sh("debugfs", "-R", f"stat {path}", machine.snapshots / "snapshot.img").split()[1]

    before, other = inode("/big"), inode("/etc/passwd")
    (machine.root / "etc/passwd").write_text("root:x:0:0::/:/bin/dash\n")
    (machine.root / "bin/tool").unlink()
    assert "--force" in machine.refuses(6, "vm", "--resize", "48")
    assert "Reusing the snapshot" in machine.saves("vm", "--resize", "48", "-f")
    assert inode("/big") == before
    assert inode("/etc/passwd") != other
    assert content(differences(machine, machine.fetch("vm"))) == LEFT_OUT
    assert "Making an image" in machine.saves("vm", "--resize", "48", "-f", "--clean")


def test_a_compressed_image_unpacks_to_the_system(machine: Machine) -> None:
    machine.saves("vm.gz", "--gzip", "--resize", "40")
    with gzip.open(machine.fetch("vm.gz")) as packed, (machine.place / "img").open("wb") as file:
        shutil.copyfileobj(packed, file)
    assert content(differences(machine, machine.place / "img")) == LEFT_OUT
    assert sorted(os.listdir(machine.snapshots)) == ["lock", "mnt", "snapshot.img"]


def test_a_save_destroys_no_file_beside_the_image(machine: Machine) -> None:
    machine.snapshots.mkdir(mode=0o700)
    names = [f"snapshot.img{end}" for end in (".part", ".gz", ".gz.part", ".new", "@", "~")]
    for name in names:
        (machine.snapshots / name).write_text("of root")
    machine.saves("vm.gz", "--gzip", "--resize", "40")
    assert {(machine.snapshots / name).read_text() for name in names} == {"of root"}
    with gzip.open(machine.fetch("vm.gz")) as packed:
        assert len(packed.read()) == 40 * MEBIBYTE
    left = {*os.listdir(machine.snapshots)} - {*names}
    assert left == {"lock", "mnt", "snapshot.img"}


def test_two_saves_of_one_image_do_not_meet_whatever_their_lock_files_are(
    machine: Machine,
) -> None:
    machine.snapshots.mkdir(mode=0o700)
    held = os.open(machine.snapshots, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        assert "Another save is running" in machine.refuses(6, "vm")
    finally:
        os.close(held)


def test_several_hypervisors_get_a_file_each(machine: Machine) -> None:
    out = machine.saves("vm", "--hypervisor", "kvm,xen", "--resize", "40")
    assert "hypervisor kvm\n" in out
    assert "hypervisor xen\n" in out
    found = machine.person.ask("GET", "/api/images/vm?view=full").json["files"]
    assert found["kvm"]["checksum"] == found["xen"]["checksum"]


def test_what_cannot_succeed_is_refused_before_anything_is_touched(machine: Machine) -> None:
    assert "--resize" in machine.refuses(1, "vm", "--resize", "5")
    machine.snapshots.chmod(0o777)
    assert "others may write" in machine.refuses(6, "vm")
    machine.snapshots.chmod(0o700)
    with (machine.snapshots / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "Another save is running" in machine.refuses(6, "vm")
    (machine.snapshots / "mnt").mkdir()
    sh("mount", "-t", "tmpfs", "none", machine.snapshots / "mnt")
    assert "umount" in machine.refuses(6, "vm")
    sh("umount", machine.snapshots / "mnt")
    assert machine.person.ask("GET", "/api/images/vm").status == 404
    assert sorted(os.listdir(machine.snapshots)) == ["lock", "mnt"]


def limit(machine: Machine, quota: int, user: str = "") -> None:
    """Give a user, or who saves, a quota in bytes."""
    path = f"/api/users/{user or machine.person.name}"
    given = machine.person.daemon.admin.ask("POST", path, form={"quota": quota})
    assert given.status == 200, given


@pytest.mark.parametrize(
    ("quota", "words", "said"),
    [
        (30 * MEBIBYTE, (), ("--resize", "--gzip", "64.0 MiB")),
        (1 << 40, ("--resize", "70000"), ("--resize", "--gzip", "68.4 GiB")),
        (100 * MEBIBYTE, ("--hypervisor", "kvm,xen,qemu", "--resize", "40"), ("each of kvm",)),
        (30_000, ("--gzip",), ("--resize",)),
        (0, ("--gzip", "--resize", "16"), ("--resize",)),
    ],
    ids=["quota", "limit", "hypervisors", "hopeless even compressed", "no room at all"],
)
def test_what_the_server_will_not_take_is_refused_before_the_work(
    machine: Machine, quota: int, words: tuple[str, ...], said: tuple[str, ...]
) -> None:
    limit(machine, quota)
    err = machine.refuses(1, "vm", *words)
    assert all(word in err for word in said), err
    assert ("--gzip" in err) == ("--gzip" not in words)
    assert sorted(os.listdir(machine.snapshots)) == ["lock"]
    assert machine.person.ask("GET", "/api/images/vm").status == 404
    assert machine.person.ask("GET", "/api/uploads").json == []


def test_the_quota_of_whose_image_it_is_counts_and_a_refusal_changes_nothing(
    machine: Machine,
) -> None:
    daemon = machine.person.daemon
    owner, admin = machine.person, Machine(machine.place, daemon.admin)
    assert owner.ask("POST", "/api/images", form={"name": "theirs"}).status == 201
    before = owner.ask("GET", "/api/images/theirs").json
    limit(machine, 30 * MEBIBYTE)
    for name in ("theirs", "new"):
        err = admin.refuses(1, f"{owner.name}/{name}", "-d", "changed")
        assert f"quota of user {owner.name}" in err
    assert owner.ask("GET", "/api/images/theirs").json == before
    assert owner.ask("GET", "/api/images/new").status == 404
    owner.ask("POST", "/api/images/theirs", form={"read_only": "true"})
    assert "read-only" in admin.refuses(5, f"{owner.name}/theirs")
    assert not (machine.snapshots / "snapshot.img").exists()


def test_what_a_file_replaces_is_room_for_the_next(machine: Machine) -> None:
    machine.saves("vm", "--hypervisor", "kvm,xen", "--resize", "40")
    limit(machine, 121 * MEBIBYTE)  # 80 are taken
    machine.saves("vm", "--resize", "40", "-f")
    limit(machine, 119 * MEBIBYTE)
    assert "quota" in machine.refuses(1, "vm", "--resize", "40", "-f")


def test_a_compressed_image_that_turns_out_too_large_leaves_the_snapshot_and_no_record(
    machine: Machine,
) -> None:
    limit(machine, 3 * MEBIBYTE)
    err = machine.refuses(1, "vm", "--gzip")
    assert "--resize" in err
    assert f"{machine.snapshots}/snapshot.img is kept: the same command goes on" in err
    assert sorted(os.listdir(machine.snapshots)) == ["lock", "mnt", "snapshot.img"]
    assert machine.person.ask("GET", "/api/images/vm").status == 404
    limit(machine, 30 * MEBIBYTE)
    assert "Reusing the snapshot" in machine.saves("vm", "--gzip")


def test_a_second_save_keeps_the_size_of_the_first(machine: Machine) -> None:
    image = machine.snapshots / "snapshot.img"
    machine.saves("vm", "--resize", "16")
    out = machine.saves("vm", "-f")
    assert "Keeping the size of the earlier snapshot, 16.0 MiB" in out
    assert "Reusing the snapshot" in out
    assert image.stat().st_size == 16 * MEBIBYTE
    (machine.root / "more").write_bytes(os.urandom(10 * MEBIBYTE))
    err = machine.refuses(1, "vm", "-f")
    assert "the size of the earlier snapshot: say --resize" in err
    machine.saves("vm", "-f", "--clean")
    assert image.stat().st_size == 64 * MEBIBYTE


@pytest.mark.parametrize(
    ("size", "replaced", "expected"),
    [
        (4, [0], [4]),
        (4, [4], [4]),
        (4, [9], [4]),
        (4, [0, 0, 0], [4, 4, 4]),
        (4, [4, 4], [4]),
        (4, [1, 1], [4, 3]),
        (4, [9, 0], [4]),
        (4, [0, 9], [4, 4]),
    ],
)
def test_room_is_asked_for_as_much_as_there_must_be_at_once(
    size: int, replaced: list[int], expected: list[int]
) -> None:
    assert sizes_at_peak(size, replaced) == expected


def test_a_system_in_memory_that_does_not_say_how_large_it_is(machine: Machine) -> None:
    memory = machine.place / "memory"
    memory.mkdir()
    sh("mount", "-t", "ramfs", "none", memory)
    try:
        (memory / "vmlinuz").write_text("a kernel")
        done = machine.run("save", "diskless", "--root", str(memory))
        assert (done.returncode, "say --resize" in done.stderr) == (2, True), done
        done = machine.run("save", "diskless", "--root", str(memory), "--resize", "16")
        assert done.returncode == 0, done
    finally:
        sh("umount", memory)
    assert sh("debugfs", "-R", "cat /vmlinuz", machine.fetch("diskless")) == "a kernel"


def test_only_root_saves(machine: Machine) -> None:
    done = subprocess.run(
        ["unshare", "--user", *machine.command("save", "vm")], env=machine.environ,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 5, done
    assert "sudo" in done.stderr


def catches(pid: int, number: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(status.partition("SigCgt:")[2].split()[0], 16) >> (number - 1) & 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("seconds", [0.1, 0.6])
def test_interrupted_at_any_moment_it_leaves_nothing_mounted_and_can_be_run_again(
    machine: Machine, number: int, seconds: float
) -> None:
    for count in range(2000):
        (machine.root / f"home/roger/{count}").write_text(str(count))
    running = subprocess.Popen(
        machine.command("save", "vm", "--root", str(machine.root)), env=machine.environ,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    # Python catches SIGINT itself on its way up; our program begins with SIGTERM.
    while not (catches(running.pid, number) and catches(running.pid, signal.SIGTERM)):
        assert running.poll() is None
        time.sleep(0.01)
    time.sleep(seconds)
    running.send_signal(number)
    out, err = running.communicate(timeout=30)
    # A signal may come when all is done, and even when Python has put its things away.
    if "[OK]" not in out:
        assert (running.returncode, err.strip()[-12:]) == (130, "Interrupted."), (out, err)
        if "Uploading" not in out:
            assert machine.person.ask("GET", "/api/images/vm").status == 404
    assert str(machine.snapshots) not in Path("/proc/mounts").read_text()
    machine.saves("vm", "-f")
    assert content(differences(machine, machine.fetch("vm"))) == LEFT_OUT


def test_interrupted_in_the_midst_of_the_snapshot_it_leaves_no_record(machine: Machine) -> None:
    for count in range(3000):
        (machine.root / f"home/roger/{count}").write_text(str(count))
    running = subprocess.Popen(
        machine.command("save", "vm", "--root", str(machine.root)), env=machine.environ,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not os.path.ismount(machine.snapshots / "mnt"):
        assert running.poll() is None
        time.sleep(0.002)
    assert machine.person.ask("GET", "/api/images/vm").status == 200
    running.terminate()
    _, err = running.communicate(timeout=30)
    assert (running.returncode, "is kept" in err) == (130, False), err
    assert machine.person.ask("GET", "/api/images/vm").status == 404


def test_interrupted_in_the_midst_of_the_upload_it_keeps_what_there_is(machine: Machine) -> None:
    with Relay(machine.person.daemon.https, rate=4 * MEBIBYTE) as relay:
        command = machine.command("save", "vm", "--root", str(machine.root))
        command[command.index("-H") + 1] = f"localhost:{relay.port}"
        running = subprocess.Popen(
            command, env=machine.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        relay.wait_for(upwards=2 * MEBIBYTE)
        running.terminate()
        _, err = running.communicate(timeout=30)
        assert running.returncode == 130
        assert f"{machine.snapshots}/snapshot.img is kept: the same command goes on from it" in err
        assert machine.person.ask("GET", "/api/images/vm").status == 200
        (upload,) = machine.person.ask("GET", "/api/uploads").json
        assert upload["length"] == 64 * MEBIBYTE
        limit(machine, 70 * MEBIBYTE)  # what that one has reserved is for the next
        relay.rate = 0
        again = subprocess.run(command, env=machine.environ, capture_output=True, text=True)
        assert again.returncode == 0, again.stderr
        assert "Reusing the snapshot" in again.stdout
    assert machine.person.ask("GET", "/api/uploads").json == []


def test_killed_it_says_what_is_left_to_do(machine: Machine) -> None:
    for count in range(3000):
        (machine.root / f"home/roger/{count}").write_text(str(count))
    running = subprocess.Popen(
        machine.command("save", "vm", "--root", str(machine.root)), env=machine.environ,
        stdout=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    while not os.path.ismount(machine.snapshots / "mnt"):
        assert running.poll() is None
        time.sleep(0.002)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    time.sleep(0.3)
    err = machine.refuses(6, "vm")
    assert f"umount {machine.snapshots}/mnt" in err
    sh("umount", machine.snapshots / "mnt")
    machine.saves("vm", "-f")
    assert content(differences(machine, machine.fetch("vm"))) == LEFT_OUT


@pytest.mark.parametrize("kind", ["link", "hard link", "directory"])
def test_what_the_image_is_stands_in_the_image_and_nowhere_else(
    machine: Machine, kind: str
) -> None:
    victim, laid = machine.place / "victim", machine.root / ".image.metadata"
    victim.write_text("the host's\n")
    if kind == "link":
        laid.symlink_to(victim)
    elif kind == "hard link":
        os.link(machine.root / "etc/passwd", laid)
    else:
        laid.mkdir()
        (laid / "x").touch()
    machine.saves("vm", "--resize", "40")
    assert victim.read_text() == "the host's\n"
    image = machine.snapshots / "snapshot.img"
    assert "name: vm\n" in sh("debugfs", "-R", "cat /.image.metadata", image)
    assert "/bin/sh" in sh("debugfs", "-R", "cat /etc/passwd", image)


def test_under_sudo_a_new_place_of_the_callers_choice_serves_again_and_again(
    machine: Machine,
) -> None:
    conf = machine.place / "conf"
    conf.write_text(f"[ThisImage]\nsnapshot_dir: {machine.snapshots}\nsnapshot: mine.img\n")
    os.chown(conf, 43210, 43210)
    machine.more["SUDO_UID"] = "43210"
    machine.saves("vm", "--resize", "40")
    machine.snapshots.chmod(0o755)
    assert "Reusing the snapshot" in machine.saves("vm", "--resize", "40", "-f")
    # Nobody else reads what root has read.
    files = [path for path in machine.snapshots.rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o077 for path in files} == {0}
