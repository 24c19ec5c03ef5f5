"""The lines of docs/rest-api.md run, and show every route."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from importlib.resources import files
from pathlib import Path

from tests.server import ROOT, Daemon

TEXT = (ROOT / "docs" / "rest-api.md").read_text()
LINES = "".join(re.findall(r"^```sh\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)).splitlines()
DESCRIPTION = json.loads(files("repoman").joinpath("openapi.json").read_text())


def operation(line: str) -> str:
    """What a line asks for, as the description names it."""
    words = shlex.split(re.sub(r"\$\([^)]*\)", "", line))
    method = words[words.index("-X") + 1] if "-X" in words else "GET"
    if "-X" not in words:
        method = "PUT" if "-T" in words else "POST" if any(w[:2] == "-d" for w in words) else "GET"
        method = "POST" if "--data-urlencode" in words else method
    path = words[-1].replace("$R", "").replace("$U", "/api/uploads/x").partition("?")[0]
    fits = [p for p in DESCRIPTION["paths"] if re.fullmatch(re.sub("{[a-z_]+}", "[^/]+", p), path)]
    # What is written out in a path counts more than what stands for anything.
    best = min(fits, key=lambda p: (p.count("{"), p.count("{name}") == 0))
    return f"{method} {best}"


def test_every_route_has_a_line() -> None:
    shown = {operation(line) for line in LINES if line.startswith("curl ")}
    described = {
        f"{method.upper()} {path}"
        for path, methods in DESCRIPTION["paths"].items()
        for method in methods
    }
    assert shown == described


def test_every_line_runs(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(b"\0disk" * 1000)
    # Not even one refusal: curl then answers 22, and the shell stops.
    script = [
        "set -euo pipefail",
        'curl() { echo "== $*" >&2; command curl --fail-with-body --max-time 60 "$@"; }',
        *LINES,
    ]
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        env={"PATH": "/usr/bin:/bin", "R": daemon.url, "E": " ".join(daemon.admin.curl)},
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-500:]
    assert (tmp_path / "copy.img").read_bytes() == b"\0disk" * 1000
