"""A CA directory as fetch-crl and the IGTF leave it, and with what goes wrong in it."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest
from attrs import evolve

import repoman.gsi.trust
from repoman.errors import TrustUnreadable
from repoman.gsi.ca_directory import CADirectory, build, read_authorities
from repoman.gsi.ca_files import fingerprint, read_files
from repoman.gsi.steps import finish
from repoman.gsi.trust import Trust
from tests.credentials import (
    DAY,
    HOUR,
    Credential,
    Extension,
    Grid,
    authority,
    crl,
    end_entity,
    name_hash,
    now,
    octets,
    rsa_key,
    signing_policy,
)


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    return Grid(tmp_path)


def read(grid: Grid) -> CADirectory:
    return finish(build(read_files(grid.directory.path)))


def faults(grid: Grid, **choices: str) -> list[str]:
    return Trust(read(grid), **choices).faults(now())  # type: ignore[arg-type]  # modes are words


def identity(grid: Grid, credential: Credential, **choices: str) -> object:
    trust = Trust(read(grid), **choices)  # type: ignore[arg-type]  # modes are words
    return trust.judge(credential.path, now()).identity


def test_a_sound_directory(grid: Grid) -> None:
    (grid.directory.path / "notes.txt").write_text("not looked at")
    (grid.directory.path / "CA.crl_url").write_text("nor this")
    directory = read(grid)
    (ca,) = directory.authorities
    assert ca.names == (f"{name_hash(grid.ca)}.0",)
    assert [file.name for file in ca.crls] == [f"{name_hash(grid.ca)}.r0"]
    assert [policy.file for policy in ca.policies] == [f"{name_hash(grid.ca)}.signing_policy"]
    assert faults(grid, crl="require", signing_policy="require") == []


def test_links_and_both_kinds_of_hashes(grid: Grid) -> None:
    """As the IGTF ships it: one file per CA, and links by the old and the new hash."""
    place, hashed = grid.directory.path, name_hash(grid.ca)
    for kind, other in (("0", "pem"), ("signing_policy", "signing_policy")):
        (place / f"{hashed}.{kind}").rename(place / f"Test-CA.{other}")
        for link in (hashed, "0a1b2c3d"):
            (place / f"{link}.{kind}").symlink_to(f"Test-CA.{other}")
    (place / "0a1b2c3d.r0").write_bytes((place / f"{hashed}.r0").read_bytes())
    directory = read(grid)
    assert len(directory.authorities) == 1
    assert len(directory.authorities[0].policies) == 2
    assert faults(grid) == []
    assert identity(grid, grid.user().proxy())


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("12345678.0", b"broken", "12345678.0 holds no CA certificate"),
        ("12345678.0", b"", "12345678.0 holds no CA certificate"),
        ("12345678.r0", b"broken", "12345678.r0 holds no CRL"),
        ("HASH.signing_policy", b"broken", "HASH.signing_policy has a line 1"),
        ("HASH.signing_policy", b"\xff\xfe", "HASH.signing_policy has a line 1"),
        ("HASH.namespaces", b"broken", "HASH.namespaces has a statement"),
        ("HASH.r0", b"broken", "HASH.r0 holds no CRL"),
    ],
)
def test_broken_files_are_reported_by_name(
    grid: Grid, name: str, content: bytes, words: str
) -> None:
    hashed = name_hash(grid.ca)
    (grid.directory.path / name.replace("HASH", hashed)).write_bytes(content)
    assert any(words.replace("HASH", hashed) in fault for fault in faults(grid))
    assert len(read(grid).authorities) == 1


def test_files_that_cannot_be_read_are_reported_by_name(grid: Grid) -> None:
    hashed = name_hash(grid.ca)
    for name in ("12345678.0", "12345678.r0", f"{hashed}.namespaces"):
        (grid.directory.path / name).symlink_to("nowhere")
    told = faults(grid)
    for name in ("12345678.0", "12345678.r0", f"{hashed}.namespaces"):
        assert any(fault.startswith(f"{name} cannot be read (No such file") for fault in told)
    assert identity(grid, grid.user()) is None  # a policy is there, and nobody can read it


def test_what_is_missing_or_over_is_reported(grid: Grid) -> None:
    lone = authority("/C=XX/CN=Lone")
    old = authority("/C=XX/CN=Old", ends=now() - HOUR / 2)
    for ca in (lone, old):
        grid.directory.add(ca, revokes=None)
    told = faults(grid, crl="require", signing_policy="require")
    assert any(f"{name_hash(lone)}.0 (/C=XX/CN=Lone) has no CRL" in fault for fault in told)
    assert any("/C=XX/CN=Lone) has no signing policy" in fault for fault in told)
    assert any("/C=XX/CN=Old) expired at" in fault for fault in told)
    assert faults(grid) == [fault for fault in told if "expired" in fault]


@pytest.mark.parametrize(
    ("begins", "ends", "words"), [(-9, -1, "expired at"), (1, 9, "not valid before")]
)
def test_crls_out_of_time_are_reported(grid: Grid, begins: int, ends: int, words: str) -> None:
    content = crl(grid.ca, begins=now() + begins * DAY, ends=now() + ends * DAY)
    (grid.directory.path / f"{name_hash(grid.ca)}.r0").write_bytes(content)
    assert any(words in fault and "run fetch-crl" in fault for fault in faults(grid))
    assert faults(grid, crl="off") == []
    for mode in ("require", "if-present"):
        assert identity(grid, grid.user().proxy(), crl=mode) is None
    assert identity(grid, grid.user().proxy(), crl="off")


def test_der_is_read_too(grid: Grid) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    path = grid.directory.path / f"{name_hash(grid.ca)}.r0"
    user = grid.user()
    path.write_bytes(x509.load_pem_x509_crl(crl(grid.ca, [user])).public_bytes(Encoding.DER))
    assert faults(grid) == []
    assert identity(grid, user) is None


def test_the_name_in_a_file_counts_not_the_hash(grid: Grid) -> None:
    user = grid.user()
    grid.revoke(user)
    hashed = name_hash(grid.ca)
    (grid.directory.path / f"{hashed}.r0").rename(grid.directory.path / "deadbeef.r0")
    assert identity(grid, user) is None


def test_two_cas_of_one_name(grid: Grid) -> None:
    """A CA changes its key, and both are in use for a while."""
    new = authority("/C=CA/O=Grid/CN=Test CA", key=rsa_key("new"))
    hashed = name_hash(grid.ca)
    (grid.directory.path / f"{hashed}.1").write_bytes(new.pem())
    mine, theirs = grid.user(), end_entity("/C=CA/O=Grid/CN=Anna", new)
    (grid.directory.path / f"{hashed}.r1").write_bytes(crl(new, [theirs]))
    assert faults(grid, crl="require") == []
    assert identity(grid, mine.proxy(), crl="require")
    assert identity(grid, theirs.proxy(), crl="require") is None


def test_a_renewed_certificate_is_the_same_ca(grid: Grid) -> None:
    renewed = authority("/C=CA/O=Grid/CN=Test CA")
    assert renewed.der != grid.ca.der
    grid.directory.add(renewed)
    directory = read(grid)
    assert directory.find(grid.ca.certificate).certificate == renewed.certificate
    assert not directory.trusts(grid.ca.certificate)


def test_both_policies_must_allow(grid: Grid) -> None:
    namespaces = grid.directory.path / f"{name_hash(grid.ca)}.namespaces"
    namespaces.write_text('TO Issuer SELF PERMIT Subject "/C=CA/O=Grid/CN=R.*"\n')
    assert identity(grid, grid.user("Roger"))
    assert identity(grid, grid.user("Anna")) is None
    assert identity(grid, end_entity("/C=XX/CN=R", grid.ca)) is None


def test_delta_and_indirect_crls_are_no_crls(grid: Grid) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding

    extensions: list[x509.ExtensionType] = [
        x509.DeltaCRLIndicator(1),
        x509.IssuingDistributionPoint(None, None, False, False, None, True, False),
        x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"\x05\x00"),
    ]
    for extension in extensions:
        made = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(grid.ca.certificate.subject)
            .last_update(now() - HOUR)
            .next_update(now() + HOUR)
            .add_extension(extension, critical=True)
            .sign(grid.ca.key, hashes.SHA256())
        )
        path = grid.directory.path / f"{name_hash(grid.ca)}.r0"
        path.write_bytes(made.public_bytes(Encoding.PEM))
        assert any(path.name in fault for fault in faults(grid))
        assert identity(grid, grid.user()) is None


def test_the_crl_of_a_sub_ca_that_only_the_client_shows(grid: Grid) -> None:
    sub = authority("/C=CA/O=Grid/CN=Sub CA", grid.ca)
    user, other = end_entity("/C=CA/O=Grid/CN=A", sub), end_entity("/C=CA/O=Grid/CN=B", sub)
    path = grid.directory.path / f"{name_hash(sub)}.r0"
    path.write_bytes(crl(sub, [user]))
    assert identity(grid, user) is None
    assert identity(grid, other)
    path.write_bytes(crl(sub, key=rsa_key("mallory")))
    assert identity(grid, other) is None


def test_a_proxy_of_a_user_is_not_looked_up(grid: Grid) -> None:
    user = grid.user()
    (grid.directory.path / "deadbeef.r0").write_bytes(crl(user, [1]))
    assert identity(grid, user.proxy(serial=1))


def test_no_directory(tmp_path: Path) -> None:
    with pytest.raises(TrustUnreadable, match="install your grid's CA certificates"):
        read_files(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(TrustUnreadable, match="Not a directory"):
        read_files(tmp_path / "file")


def test_only_the_certificates(grid: Grid) -> None:
    (ca,) = read_authorities(grid.directory.path).authorities
    assert ca.crls == ca.policies == ()


@pytest.mark.parametrize("change", ["rewrite", "replace", "remove", "add", "host certificate"])
def test_the_fingerprint_tells_a_change(grid: Grid, change: str) -> None:
    certificate, key = grid.host("localhost")
    paths = [grid.directory.path, certificate, key, grid.place / "missing"]
    path = grid.directory.path / f"{name_hash(grid.ca)}.r0"
    before = fingerprint(paths)
    assert fingerprint(paths) == before
    if change == "rewrite":
        path.write_bytes(path.read_bytes())
        os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
    elif change == "replace":
        status = path.stat()
        (grid.place / "new").write_bytes(path.read_bytes())
        os.utime(grid.place / "new", ns=(status.st_atime_ns, status.st_mtime_ns))
        (grid.place / "new").rename(path)
    elif change == "remove":
        path.unlink()
    elif change == "add":
        grid.directory.add(authority("/CN=x"), policy=signing_policy("/CN=x", "/*"))
    else:
        os.utime(certificate, ns=(1, 1))
    assert fingerprint(paths) != before


def test_an_answer_holds_until_the_first_end(grid: Grid) -> None:
    path = grid.directory.path / f"{name_hash(grid.ca)}.r0"
    soon = now() + timedelta(minutes=5)
    path.write_bytes(crl(grid.ca, ends=soon))
    user = grid.user().proxy(ends=now() + HOUR)
    assert Trust(read(grid)).judge(user.path, now()).holds_until == soon
    assert Trust(read(grid), "off").judge(user.path, now()).holds_until == (
        user.certificate.not_valid_after_utc
    )
    assert evolve(Trust(read(grid)), generation=7).judge(user.path, now()).generation == 7


def test_a_good_verdict_is_kept_while_it_holds(grid: Grid) -> None:
    trust, proxy = Trust(read(grid)), grid.user().proxy(ends=now() + HOUR)
    first = trust.judge(proxy.path, now())
    assert trust.judge(proxy.path, now()) is first
    assert trust.judge(proxy.path, now() + HOUR + DAY).identity is None
    assert Trust(read(grid)).judge(proxy.path, now()) is not first
    assert trust.judge(proxy.path, now(), [(79, 1)]).identity is None


def test_a_verdict_is_about_the_whole_chain(grid: Grid) -> None:
    """The same proxy below another root, or what the handshake put off, is another matter."""
    trust, proxy = Trust(read(grid)), grid.user().proxy()
    assert trust.judge(proxy.path, now()).identity
    fake = authority("/C=CA/O=Grid/CN=Test CA", key=rsa_key("fake"))
    assert trust.judge([*proxy.path[:-1], fake.certificate], now()).identity is None


def test_strangers_fill_no_memory(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repoman.gsi.trust, "REMEMBERED", 3)
    trust, user = Trust(read(grid)), grid.user()
    for _ in range(10):
        assert trust.judge(user.proxy().path, now()).identity
        assert len(trust._welcome) <= 3
        assert trust.judge(user.proxy(limited=True).proxy().path, now()).identity is None
    trust = Trust(read(grid))
    large = user.proxy(more=[Extension("1.2.3", octets(bytes(20_000)))])
    assert trust.judge(large.path, now()).identity
    assert not trust._welcome
