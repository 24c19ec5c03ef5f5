"""The walk of docs/operations.md, from nothing to a served image, in a clean environment."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.server import ROOT, Daemon, free_ports

SECTION = (
    (ROOT / "docs/operations.md").read_text().partition("## From nothing to a served image")[2]
)
BLOCKS = re.findall(r"(?:^    .*\n)+", SECTION.partition("\n## ")[0], re.MULTILINE)
HOST, PERSON = (re.sub("(?m)^    ", "", block).splitlines() for block in BLOCKS)
PREAMBLE = """
set -euo pipefail
systemd-sysusers() { command systemd-sysusers --root="$ROOT"; }
systemd-tmpfiles() { command systemd-tmpfiles --root="$ROOT" "$@"; }
runuser() { shift 3; "$@" -c "$ROOT/etc/repoman.conf"; }
install() { command install -m 600 "$5" "$6"; }
systemctl() { :; }
"""
"""What stands for that which a test cannot do to its machine."""

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not shutil.which("systemd-sysusers"), reason="systemd is not installed"),
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What "pip install repoman" would install."""
    place, source = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("source") / "repoman"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".git", ".venv", "build", ".m*"))
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", place]
    done = subprocess.run([*pip, source], capture_output=True, text=True, check=False)
    if done.returncode and "Could not find a version" in done.stderr:
        pytest.skip("no package index to fetch setuptools from")
    assert done.returncode == 0, done.stderr
    return next(place.glob("*.whl"))


@pytest.fixture
def host(tmp_path: Path) -> Daemon:
    """The directories of an empty host, its certificate and CAs, and people."""
    (tmp_path / "grid").mkdir()
    daemon = Daemon(tmp_path / "grid")
    security = tmp_path / "etc" / "grid-security"
    for name in ("usr/lib/sysusers.d", "usr/lib/tmpfiles.d", "etc/logrotate.d",
                 "etc/systemd/system", "opt", "var/lib"):  # fmt: skip
        (tmp_path / name).mkdir(parents=True)
    security.mkdir()
    shutil.copytree(daemon.ca_directory, security / "certificates")
    for name in ("hostcert.pem", "hostkey.pem"):
        shutil.copy(tmp_path / "grid" / name, security)
    (tmp_path / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (tmp_path / "etc" / "group").write_text("root:x:0:\n")
    return daemon


def localized(line: str, root: Path) -> str:
    """A line that does to ``root`` what it would do to the machine."""
    return re.sub(r"(?<![\w.])/(opt|etc|usr/lib|var/lib)/", rf"{root}/\1/", line)


def at_home_in(root: Path, port: int) -> None:
    """Let a configuration speak of ``root``, where its defaults speak of the machine."""
    config = root / "etc" / "repoman.conf"
    text = config.read_text()
    security = root / "etc" / "grid-security"
    for section, lines in {
        "[server]": f"https = tcp:{port}\nstate = {root}/var/lib/repoman",
        "[tls]": f"certificate = {security}/hostcert.pem\nca_directory = {security}/certificates",
        "[metrics]": "endpoint =",
    }.items():
        text = text.replace(section, f"{section}\n{lines}", 1)
    config.write_text(text)


def set_up(root: Path, wheel: Path, port: int) -> None:
    """Do each line as it stands, up to systemctl."""
    place = "/"
    for line in HOST:
        here = localized(line, root).replace("python3 -m venv", f"{sys.executable} -m venv")
        here = here.replace("install repoman", f"install --quiet --no-deps {wheel}")
        if edit := re.match(r"# in (\S+), under (\[\w+\]):\s+(.*)", here):
            path = Path(edit[1])
            path.write_text(path.read_text().replace(edit[2], f"{edit[2]}\n{edit[3]}", 1))
        elif here.startswith("cd "):
            place = here.removeprefix("cd ")
        else:
            done = subprocess.run(
                ["bash", "-c", f"{PREAMBLE}cd {place}\n{here}"], env={**clean(), "ROOT": str(root)},
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0, (line, done.stderr)
        if " -m venv " in here:
            lend_dependencies(root / "opt" / "repoman")
        if " sample-config " in here:
            at_home_in(root, port)


def lend_dependencies(environment: Path) -> None:
    """What pip would fetch is here already: all but the checkout."""
    [site] = environment.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    twistd = environment / "bin" / "twistd"
    run = "from twisted.scripts.twistd import run\nrun()\n"
    twistd.write_text(f"#!{environment}/bin/python\n{run}")
    twistd.chmod(0o755)


def clean() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}


@contextmanager
def serving(root: Path, port: int) -> Iterator[None]:
    """Run what the unit runs."""
    unit = (root / "etc/systemd/system/repoman.service").read_text()
    command = localized(re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)[0], root).split()
    process = subprocess.Popen(
        [*command, "-c", f"{root}/etc/repoman.conf"], cwd="/", env=clean(),
        stdin=subprocess.DEVNULL, stdout=(root / "log").open("w"), stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        end = time.monotonic() + 60
        while "Administrator impeyr created" not in (root / "log").read_text():
            assert time.monotonic() < end, (root / "log").read_text()
            assert process.poll() is None, (root / "log").read_text()
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(30)


def test_every_line_of_the_walk_does_what_it_says(
    host: Daemon, wheel: Path, tmp_path: Path
) -> None:
    [port] = free_ports(1)
    set_up(tmp_path, wheel, port)
    text = (tmp_path / "etc" / "repoman.conf").read_text()
    assert f"admins = {tmp_path}/etc/repoman.admins" in text
    assert f"key = {tmp_path}/etc/grid-security/repoman-key.pem" in text
    assert "repoman:x:" in (tmp_path / "etc" / "passwd").read_text()
    assert (tmp_path / "var/lib/repoman").is_dir()
    shutil.rmtree(tmp_path / "var/lib/repoman")  # it belongs to an account of that root
    with serving(tmp_path, port):
        (tmp_path / "disk.img").write_bytes(b"disk" * 1000)
        environment = {
            **clean(), "HOME": str(tmp_path),
            "X509_USER_PROXY": str(host.admin.proxy), "X509_CERT_DIR": str(host.ca_directory),
            "PATH": f"{tmp_path}/opt/repoman/bin:{os.environ['PATH']}",
        }  # fmt: skip
        for line in PERSON:
            if line != "grid-proxy-init":
                here = line.replace("repo.example.org", f"localhost -P {port}")
                done = subprocess.run(
                    ["bash", "-c", here], cwd=tmp_path, env=environment,
                    capture_output=True, text=True, check=False,
                )  # fmt: skip
                assert done.returncode == 0, (line, done.stderr, (tmp_path / "log").read_text())
        assert (tmp_path / "sl6").read_bytes() == b"disk" * 1000
