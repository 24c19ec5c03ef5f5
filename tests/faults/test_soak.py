"""A short soak: nothing leaks, nothing is answered 500."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.server import ROOT


def test_nothing_leaks_in_two_minutes_of_everything() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.soak", "--seconds", "100"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
