"""``repoman-server check-config`` tells what is wrong about trust, all of it, by file."""

from __future__ import annotations

import os
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from repoman.config import Storage
from repoman.inspection import remark_on_clock, remark_on_redirect
from tests.credentials import (
    DAY,
    HOUR,
    Grid,
    authority,
    crl,
    host,
    name_hash,
    now,
    rsa_key,
    signing_policy,
)
from tests.odd_files import ALL, IGTF
from tests.test_operator import operate

NOT_EVERYWHERE = (
    () if os.geteuid() else ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")
)
"""Before a command: even root may not pass closed doors."""


class Place:
    """A grid, a host's files, and a configuration that names them."""

    def __init__(self, directory: Path) -> None:
        self.grid = Grid(directory)
        self.certificate, self.key = self.grid.host("repo.example.org")
        self.cas = self.grid.directory.path
        self.hash = name_hash(self.grid.ca)
        self.config = directory / "repoman.conf"
        self.say()

    def say(self, url: str = "https://repo.example.org", **tls: str) -> None:
        keys = {"certificate": self.certificate, "key": self.key, "ca_directory": self.cas, **tls}
        lines = "".join(f"{key} = {value}\n" for key, value in keys.items())
        self.config.write_text(f"[server]\nurl = {url}\n[tls]\n{lines}")

    def check(self) -> tuple[int, str, list[str]]:
        done = operate("check-config", "-c", self.config)
        assert "Traceback" not in done.stderr
        told = [line for line in done.stderr.splitlines() if not line.startswith("Note: ")]
        return done.returncode, done.stdout, told

    def host(self, **bent: object) -> None:
        host(self.grid.ca, "repo.example.org", **bent).write_pair(self.certificate, self.key)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_nothing_is_wrong(place: Place) -> None:
    assert place.check() == (0, "The configuration is good.\n", [])


def _expired(place: Place) -> None:
    place.host(ends=now() - HOUR / 2)


def _future(place: Place) -> None:
    place.host(begins=now() + DAY)


def _no_name(place: Place) -> None:
    host(place.grid.ca, subject="/C=CA/O=Grid/CN=repo.example.org").write_pair(
        place.certificate, place.key
    )


def _other_name(place: Place) -> None:
    place.say("https://other.example.org")


def _revoked(place: Place) -> None:
    place.host(serial=4711)
    (place.cas / f"{place.hash}.r0").write_bytes(crl(place.grid.ca, [4711]))


def _open_key(place: Place) -> None:
    place.key.chmod(0o644)


def _open_directory(place: Place) -> None:
    place.cas.chmod(0o777)


def _old_crl(place: Place) -> None:
    old = crl(place.grid.ca, begins=now() - 9 * DAY, ends=now() - DAY)
    (place.cas / f"{place.hash}.r0").write_bytes(old)


def _early_crl(place: Place) -> None:
    early = crl(place.grid.ca, begins=now() + DAY)
    (place.cas / f"{place.hash}.r0").write_bytes(early)


def _broken_crl(place: Place) -> None:
    (place.cas / f"{place.hash}.r0").write_bytes(b"\n")


def _no_crl(place: Place) -> None:
    (place.cas / f"{place.hash}.r0").unlink()
    place.say(crl="require")


def _broken_policy(place: Place) -> None:
    (place.cas / f"{place.hash}.signing_policy").write_text("nonsense\n")


def _broken_ca(place: Place) -> None:
    (place.cas / "0badc0de.0").write_text("nonsense\n")


def _expired_ca(place: Place) -> None:
    place.grid.directory.add(authority("/C=XX/CN=Old", ends=now() - DAY))


def _own_expired_ca(place: Place) -> None:
    old = authority("/C=CA/O=Grid/CN=Test CA", begins=now() - 9 * DAY, ends=now() - DAY)
    (place.cas / f"{place.hash}.0").write_bytes(old.pem())


def _own_broken_ca(place: Place) -> None:
    (place.cas / f"{place.hash}.0").write_text("nonsense\n")
    place.grid.directory.add(authority("/C=XX/CN=Far"))


def _far_old_crl(place: Place) -> None:
    far = authority("/C=XX/CN=Far")
    old = crl(far, begins=now() - 9 * DAY, ends=now() - DAY)
    place.grid.directory.add(far, revokes=old)


def _far_broken_policy(place: Place) -> None:
    place.grid.directory.add(authority("/C=XX/CN=Far"), policy="nonsense\n")


def _far_idle_policy(place: Place) -> None:
    policy = signing_policy("/C=XX/CN=Far", "C=XX/*", "/C=XX/*")
    place.grid.directory.add(authority("/C=XX/CN=Far"), policy=policy)


def _far_odd_key(place: Place) -> None:
    ALL["CA: a brainpool key"].into(place.grid)


def _far_fifo(place: Place) -> None:
    ALL["entry: a FIFO"].into(place.grid)


def _far_odd_name(place: Place) -> None:
    ALL["entry: a name that is no text"].into(place.grid)


def _far_serial(place: Place) -> None:
    """The library warns of it; nobody else does."""
    ALL["CA: serial number 0"].into(place.grid)


FAR = {
    "a broken CA": (_broken_ca, "0badc0de.0 holds no CA certificate"),
    "an expired CA": (_expired_ca, "(/C=XX/CN=Old) expired at"),
    "an expired CRL": (_far_old_crl, "run fetch-crl"),
    "a broken policy": (_far_broken_policy, ".signing_policy has a line 1"),
    "a rule that matches nothing": (_far_idle_policy, "no DN can match: C=XX/*"),
    "a key of an unknown kind": (_far_odd_key, "0dd00000.0 holds a CA certificate with an unknown"),
    "a FIFO": (_far_fifo, "0dd00000.0 is no ordinary file"),
    "a name that is no text": (_far_odd_name, "\\udcff.0 holds no CA"),
    "serial number 0": (_far_serial, ""),
}


@pytest.mark.parametrize("what", FAR)
def test_what_concerns_others_is_a_note(place: Place, what: str) -> None:
    spoil, words = FAR[what]
    spoil(place)
    done = operate("check-config", "-c", place.config)
    assert (done.returncode, done.stdout) == (0, "The configuration is good.\n"), done.stderr
    notes = [line for line in done.stderr.splitlines() if "kernel" not in line]
    assert all(line.startswith("Note: ") for line in notes), notes
    assert [words in note for note in notes] == [True] * bool(words)


def test_a_file_of_another_authority_that_is_closed_to_us_is_a_note(place: Place) -> None:
    hashed = place.grid.directory.add(authority("/C=XX/CN=Far"), policy="# nothing\n")
    (place.cas / f"{hashed}.signing_policy").chmod(0)
    done = operate("check-config", "-c", place.config, before=NOT_EVERYWHERE)
    assert (done.returncode, done.stdout) == (0, "The configuration is good.\n"), done.stderr
    assert f"Note: {hashed}.signing_policy cannot be read (Permission denied)" in done.stderr


def test_check_config_goes_to_its_end_whatever_it_finds(place: Place, tmp_path: Path) -> None:
    _no_certificate(place)
    _broken_ca(place)
    _open_directory(place)
    admins = tmp_path / "admins"
    admins.write_text("nonsense\n")
    keys = tmp_path / "s3-credentials"
    settings = place.config.read_text() + (
        f"[accounts]\nadmins = {admins}\n[storage]\nbackend = s3\nbucket = images\n"
        f"endpoint = https://s3.example.org\ncredentials = {keys}\n[limits]\nuploads = many\n"
    )
    place.config.write_text(settings)
    code, out, told = place.check()
    assert (code, out) == (1, "The daemon would not start.\n")
    for words in (
        "[limits] uploads", "admins:1", f"{keys} cannot be read", "hostcert.pem cannot be read",
        "0badc0de.0 holds no CA", "changed by anybody",
    ):  # fmt: skip
        assert len([line for line in told if words in line]) == 1, (words, told)
    # What is about files that nobody named is not said: their names could not be read.
    place.config.write_text(settings.replace("[tls]", "[tsl]"))
    _, _, told = place.check()
    assert ["[tsl]: unknown" in line for line in told].count(True) == 1
    assert not any("hostcert" in line for line in told), told


@pytest.mark.skipif(
    not list(IGTF.glob("*.signing_policy")), reason="Debian's igtf-policy-* are not installed"
)
def test_check_config_is_quiet_on_the_real_igtf(place: Place) -> None:
    for path in IGTF.iterdir():
        (place.cas / path.name).write_bytes(path.read_bytes())
    done = operate("check-config", "-c", place.config)
    assert (done.returncode, done.stdout) == (0, "The configuration is good.\n")
    for line in done.stderr.splitlines():
        assert line.startswith("Note: ")
        assert "kernel" in line or "expired at" in line


def _clock_behind(place: Place) -> None:
    later = time.time() + 86400
    os.utime(place.certificate, (later, later))


TO_BE_MENDED = {
    "an expired certificate": (_expired, "hostcert.pem is valid from"),
    "a certificate of tomorrow": (_future, "hostcert.pem is valid from"),
    "no host name in it": (_no_name, "names no host"),
    "another host's": (_other_name, "is not for other.example.org"),
    "a revoked one": (_revoked, "was revoked by"),
    "a key for all to read": (_open_key, "hostkey.pem can be read by others; run: chmod 600"),
    "a directory for all to write": (_open_directory, "certificates can be changed by anybody"),
    "an expired CRL": (_old_crl, ".r0 expired at"),
    "a CRL of tomorrow": (_early_crl, ".r0 is not valid before"),
    "a broken CRL": (_broken_crl, ".r0 holds no CRL"),
    "no CRL where one is required": (_no_crl, "has no CRL: run fetch-crl"),
    "a broken policy": (_broken_policy, ".signing_policy has a line 1 that is not understood"),
    "an expired CA of its own": (_own_expired_ca, "/CN=Test CA) expired at"),
    "a broken CA, its own for all we know": (_own_broken_ca, ".0 holds no CA certificate"),
    "a clock that is behind": (_clock_behind, "hostcert.pem was written at"),
}


@pytest.mark.parametrize("what", TO_BE_MENDED)
def test_it_would_start_but(place: Place, what: str) -> None:
    spoil, words = TO_BE_MENDED[what]
    spoil(place)
    code, out, told = place.check()
    assert (code, out) == (1, "The daemon would start all the same.\n")
    assert any(words in line for line in told), told


def _mismatch(place: Place) -> None:
    place.key.write_bytes(host(place.grid.ca, "x", key=rsa_key("another")).key_pem())


def _no_key(place: Place) -> None:
    place.key.unlink()


def _no_certificate(place: Place) -> None:
    place.certificate.unlink()


def _weak_key(place: Place) -> None:
    place.host(key=rsa_key("small", 1024))


def _no_cas(place: Place) -> None:
    place.say(ca_directory=str(place.cas / "nothing"))


def _empty_cas(place: Place) -> None:
    (place.cas / f"{place.hash}.0").unlink()


NO_START = {
    "another key": (_mismatch, "does not belong to the certificate"),
    "no key": (_no_key, "hostkey.pem cannot be read"),
    "no certificate": (_no_certificate, "hostcert.pem cannot be read"),
    "a weak key": (_weak_key, "too small"),
    "no CA directory": (_no_cas, "nothing cannot be read"),
    "no CA in it": (_empty_cas, "holds no certificate authority"),
}


@pytest.mark.parametrize("what", NO_START)
def test_it_would_not_start(place: Place, what: str) -> None:
    spoil, words = NO_START[what]
    spoil(place)
    code, out, told = place.check()
    assert (code, out) == (1, "The daemon would not start.\n")
    assert any(words in line for line in told), told


def test_all_is_told_at_once(place: Place) -> None:
    for spoil in (_mismatch, _broken_ca, _old_crl, _open_directory):
        spoil(place)
    words = "does not belong", "0badc0de.0 holds no", ".r0 expired at", "changed by anybody"
    code, _, told = place.check()
    assert code == 1
    assert all(any(word in line for line in told) for word in words), told
    assert len(told) == len(set(told))


def test_a_key_behind_a_closed_door_is_one_line(place: Place) -> None:
    closed = place.key.parent / "private"
    closed.mkdir()
    place.say(key=str(place.key.rename(closed / "hostkey.pem")))
    closed.chmod(0)
    try:
        done = operate("check-config", "-c", place.config, before=NOT_EVERYWHERE)
    finally:
        closed.chmod(0o700)
    assert (done.returncode, done.stdout) == (1, "The daemon would not start.\n")
    told = [line for line in done.stderr.splitlines() if not line.startswith("Note: ")]
    assert all("private" in line and "Permission denied" in line for line in told), told
    assert any("private/hostkey.pem cannot be looked at" in line for line in told), told


def test_a_file_is_not_mistaken_for_the_section_that_its_name_has(tmp_path: Path) -> None:
    (odd := tmp_path / "site: [log]").mkdir()
    place = Place(odd)
    place.say(reload="soon")
    _no_certificate(place)  # which is not said, where a setting about it was not understood
    (line,) = place.check()[2]
    assert "[tls] reload" in line


@pytest.mark.parametrize(("state", "remarks"), [(0, False), (5, True)])
def test_a_clock_that_nobody_keeps_is_worth_a_remark(state: int, remarks: bool) -> None:
    assert bool(remark_on_clock(lambda: state)) == remarks
    assert remark_on_clock() in ("", remark_on_clock(lambda: 5))
    assert datetime.now(timezone.utc) > now() - HOUR


@pytest.mark.parametrize(
    ("storage", "says"),
    [
        ({}, ""),
        ({"redirect": "all"}, "directory"),
        ({"redirect": "public", "backend": "s3", "endpoint": "http://s3"}, "not https"),
        ({"redirect": "all", "backend": "s3", "endpoint": "http://s3"}, "not https"),
        ({"redirect": "all", "backend": "s3", "endpoint": "https://s3"}, ""),
    ],
)
def test_what_keeps_downloads_from_going_to_the_store_is_remarked(
    storage: dict[str, Any], says: str
) -> None:
    remark = remark_on_redirect(Storage(**storage))
    assert says in remark
    assert bool(says) == bool(remark)


def test_the_credentials_and_cas_of_an_object_store_are_looked_at(
    place: Place, tmp_path: Path
) -> None:
    keys, cas = tmp_path / "s3-credentials", tmp_path / "s3-cas.pem"
    place.config.write_text(
        place.config.read_text() + "[storage]\nbackend = s3\nendpoint = https://s3.example.org\n"
        f"bucket = images\ncredentials = {keys}\nca_file = {cas}\n"
    )
    for told in (f"{keys} cannot be read", "run: chmod 600", f"{cas} holds no CA"):
        status, _, (line,) = place.check()
        assert (status, told in line) == (1, True), line
        if keys.exists():
            keys.chmod(0o600)
        else:
            keys.write_text("[default]\naws_access_key_id = K\naws_secret_access_key = S\n")
            keys.chmod(0o644)
    (authority_file,) = (place.grid.directory.path).glob("*.0")
    cas.write_bytes(authority_file.read_bytes())
    assert place.check() == (0, "The configuration is good.\n", [])
