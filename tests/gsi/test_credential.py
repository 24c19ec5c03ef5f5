"""Reading a user's credential, with the command to run when it is not fit."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)

from repoman.errors import CredentialProblem, TrustUnreadable
from repoman.gsi.credential import ClientCredential, read_host_credential
from repoman.gsi.host import host_faults, host_names, proves_name
from tests.credentials import HOUR, Grid, ed25519_key, host, now, p256_key, rsa_key, write_private


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    return Grid(tmp_path)


@pytest.mark.parametrize("key", [rsa_key, p256_key, ed25519_key])
def test_a_proxy_is_one_file(grid: Grid, tmp_path: Path, key) -> None:
    proxy = grid.user().proxy().proxy(key=key("x"))
    read = ClientCredential.read(proxy.write(tmp_path / "x509up"), now=now())
    assert read.credential.certificate == proxy.certificate
    assert [c.subject for c in read.credential.chain] == [c.subject for c in proxy.path[1:-1]]
    assert read.not_after == min(c.not_valid_after_utc for c in proxy.path)


def test_a_key_may_come_through_a_pipe(grid: Grid, tmp_path: Path) -> None:
    """As bash has it: ``--key <(...)``."""
    user = grid.user()
    user.write_pair(tmp_path / "cert", tmp_path / "key")
    slowly = "sleep 0.2; cat key"
    with subprocess.Popen(["sh", "-c", slowly], cwd=tmp_path, stdout=subprocess.PIPE) as pipe:
        key = Path(f"/dev/fd/{pipe.stdout.fileno()}")
        assert ClientCredential.read(tmp_path / "cert", key).credential.chain == ()


def test_certificate_and_key_are_two(grid: Grid, tmp_path: Path) -> None:
    user = grid.user()
    user.write_pair(tmp_path / "cert", tmp_path / "key")
    (tmp_path / "cert").chmod(0o644)
    assert ClientCredential.read(tmp_path / "cert", tmp_path / "key").credential.chain == ()


def test_the_end_of_the_first_counts(grid: Grid, tmp_path: Path) -> None:
    soon = now() + HOUR
    proxy = grid.user(ends=soon).proxy()
    assert ClientCredential.read(proxy.write(tmp_path / "x509up")).not_after == soon


@contextmanager
def alarm(seconds: int) -> Iterator[None]:
    def too_long(number, frame):
        raise TimeoutError(f"it took {seconds} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def refused(path: Path, key: Path | None = None) -> str:
    with pytest.raises(CredentialProblem) as problem:
        ClientCredential.read(path, key, now=now())
    assert "\n" not in problem.value.message
    return problem.value.message


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_readable_by_others(grid: Grid, tmp_path: Path, mode: int) -> None:
    path = grid.user().proxy().write(tmp_path / "x509up")
    path.chmod(mode)
    assert f"run: chmod 600 {path}" in refused(path)


def test_missing(tmp_path: Path) -> None:
    assert "cannot be read (No such file or directory)" in refused(tmp_path / "nowhere")
    assert "Make a proxy with grid-proxy-init." in refused(tmp_path / "nowhere")


def test_expired(grid: Grid, tmp_path: Path) -> None:
    path = grid.user().proxy(ends=now() - HOUR / 2).write(tmp_path / "x509up")
    assert "expired at" in refused(path)
    assert "make a new proxy with grid-proxy-init" in refused(path)
    assert ClientCredential.read(path).not_after < now()


def test_not_what_it_should_be(grid: Grid, tmp_path: Path) -> None:
    user, other = grid.user(), grid.user("Anna")
    empty = write_private(tmp_path / "empty", b"")
    certificate_only = write_private(tmp_path / "certificate", user.pem())
    key_only = write_private(tmp_path / "key", user.key_pem())
    mixed = write_private(tmp_path / "mixed", user.pem() + other.key_pem())
    broken = write_private(tmp_path / "broken", user.pem() + user.key_pem()[:200])
    secret = user.key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    )
    locked = write_private(tmp_path / "locked", user.pem() + secret)
    assert "holds no certificate" in refused(empty)
    assert "holds no certificate" in refused(key_only)
    assert "holds no private key" in refused(certificate_only)
    assert "holds no private key" in refused(broken)
    assert "does not belong to the certificate" in refused(mixed)
    assert "protected by a pass phrase" in refused(locked)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_of_another_user(grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody could put a proxy of theirs where mine is looked for."""
    path = grid.user().proxy().write(tmp_path / "x509up")
    os.chown(path, 12345, 12345)
    for uid in (54321, 0):
        monkeypatch.setattr(os, "geteuid", lambda uid=uid: uid)
        assert "belongs to another user (uid 12345)" in refused(path)
    assert ClientCredential.read(path, owners={12345})


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("whose", ["cert", "key"])
def test_half_a_credential_of_another_user(grid: Grid, tmp_path: Path, whose: str) -> None:
    """The certificate, too: somebody may have signed a proxy of theirs for my public key."""
    grid.user().write_pair(tmp_path / "cert", tmp_path / "key")
    os.chown(tmp_path / whose, 12345, 12345)
    assert f"{whose} belongs to another user" in refused(tmp_path / "cert", tmp_path / "key")


def test_what_never_ends_is_not_read_to_its_end() -> None:
    with alarm(5):
        assert "holds no certificate" in refused(Path("/dev/zero"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_link_of_anothers_that_moves_between_looking_and_reading(
    grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = grid.user().proxy()
    theirs = grid.user("Anna").proxy().write(tmp_path / "theirs")
    os.chown(mine.write(tmp_path / "mine"), 54321, 54321)
    os.chown(theirs, 12345, 12345)
    link = tmp_path / "x509up"
    link.symlink_to("mine")
    look = os.stat

    def look_and_move(path, **how):
        seen = look(path, **how)
        if path == link:
            link.unlink()
            link.symlink_to("theirs")
        return seen

    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    monkeypatch.setattr(os, "stat", look_and_move)
    with suppress(CredentialProblem):
        assert ClientCredential.read(link).credential.certificate == mine.certificate


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_pipe_of_another_user_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x509up"
    os.mkfifo(path, 0o644)
    os.chown(path, 12345, 12345)
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    with alarm(5):
        assert "belongs to another user" in refused(path)


def test_a_host_without_a_usable_credential(grid: Grid, tmp_path: Path) -> None:
    certificate, key = grid.host("localhost")
    with pytest.raises(TrustUnreadable, match=r"nowhere cannot be read.*Set certificate and key"):
        read_host_credential(tmp_path / "nowhere", key)
    with pytest.raises(TrustUnreadable, match="holds no private key"):
        read_host_credential(certificate, certificate)


def test_what_an_operator_should_mend(grid: Grid, tmp_path: Path) -> None:
    certificate, key = grid.host("www.example.org")
    host_credential = read_host_credential(certificate, key)
    assert list(host_faults(host_credential, certificate, key, now())) == []
    later = now() + 1000 * 24 * HOUR
    assert "clients refuse it now" in next(host_faults(host_credential, certificate, key, later))
    key.chmod(0o644)
    nameless = host(grid.ca, subject="/C=CA/O=Grid/CN=www.example.org")
    certificate.write_bytes(nameless.pem())
    key.write_bytes(nameless.key_pem())
    told = list(host_faults(read_host_credential(certificate, key), certificate, key, now()))
    assert f"run: chmod 600 {key}" in told[0]
    assert "no subjectAltName" in told[1]


def test_the_names_of_a_host(grid: Grid) -> None:
    made = host(grid.ca, "www.example.org", "*.example.org", "10.0.0.1", "::1").certificate
    assert host_names(made) == ("www.example.org", "10.0.0.1", "::1")
    assert host_names(grid.user().certificate) == ()
    for name in ("www.example.org", "WWW.Example.ORG", "x.example.org", "10.0.0.1", "::1"):
        assert proves_name(made, name)
    for name in ("example.org", "a.b.example.org", "10.0.0.2", "::2", "", "*", "*.example.org"):
        assert not proves_name(made, name), name
