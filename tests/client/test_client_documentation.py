"""docs/client.md: its example runs, and what it says of commands and codes is so."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from repoman.cli.manpage import EXIT_CODES
from repoman.cli.options import parse
from repoman.cli.table import COMMANDS
from tests.server import ROOT, Daemon

TEXT = (ROOT / "docs" / "client.md").read_text()


def test_the_example_of_the_library_runs(daemon: Daemon, tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    (tmp_path / "example.py").write_text(example)
    (tmp_path / "disk").write_bytes(os.urandom(9_000_000))
    person = daemon.newcomer()
    environ = {
        "PYTHONPATH": str(ROOT), "PATH": os.defpath, "HOME": str(tmp_path),
        "X509_USER_PROXY": str(person.proxy), "X509_CERT_DIR": str(daemon.ca_directory),
    }  # fmt: skip
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "example.py", daemon.url, "disk"], cwd=tmp_path, env=environ,
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, ""), done
    assert "example.img 9000000 " in done.stdout
    assert (tmp_path / "example.img").read_bytes() == (tmp_path / "disk").read_bytes()


def test_its_commands_are_commands() -> None:
    shell = "\n".join(re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL))
    lines = re.findall(r"repoman ([^\n|>#]+)", re.sub(r"repoman\.example", "there.example", shell))
    assert len(lines) > 8
    for line in lines:
        command, _ = parse(COMMANDS, shlex.split(line))
        assert command is not None


def test_its_exit_codes_are_those_of_the_manual() -> None:
    assert re.findall(r"^\| (\d+) \| ([^|]+) \|$", TEXT, re.MULTILINE) == [*EXIT_CODES]
