"""More uploads of one user at once than may run: each has its turn."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPSConnection
from pathlib import Path

import pytest

from tests.server import ROOT, Daemon, Person

BATCH = 10
SIZE = 9 * 2**20  # larger than what goes in one request


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with Daemon(tmp_path_factory.mktemp("turns"), limits={"uploads": 2}).running() as daemon:
        yield daemon


def put(person: Person, file: Path, image: str) -> subprocess.Popen[str]:
    """A running ``repoman put``."""
    return subprocess.Popen(
        [sys.executable, "-m", "repoman.cli", "-H", f"localhost:{person.daemon.https}",
         "put", str(file), image],
        env={"PATH": os.defpath, "PYTHONPATH": str(ROOT), "HOME": str(file.parent),
             "X509_USER_PROXY": str(person.proxy),
             "X509_CERT_DIR": str(person.daemon.ca_directory)},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def begin(person: Person, image: str) -> HTTPSConnection:
    """Begin an upload that ends when somebody closes its connection."""
    connection = person.connection()
    connection.putrequest("PUT", f"/api/images/raw/{image}")
    connection.putheader("Content-Length", str(SIZE))
    connection.endheaders(bytes(1000))
    return connection


def until_running(person: Person, count: int) -> None:
    """Wait until so many uploads of a person's run."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        running = person.daemon.admin.ask("GET", "/api/transfers").json
        if sum(one["user"] == person.name for one in running) == count:
            return
        time.sleep(0.05)
    raise AssertionError(running)


def test_a_batch_larger_than_may_run_at_once_ends_well(daemon: Daemon, tmp_path: Path) -> None:
    person = daemon.newcomer()
    names = [f"vm{number}" for number in range(BATCH)]
    for name in (*names, "a", "b"):
        assert person.ask("POST", "/api/images", form={"name": name}).status == 201
    (tmp_path / "disk").write_bytes(os.urandom(SIZE))
    running = begin(person, "a"), begin(person, "b")
    until_running(person, 2)

    for method, headers in (("PUT", {}), ("POST", {"Upload-Complete": "?0"})):
        refused = person.ask(
            method, f"/api/images/raw/{names[0]}", headers=headers,
            body=b"x" if method == "PUT" else b"",
        )  # fmt: skip
        assert (refused.status, int(refused.headers["Retry-After"])) == (429, 5), refused

    programs = [put(person, tmp_path / "disk", name) for name in names]
    first = programs[0]
    assert first.stderr is not None
    said = [first.stderr.readline(), first.stderr.readline()]
    assert any("already runs 2 uploads" in line and "Waiting for a turn" in line for line in said)
    for one in running:
        one.close()
    for program in programs:
        out, err = program.communicate(timeout=180)
        assert program.returncode == 0, err
        assert "[OK]" in out
        assert err.count("Waiting for a turn") <= 3, err
    for name in names:
        assert person.ask("GET", f"/api/images/{name}").json["size"] == SIZE


def test_curl_waits_for_its_turn(daemon: Daemon, tmp_path: Path) -> None:
    person = daemon.newcomer()
    for name in ("vm", "a", "b"):
        assert person.ask("POST", "/api/images", form={"name": name}).status == 201
    (tmp_path / "disk").write_bytes(b"bytes")
    running = begin(person, "a"), begin(person, "b")
    until_running(person, 2)
    with (tmp_path / "said").open("w") as said:
        curl = subprocess.Popen(
            ["curl", *person.curl, "-v", "--fail", "--retry", "5", "-T", str(tmp_path / "disk"),
             f"{daemon.url}/api/images/raw/vm"],
            stderr=said,
        )  # fmt: skip
        end = time.monotonic() + 30
        while "Retry-After" not in (tmp_path / "said").read_text() and time.monotonic() < end:
            time.sleep(0.05)
        for one in running:
            one.close()
        assert curl.wait(60) == 0, (tmp_path / "said").read_text()
    assert person.ask("GET", "/api/images/vm").json["size"] == 5
