"""``make demo`` and ``make run`` leave nothing behind, however they end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

DEMO = Path(__file__).parent.parent / "demo" / "demo.py"


def start(tmp_path: Path, *options: str) -> subprocess.Popen[str]:
    """Start the demonstration with a temporary directory, and little else, of its own."""
    return subprocess.Popen(
        [sys.executable, DEMO, *options],
        env={
            "PATH": os.environ["PATH"],
            "TMPDIR": str(tmp_path),
            "PYTHONPATH": str(DEMO.parent.parent),
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def processes_of(directory: Path) -> list[str]:
    """The command lines and directories of the processes that have to do with a directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            told = (process / "cmdline").read_text() + os.readlink(process / "cwd")
        except OSError:
            continue
        if str(directory) in told:
            found.append(told)
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_kept_server_says_how_to_talk_to_it_and_ends_with_a_signal(
    number: signal.Signals, tmp_path: Path
) -> None:
    with start(tmp_path, "--keep") as demo:
        assert demo.stdout is not None
        said = ""
        while "curl" not in said:
            line = demo.stdout.readline()
            assert line, said
            said += line
        assert re.search(r"export X509_USER_PROXY=\S+/x509up", said)
        assert processes_of(tmp_path) != []
        demo.send_signal(number)
        assert "Stopped and removed." in demo.stdout.read()
    assert demo.returncode == 0
    assert processes_of(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_while_the_database_is_made_leaves_nothing(tmp_path: Path) -> None:
    with start(tmp_path) as demo:
        assert demo.stdout is not None
        while not any(tmp_path.glob("*/state/database/*/base/1/*")):
            assert demo.poll() is None
            time.sleep(0.01)
        demo.send_signal(signal.SIGINT)
        said = demo.stdout.read()
    assert demo.returncode == 130, said
    assert processes_of(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_the_session_goes_well_and_leaves_nothing(tmp_path: Path) -> None:
    with start(tmp_path) as demo:
        assert demo.stdout is not None
        said = demo.stdout.read()
    assert demo.returncode == 0, said
    assert re.search(r"\$ repoman whoami\nimpeyr\n", said)
    assert "All went well" in said
    assert processes_of(tmp_path) == []
    assert list(tmp_path.iterdir()) == []
