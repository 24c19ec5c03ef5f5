"""Under systemd: told when it serves, reloaded by SIGHUP, restarted without a connection lost."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.server import ROOT, Answer, Daemon, free_ports

SHARE = ROOT / "share"


def soon(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


class Told:
    """A socket on which a daemon says how it is."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(20)
        self.lines: list[str] = []

    def fill(self) -> None:
        """Leave no room for another message, as other services do."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as other:
            other.connect(self._socket.getsockname())
            with suppress(BlockingIOError):
                while True:
                    other.send(b"STATUS=of another service")

    def wait_for(self, line: str) -> None:
        end = time.monotonic() + 60
        while line not in self.lines:
            assert time.monotonic() < end, self.lines
            self.lines += self._socket.recv(4096).decode().splitlines()
        self.lines = self.lines[self.lines.index(line) + 1 :]


def test_systemd_hears_of_start_life_reload_and_stop(tmp_path: Path) -> None:
    told = Told(tmp_path / "notify")
    daemon = Daemon(tmp_path)
    daemon.environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "300000"}
    with daemon.running():
        assert daemon.process is not None
        told.wait_for("READY=1")
        told.wait_for("WATCHDOG=1")
        told.wait_for("WATCHDOG=1")
        daemon.process.send_signal(signal.SIGHUP)
        told.wait_for("RELOADING=1")
        told.wait_for("READY=1")
        daemon.process.send_signal(signal.SIGTERM)
        told.wait_for("STOPPING=1")


def test_systemd_hears_of_start_and_reload_though_its_socket_was_full(tmp_path: Path) -> None:
    told = Told(tmp_path / "notify")
    told.fill()
    daemon = Daemon(tmp_path)
    daemon.environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "300000"}
    with daemon.running():
        told.wait_for("READY=1")
        told.wait_for("WATCHDOG=1")
        told.fill()
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGHUP)
        soon(lambda: "looked at again" in daemon.log.read_text())
        told.wait_for("RELOADING=1")
        told.wait_for("READY=1")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with Daemon(tmp_path, limits={"max_upload": "1KiB"}).running() as daemon:
        yield daemon


def reload(daemon: Daemon, **changes: tuple[str, str]) -> str:
    """Change the configuration's text and reload; answer what the log says of it."""
    text = daemon.config.read_text()
    for old, new in changes.values():
        assert old in text
        text = text.replace(old, new)
    daemon.config.write_text(text)
    before = len(daemon.log.read_text())
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)
    soon(lambda: "looked at again" in daemon.log.read_text()[before:])
    return daemon.log.read_text()[before:]


def put(daemon: Daemon, size: int) -> int:
    return daemon.admin.ask("PUT", "/api/images/raw/one", body=b"x" * size).status


def test_limits_change_without_a_restart(daemon: Daemon) -> None:
    daemon.admin.ask("POST", "/api/images", form={"name": "one"})
    assert put(daemon, 2000) == 413
    reload(daemon, limit=("max_upload = 1KiB", "max_upload = 1MiB\nquota = 3000"))
    assert put(daemon, 2000) == 200
    assert put(daemon, 4000) == 413
    reload(daemon, limit=("quota = 3000", "disk_reserve = 99%"))
    assert put(daemon, 4000) == 507


def test_a_configuration_with_mistakes_changes_nothing_and_is_told(daemon: Daemon) -> None:
    daemon.admin.ask("POST", "/api/images", form={"name": "one"})
    said = reload(daemon, limit=("max_upload = 1KiB", "max_upload = big"))
    assert "reload configuration:" in said
    assert "[limits] max_upload: 'big' is not a size" in said
    assert (put(daemon, 1000), put(daemon, 2000)) == (200, 413)


def test_what_needs_a_restart_is_said(daemon: Daemon) -> None:
    said = reload(daemon, crl=("[tls]\n", "[tls]\ncrl = off\n"))
    assert "[tls] crl has changed: that needs a restart" in said


def test_the_access_log_is_opened_anew_where_the_configuration_says(daemon: Daemon) -> None:
    log = daemon.directory / "state" / "log" / "access.log"
    log.rename(log.with_suffix(".1"))
    reload(daemon)
    daemon.admin.ask("GET", "/api/whoami")
    soon(lambda: "/api/whoami" in log.read_text())
    text = daemon.config.read_text()
    daemon.config.write_text(f"{text}\n[log]\naccess = other.log\nformat = json\n")
    reload(daemon)
    daemon.admin.ask("GET", "/api/whoami")
    soon(lambda: '"path": "/api/whoami"' in (daemon.directory / "state/other.log").read_text())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as logrotate's own timer has")
def test_logrotate_loses_no_line_by_the_file_that_we_ship(daemon: Daemon, tmp_path: Path) -> None:
    if shutil.which("logrotate") is None:
        pytest.skip("needs logrotate")
    log = daemon.directory / "state" / "log" / "access.log"
    assert daemon.process is not None
    shipped = (SHARE / "logrotate.d/repoman").read_text()
    for ours, here in {
        "/var/lib/repoman/log/access.log": str(log),
        "repoman repoman": "root root",
        "systemctl kill --kill-whom=main --signal=HUP repoman.service": (
            f"kill -HUP {daemon.process.pid}"
        ),
    }.items():
        assert ours in shipped
        shipped = shipped.replace(ours, here)
    rules, old = tmp_path / "rotate", log.with_suffix(".log.1")
    rules.write_text(shipped)
    rules.chmod(0o644)
    asked = 0

    def ask() -> bool:
        nonlocal asked
        asked += 1
        return bool(daemon.admin.ask("GET", "/api/whoami?mine")) and "?mine" in log.read_text()

    soon(ask)
    command = ["logrotate", "--force", "--state", str(tmp_path / "state.rotate"), str(rules)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    soon(ask)
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert (old.read_text() + log.read_text()).count("?mine") == asked


def test_the_host_certificate_and_revocations_are_read_again(daemon: Daemon) -> None:
    victim = daemon.newcomer()
    assert victim.ask("GET", "/api/whoami").status == 200

    def shown() -> bytes | None:
        with daemon.nobody.tls.wrap_socket(
            socket.create_connection(("localhost", daemon.https)), server_hostname="localhost"
        ) as connection:
            return connection.getpeercert(binary_form=True)

    before = shown()
    daemon.grid.host()
    assert victim.credential is not None
    daemon.grid.revoke(victim.credential)
    reload(daemon)
    assert shown() != before
    assert victim.ask("GET", "/api/whoami").status == 403  # also on its old connection


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """The socket that a supervisor holds."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as held:
        held.setblocking(False)
        yield held


def activated(directory: Path, held: socket.socket) -> Daemon:
    """A daemon that is given its port as systemd gives it."""
    port = held.getsockname()[1]
    daemon = Daemon(
        directory,
        server={"https": "systemd:domain=INET:index=0", "url": f"https://localhost:{port}"},
    )
    daemon.https, daemon.url = port, f"https://localhost:{port}"
    script = (
        f'exec 3<&{held.fileno()}; export LISTEN_FDS=1 LISTEN_FDNAMES=x LISTEN_PID=$$; exec "$@"'
    )
    daemon.twistd = ["bash", "-c", script, "bash", *daemon.twistd]
    daemon.pass_fds = (held.fileno(),)
    return daemon


def test_connections_wait_while_the_daemon_is_started_again(
    tmp_path: Path, listening: socket.socket
) -> None:
    daemon = activated(tmp_path, listening)
    answers: list[Answer] = []
    with daemon.running():
        assert daemon.admin.ask("GET", "/api/whoami").status == 200
        daemon.stop()
        waiting = [
            threading.Thread(
                target=lambda: answers.append(daemon.stranger().ask("GET", "/api/whoami"))
            )
            for _ in range(5)
        ]
        for one in waiting:
            one.start()
        time.sleep(0.5)
        daemon.start()
        for one in waiting:
            one.join()
    assert [answer.status for answer in answers] == [403] * 5


@pytest.mark.skipif(not shutil.which("systemd-socket-activate"), reason="comes with systemd")
def test_it_takes_its_port_from_systemd(tmp_path: Path) -> None:
    [port] = free_ports(1)
    daemon = Daemon(
        tmp_path,
        server={"https": "systemd:domain=INET:index=0", "url": f"https://localhost:{port}"},
    )
    daemon.https, daemon.url = port, f"https://localhost:{port}"
    passed = [word for name in ("PYTHONPATH", "PATH", "TMPDIR") for word in ("-E", name)]
    daemon.twistd = [
        "systemd-socket-activate", f"--listen=127.0.0.1:{port}", "--fdname=x", *passed,
        *daemon.twistd,
    ]  # fmt: skip
    with daemon.running():
        assert daemon.admin.ask("GET", "/api/whoami").json["user_name"] == daemon.admin.name
        assert daemon.url in daemon.admin.ask("GET", "/api/users").text


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="comes with systemd")
def test_the_units_are_what_systemd_understands(tmp_path: Path) -> None:
    for unit in (SHARE / "systemd").iterdir():
        text = unit.read_text().replace("/opt/repoman/bin/", "/bin/").replace("twistd", "true")
        text = text.replace("repoman-server", "true").replace("=repoman\n", "=root\n")
        (tmp_path / unit.name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, tmp_path.iterdir())],
        capture_output=True, text=True, check=False,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
    )  # fmt: skip
    assert "repoman" not in done.stderr, done.stderr
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=30",
         str(tmp_path / "repoman.service")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert judged.returncode == 0, judged.stdout[-300:]


@pytest.mark.skipif(not shutil.which("systemd-sysusers"), reason="comes with systemd")
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_the_account_and_its_directory_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (tmp_path / "etc" / "group").write_text("root:x:0:\n")
    root = f"--root={tmp_path}"
    subprocess.run(["systemd-sysusers", root, SHARE / "sysusers.d" / "repoman.conf"], check=True)
    assert "repoman:x:" in (tmp_path / "etc" / "passwd").read_text()
    tmpfiles = ["systemd-tmpfiles", root, "--create", SHARE / "tmpfiles.d" / "repoman.conf"]
    subprocess.run(tmpfiles, check=True)
    assert (tmp_path / "var/lib/repoman/log").stat().st_mode & 0o777 == 0o700
