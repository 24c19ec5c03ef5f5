"""``twistd repoman`` starts the service, or says in a line or two why not and exits with 1."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from demo import grid
from repoman import __version__

ROOT = Path(__file__).parent.parent
TWISTD = Path(sys.executable).parent / "twistd"


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a program that sees this checkout."""
    return subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def twistd(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return run(TWISTD, "--nodaemon", "--pidfile=", *words, cwd=cwd)


def test_twistd_lists_the_plugin(tmp_path: Path) -> None:
    done = run(TWISTD, "--help", cwd=tmp_path)
    assert "repoman          A RESTful, X.509-authenticated repository" in done.stdout


def test_it_says_its_own_version(tmp_path: Path) -> None:
    assert twistd("repoman", "--version", cwd=tmp_path).stdout == f"repoman {__version__}\n"


def test_it_prints_a_configuration_to_begin_with(tmp_path: Path) -> None:
    done = twistd("repoman", "--print-config", cwd=tmp_path)
    assert done.stdout == (ROOT / "etc" / "repoman.conf").read_text()


def test_every_mistake_is_a_line_and_nothing_is_started(tmp_path: Path) -> None:
    file = tmp_path / "r.conf"
    file.write_text(f"[server]\nstate = {tmp_path}/state\nhttps = 1\n[tls]\ncrl = perhaps\n")
    done = twistd("repoman", "-c", file, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        [f"{file}:3", "[server] https"],
        [f"{file}:5", "[tls] crl"],
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["r.conf"]


def test_a_missing_configuration_is_one_line(tmp_path: Path) -> None:
    done = twistd("repoman", "--config", tmp_path / "none", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "no such file" in done.stderr


def test_an_unknown_option_is_told(tmp_path: Path) -> None:
    done = twistd("repoman", "--colour", cwd=tmp_path)
    assert done.returncode == 1
    assert "option --colour not recognized" in done.stdout


def configure(directory: Path, **server: str) -> Path:
    """Write a configuration with which the service could start, but for ``server``."""
    authority = grid.make_authority("/C=CA/O=Grid/CN=CA")
    host = grid.make_host(authority, "/C=CA/O=Grid/CN=localhost", ["localhost"])
    host.write(directory / "cert.pem", directory / "key.pem")
    grid.write_ca_directory(authority, directory / "ca")
    file = directory / "r.conf"
    file.write_text(
        f"[server]\nstate = {directory}/state\n"
        + "".join(f"{key} = {value}\n" for key, value in server.items())
        + f"[tls]\ncertificate = {directory}/cert.pem\nkey = {directory}/key.pem\n"
        f"ca_directory = {directory}/ca\n[metrics]\nendpoint =\n"
    )
    return file


@pytest.mark.parametrize(
    ("broken", "content", "told"),
    [
        ("cert.pem", b"", "cert.pem"),
        ("key.pem", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "key.pem"),
        ("ca", None, "/ca"),
    ],
)
def test_what_is_wrong_with_the_trust_is_one_line_before_anything_starts(
    broken: str, content: bytes | None, told: str, tmp_path: Path
) -> None:
    file = configure(tmp_path, https="tcp:0")
    if content is None:
        (tmp_path / broken).rename(tmp_path / "elsewhere")
    else:
        (tmp_path / broken).write_bytes(content)
    done = twistd("repoman", "-c", file, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert told in done.stderr
    assert not (tmp_path / "state").exists()


def test_a_port_in_use_is_one_line_and_everything_is_stopped_again(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
        file = configure(tmp_path, https=endpoint)
        done = run(
            TWISTD, "--nodaemon", "--pidfile=", "--logfile=r.log", "repoman", "-c", file,
            cwd=tmp_path,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert endpoint in done.stderr
    assert "Traceback" not in (tmp_path / "r.log").read_text()
    assert list((tmp_path / "state").rglob("postmaster.pid")) == []


# A step of the wall clock cannot be had without breaking the machine, so the clock that
# the reactor came with is replaced by one that jumps an hour ahead after it was read twice.
CLOCK = """
import itertools, time
from twisted.internet import base
jumps = itertools.count()
base.ReactorBase.seconds = staticmethod(lambda: time.time() + (3600 if next(jumps) > 1 else 0))
from twisted.internet import reactor
from repoman.tap import use_monotonic_clock
{monotonic}
began = time.monotonic()
def fired():
    print(round(time.monotonic() - began, 1))
    reactor.stop()
reactor.callLater(0.5, fired)
reactor.run()
"""


@pytest.mark.parametrize(
    ("line", "waited"),
    [("use_monotonic_clock(reactor)", 0.5), ("pass", 0.0)],
    ids=["monotonic", "teeth"],
)
def test_timers_do_not_care_about_a_step_of_the_wall_clock(
    line: str, waited: float, tmp_path: Path
) -> None:
    done = run(sys.executable, "-c", CLOCK.format(monotonic=line), cwd=tmp_path)
    assert done.stderr == ""
    assert float(done.stdout) == pytest.approx(waited, abs=0.3)


# A service that starts, and finds out at once or a little later that it cannot serve: twistd
# and the reactor are real, what fails is made to.
FAILING = """
import sys, types
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from repoman.errors import StoreUnavailable

class Failing(Service):
    def __init__(self, reactor):
        self.reactor, self.started = reactor, Deferred()
    def fail(self):
        self.started.errback({error})
    def startService(self):
        {when}
    def stopService(self):
        print("stopped what it had started", file=sys.__stdout__, flush=True)

sys.modules["repoman.service"] = types.ModuleType("repoman.service")
sys.modules["repoman.service"].make_service = lambda reactor, *_: Failing(reactor)
sys.argv = ["twistd", "--nodaemon", "--pidfile=r.pid", "--logfile=r.log", "repoman", "-c", "r.conf"]
from twisted.scripts.twistd import run
sys.exit(run())
"""


@pytest.mark.parametrize("when", ["self.fail()", "self.reactor.callLater(0.1, self.fail)"])
def test_a_failed_start_is_one_line_and_a_clean_stop_with_status_1(
    when: str, tmp_path: Path
) -> None:
    (tmp_path / "r.conf").write_text("")
    program = FAILING.format(error="StoreUnavailable('The disk is gone.')", when=when)
    done = run(sys.executable, "-c", program, cwd=tmp_path)
    assert done.stderr == "repoman: The disk is gone.\n"
    assert done.stdout == "stopped what it had started\n"
    assert done.returncode == 1
    log = (tmp_path / "r.log").read_text()
    assert "Not started: repoman: The disk is gone." in log
    assert "Traceback" not in log
    assert not (tmp_path / "r.pid").exists()


def test_a_fault_of_our_own_at_start_is_one_line_too_and_its_traceback_is_in_the_log(
    tmp_path: Path,
) -> None:
    (tmp_path / "r.conf").write_text("")
    program = FAILING.format(error="ZeroDivisionError('x')", when="self.fail()")
    done = run(sys.executable, "-c", program, cwd=tmp_path)
    assert done.stderr.count("\n") == 1
    assert "the log has it" in done.stderr
    assert done.returncode == 1
    log = (tmp_path / "r.log").read_text()
    assert "Not started\n\tTraceback" in log
    assert "ZeroDivisionError" in log
