"""The lowest versions that ``setup.cfg`` states do work, together.

"make test-lowest" installs exactly these in an environment of their own; it takes a
minute, and the package index.
"""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server import ROOT

TOOLS = "pytest", "pytest-twisted", "pytest-rerunfailures", "hypothesis", "requests"
"""What the tests need to run there, in whatever version fits."""

NOT_AS_WHEELS = "txpostgres", "repoman"

IMPORT_ALL = """
import importlib, pkgutil, repoman
for module in pkgutil.walk_packages(repoman.__path__, "repoman."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""


def stated() -> list[str]:
    """The requirements of ``setup.cfg``: each names its lowest version, and no more."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config["options"]["install_requires"].split("\n")[1:]


def run(*words: str | Path, cwd: Path = ROOT) -> str:
    done = subprocess.run(
        list(map(str, words)), cwd=cwd, env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:]
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an environment with the lowest versions."""
    if sys.version_info >= (3, 13):
        pytest.skip("the lowest versions are older than this Python: there are no wheels for it")
    place = tmp_path_factory.mktemp("lowest")
    pins = place / "pins.txt"
    pins.write_text("".join(f"{line.replace(' >= ', '==')}\n" for line in stated()))
    run(sys.executable, "-m", "venv", place / "venv")
    python = place / "venv" / "bin" / "python"
    sources = (word for name in NOT_AS_WHEELS for word in ("--no-binary", name))
    run(
        python, "-m", "pip", "install", "--quiet", "--only-binary", ":all:", *sources,
        "--constraint", pins, ROOT, *TOOLS,
    )  # fmt: skip
    return python


def test_each_requirement_states_its_lowest_version() -> None:
    assert len(stated()) > 10
    assert [line for line in stated() if len(line.split(" >= ")) != 2] == []


def test_they_fit_together(python: Path) -> None:
    run(python, "-m", "pip", "check")
    installed = run(python, "-m", "pip", "list", "--format", "freeze").lower().replace("_", "-")
    versions = dict(line.split("==") for line in installed.splitlines() if "==" in line)
    for line in stated():
        name, lowest = line.lower().split(" >= ")
        assert f"{versions[name]}.".startswith(f"{lowest}."), (name, versions[name])


def test_every_module_can_be_imported(python: Path, tmp_path: Path) -> None:
    run(python, "-W", "error::ImportWarning", "-c", IMPORT_ALL, cwd=tmp_path)


def test_the_demonstration_goes_well(python: Path, tmp_path: Path) -> None:
    """The installed programs: a proxy, the command, an upload, a download, a list."""
    assert "All went well" in run(python, ROOT / "demo" / "demo.py", cwd=tmp_path)


def test_credentials_images_and_pages_work(python: Path) -> None:
    run(
        python, "-m", "pytest", "-q", "--reruns", "0", "tests/lowest/session.py",
        "tests/tls/test_trust_good.py", "tests/tls/test_loading.py",
    )  # fmt: skip
