"""``doctor`` finds each trouble and names its remedy; ``whoami -v`` tells what the server sees."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from repoman.client.diagnosis import clock_finding
from tests.cli.conftest import ROOT
from tests.credentials import HOUR, CADirectory, authority, crl, now
from tests.server import Daemon, Person

ALL = ["proxy", "CA directory", "CRLs", "server", "connection", "clock", "who am I"]
Doctor = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def person(daemon: Daemon) -> Person:
    return daemon.newcomer("doctored", full_name="Doc Tored")


@pytest.fixture
def run(daemon: Daemon, person: Person, tmp_path: Path) -> Doctor:
    def run(
        *words: str, server: str = f"localhost:{daemon.https}", **environ: str
    ) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": os.defpath, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path),
            "X509_USER_PROXY": str(person.proxy), "X509_CERT_DIR": str(daemon.ca_directory),
            **environ,
        }  # fmt: skip
        return subprocess.run(
            [sys.executable, "-m", "repoman.cli", "-H", server, *words],
            env=environment, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    return run


def test_all_is_well(run: Doctor, person: Person) -> None:
    done = run("doctor")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line[9:].partition(":")[0] for line in lines] == ALL
    assert all(line.startswith("[OK]     ") for line in lines)
    assert lines[-1].endswith(f"doctored, {person.dn}")
    found = [json.loads(line) for line in run("doctor", "--json").stdout.splitlines()]
    assert [(each["check"], each["good"]) for each in found] == [(name, True) for name in ALL]


def failures(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    assert "Traceback" not in done.stderr
    failed = [line for line in done.stdout.splitlines() if line.startswith("[FAILED] ")]
    return {line[9:].partition(": ")[0]: line.partition(": ")[2] for line in failed}


@pytest.mark.parametrize("trouble", ["missing", "expired", "open", "none"])
def test_a_proxy_that_is_no_use(run: Doctor, person: Person, tmp_path: Path, trouble: str) -> None:
    path, credential = tmp_path / "proxy", person.credential
    assert credential is not None
    if trouble != "missing":
        ends = now() - HOUR if trouble == "expired" else now() + HOUR
        credential.proxy(begins=now() - 2 * HOUR, ends=ends).write(path)
    if trouble == "open":
        path.chmod(0o644)
    usual = {"X509_USER_PROXY": "", "SUDO_UID": "987654321"}
    done = run("doctor", **(usual if trouble == "none" else {"X509_USER_PROXY": str(path)}))
    assert done.returncode == 4
    remedy = "chmod 600" if trouble == "open" else "grid-proxy-init"
    assert remedy in failures(done)["proxy"]
    assert set(failures(done)) == {"proxy", "who am I"}


def test_a_ca_directory_that_is_no_use(run: Doctor, daemon: Daemon, tmp_path: Path) -> None:
    assert "--ca-dir" in failures(run("doctor", X509_CERT_DIR=str(tmp_path / "no")))["CA directory"]
    empty = run("doctor", X509_CERT_DIR=str(tmp_path))
    assert "install your grid's CAs" in failures(empty)["CA directory"]
    assert empty.returncode == 1
    own = tmp_path / "own"
    shutil.copytree(daemon.ca_directory, own)
    (policy,) = own.glob("*.signing_policy")
    policy.write_text("nonsense")
    assert policy.name in failures(run("doctor", X509_CERT_DIR=str(own)))["CA directory"]


def test_what_concerns_other_authorities_is_a_note(
    run: Doctor, daemon: Daemon, tmp_path: Path
) -> None:
    """A broken file, and an expired CRL, of which neither the user nor the server has use."""
    place = tmp_path / "certificates"
    shutil.copytree(daemon.ca_directory, place)
    (place / "abcdef01.0").write_text("nonsense")
    os.mkfifo(place / "abcdef02.0")
    far = authority("/C=XX/CN=Far", serial=0)
    CADirectory(place).add(far, revokes=crl(far, begins=now() - 2 * HOUR, ends=now() - HOUR))
    done = run("doctor", X509_CERT_DIR=str(place))
    assert (done.returncode, done.stderr) == (0, "")
    assert failures(done) == {}
    notes = [line for line in done.stdout.splitlines() if line.startswith("[NOTE]   ")]
    assert [line[9:].partition(":")[0] for line in notes] == ["CA directory", "CRLs"]
    assert "abcdef01.0 holds no CA" in notes[0]
    assert "abcdef02.0 is no ordinary file" in notes[0]
    assert "/C=XX/CN=Far expired at" in notes[1]
    found = [json.loads(line) for line in run(
        "doctor", "--json", X509_CERT_DIR=str(place)
    ).stdout.splitlines()]  # fmt: skip
    assert [each["check"] for each in found if not each.get("note")] == ALL
    assert all(each["good"] for each in found)
    assert len([each for each in found if each.get("note")]) == 2


def test_doctor_goes_to_its_end_whatever_it_finds(run: Doctor, tmp_path: Path) -> None:
    config = tmp_path / "repoman.conf"
    config.write_text("[Repository]\nport = many\n")
    nothing = {"X509_USER_PROXY": str(tmp_path / "no"), "X509_CERT_DIR": str(tmp_path / "no")}
    done = run("doctor", server="", REPOMAN_CLIENT_CONFIG=str(config), **nothing)
    assert done.returncode == 2
    assert list(failures(done)) == ["configuration", "proxy", "CA directory", "server"]
    assert done.stderr == ""


def test_a_crl_that_has_expired(run: Doctor, daemon: Daemon, tmp_path: Path) -> None:
    place = tmp_path / "certificates"
    shutil.copytree(daemon.ca_directory, place)
    (crl,) = place.glob("*.r0")
    crl.write_text("nonsense")
    assert "run fetch-crl" in failures(run("doctor", X509_CERT_DIR=str(place)))["CRLs"]


def test_a_server_that_is_not_there(run: Doctor) -> None:
    done = run("doctor", server="localhost:1")
    assert done.returncode == 7
    assert "Nothing listens at localhost:1" in failures(done)["server"]
    done = run("doctor", server="no-such-host.invalid:1")
    assert "no host of the name" in failures(done)["server"]


def test_a_server_whose_certificate_has_another_name(run: Doctor, daemon: Daemon) -> None:
    done = run("doctor", server=f"127.0.0.2:{daemon.https}")
    assert done.returncode == 7
    found = failures(done)
    assert "127.0.0.2" in (found.get("connection") or found["server"])


def test_somebody_whom_the_server_does_not_know(run: Doctor, daemon: Daemon) -> None:
    stranger = daemon.stranger("Nemo")
    done = run("doctor", X509_USER_PROXY=str(stranger.proxy))
    assert done.returncode == 4
    assert "Nemo" in failures(done)["who am I"]


@pytest.mark.parametrize(("seconds", "words"), [(59, ""), (90, "90 s ahead"), (-3600, "behind")])
def test_a_wrong_clock(seconds: int, words: str) -> None:
    here = datetime(2026, 3, 8, 12, 0, 0, tzinfo=timezone.utc) + timedelta(seconds=seconds)
    finding = clock_finding("Sun, 08 Mar 2026 12:00:00 GMT", here)
    assert (finding.error is None) == (not words)
    assert words in str(finding.error or "")


def test_whoami_tells_what_the_server_sees(run: Doctor, person: Person) -> None:
    assert run("whoami").stdout == "doctored\n"
    lines = dict(line.split(": ", 1) for line in run("whoami", "-v").stdout.splitlines())
    facts = {name: value.strip() for name, value in lines.items()}
    assert facts["user"] == "doctored"
    assert facts["full name"] == "Doc Tored"
    assert facts["DN"] == person.dn
    assert facts["issuer"] == "/C=CA/O=Grid/CN=Test CA"
    assert facts["proxies"] == "1"
    assert facts["limited proxy"] == "no"
    assert facts["valid until"].endswith(" UTC")
    assert json.loads(run("whoami", "-v", "--json").stdout)["credential"]["dn"] == person.dn
