"""An authority is its name and its key: another key under a trusted name takes nobody's users.

A second root lies in the directory, without a signing policy, and signs CAs that bear the first
one's name.  The first one has no CRL file, or CRLs are off: otherwise OpenSSL refuses already.
"""

from __future__ import annotations

import pytest
import pytest_twisted
from attrs import evolve

from tests.credentials import (
    CADirectory,
    Credential,
    Grid,
    authority,
    der,
    end_entity,
    name_hash,
    rdn,
    rdns,
    rsa_key,
    utf8,
)
from tests.tls.door import Door

ROGER = "/C=CA/O=Grid/CN=Roger Impey"
FIRST = "/C=CA/O=Grid/CN=Test CA"
SECOND = "/C=XX/CN=Second CA"
INSIDE = "/C=CA/O=Grid/CN=Inside"
IMPOSTOR = rsa_key("impostor")


def printable(text: str) -> bytes:
    return der(0x13, text.encode())


def t61(content: bytes) -> bytes:
    return der(0x14, content)


def bmp(text: str) -> bytes:
    return der(0x1E, text.encode("utf-16-be"))


def universal(text: str) -> bytes:
    return der(0x1C, text.encode("utf-32-be"))


GRID = rdn(("C", "CA")) + rdn(("O", "Grid"))
ALIKE = {
    "the same": rdns(FIRST),
    "another letter case": rdns("/C=ca/O=GRID/CN=test ca"),
    "more blanks": rdns("/C=CA/O=Grid/CN=Test   CA"),
    "PrintableString": b"".join(
        rdn((kind, printable(text)))
        for kind, text in (("C", "CA"), ("O", "Grid"), ("CN", "Test CA"))
    ),
    "T61String": GRID + rdn(("CN", t61(b"Test CA"))),
    "IA5String": GRID + rdn(("CN", der(0x16, b"Test CA"))),
    "BMPString": GRID + rdn(("CN", bmp("Test CA"))),
    "UniversalString": GRID + rdn(("CN", universal("tESt CA"))),
    "one RDN instead of two": rdn(("C", "CA"), ("O", "Grid")) + rdn(("CN", "Test CA")),
    "one RDN for all": rdn(("C", "CA"), ("O", "Grid"), ("CN", "Test CA")),
    "the other way round": rdn(("CN", "Test CA")) + rdn(("O", "Grid")) + rdn(("C", "CA")),
    "wide letters": GRID + rdn(("CN", "Ｔest CA")),
}


@pytest.fixture(params=["the first CA has no CRL", "crl = off"])
def second(request: pytest.FixtureRequest, grid: Grid, door: Door) -> Credential:
    """A second trusted root, where OpenSSL alone would let its impostors through."""
    second = authority(SECOND)
    CADirectory(grid.directory.path).add(second, revokes=None)
    if request.param == "crl = off":
        door.tls._settings = evolve(door.tls._settings, crl="off")
    else:
        (grid.directory.path / f"{name_hash(grid.ca)}.r0").unlink()
    door.tls.load()
    return second


async def refused(door: Door, credential: Credential) -> str:
    reason = await door.refuses(credential)
    assert "bears the name of one that is trusted here, but has another key" in reason
    return reason


@pytest.mark.parametrize("name", ALIKE.values(), ids=ALIKE)
@pytest_twisted.ensureDeferred
async def test_a_ca_that_bears_the_name_of_a_trusted_one_takes_no_users(
    door: Door, second: Credential, name: bytes
) -> None:
    impostor = authority(name, second, key=IMPOSTOR)
    roger = end_entity(ROGER, impostor)
    assert "/CN=" in await refused(door, roger)
    await refused(door, roger.proxy())
    # What the end entity calls its issuer is the impostor's to choose.
    called = end_entity(ROGER, impostor, issuer_name=rdns(FIRST))
    visit = await door.visit(called)
    visit.leave()
    assert visit.peer is None or visit.peer.identity is None


@pytest_twisted.ensureDeferred
async def test_a_trusted_name_is_refused_at_every_depth(door: Door, second: Credential) -> None:
    """As the issuer, above it, and above that; and the reason names the authority."""
    impostor = authority(FIRST, second, key=IMPOSTOR)
    between = authority("/C=XX/CN=Between", impostor)
    below = authority("/C=XX/CN=Below", between)
    for issuer in (impostor, between, below, authority(FIRST, between, key=rsa_key("another"))):
        assert f"The certificate authority {FIRST} bears" in await refused(
            door, end_entity(ROGER, issuer).proxy()
        )
    await door.welcomes(end_entity(ROGER, authority("/C=XX/CN=Honest", second)))


@pytest_twisted.ensureDeferred
async def test_the_name_of_a_trusted_sub_ca_is_as_safe_as_that_of_a_root(
    door: Door, grid: Grid, second: Credential
) -> None:
    sub = authority("/C=CA/O=Grid/CN=Sub CA", grid.ca)
    CADirectory(grid.directory.path).add(sub, revokes=None)
    door.tls.load()
    for name in ("/C=CA/O=Grid/CN=Sub CA", "/C=CA/O=Grid/CN=SUB CA"):
        await refused(door, end_entity(ROGER, authority(name, second, key=IMPOSTOR)))
    found = await door.welcomes(end_entity(ROGER, sub).proxy())
    assert found.issuer == "/C=CA/O=Grid/CN=Sub CA"


@pytest.mark.parametrize("name", [rdns(FIRST), ALIKE["PrintableString"]], ids=["same", "printable"])
@pytest_twisted.ensureDeferred
async def test_cross_signed_and_renewed_certificates_of_the_same_key_are_no_impostors(
    door: Door, grid: Grid, second: Credential, name: bytes
) -> None:
    crossed = authority(name, second, key=grid.ca.key)
    renewed = authority(name, key=grid.ca.key)
    for issuer in (crossed, renewed):
        found = await door.welcomes(end_entity(ROGER, issuer).proxy(), send=[
            end_entity(ROGER, issuer), issuer
        ])  # fmt: skip
        assert (found.subject, found.issuer) == (ROGER, FIRST)


@pytest_twisted.ensureDeferred
async def test_two_readings_of_a_name_take_nobody_in(door: Door, grid: Grid) -> None:
    """OpenSSL reads a T61String as Latin-1 where others read UTF-8: so one name is two."""
    first = authority("/CN=Gr\u00fcne CA")
    second = authority(SECOND)
    for ca in (first, second):
        CADirectory(grid.directory.path).add(ca, revokes=None)
    door.tls.load()
    impostor = authority("/CN=Gr\u00c3\u00bcne CA", second, key=IMPOSTOR)
    for called in (t61("Gr\u00fcne CA".encode()), der(0x16, "Gr\u00fcne CA".encode())):
        forged = end_entity(ROGER, impostor, issuer_name=rdn(("CN", called)))
        assert "calls its issuer" in await door.refuses(forged)
        assert "calls its issuer" in await door.refuses(forged.proxy())
    for name in ("Gru\u0308ne CA", "GR\u00dcNE CA"):
        alike = authority(rdn(("CN", utf8(name))), second, key=IMPOSTOR)
        await refused(door, end_entity(ROGER, alike))
    assert (await door.welcomes(end_entity(ROGER, first))).issuer == "/CN=Gr\u00fcne CA"


@pytest_twisted.ensureDeferred
async def test_an_identity_names_the_ca_of_the_directory_that_it_hangs_from(
    door: Door, grid: Grid
) -> None:
    directory = CADirectory(grid.directory.path)
    inside = authority(INSIDE, grid.ca)
    directory.add(inside, revokes=None)
    door.tls.load()
    outside = authority("/C=CA/O=Grid/CN=Outside", inside)
    further = authority("/C=CA/O=Grid/CN=Further", outside)
    for issuer, anchor, known in (
        (grid.ca, FIRST, True),
        (inside, FIRST, True),
        (outside, INSIDE, False),
        (further, INSIDE, False),
        (authority("/C=CA/O=Grid/CN=Deep", grid.ca), FIRST, False),
    ):
        found = await door.welcomes(end_entity(ROGER, issuer).proxy())
        assert (found.anchor, found.issuer_is_known) == (anchor, known)


@pytest_twisted.ensureDeferred
async def test_a_cross_signed_ca_hangs_where_its_own_name_and_key_lie(
    door: Door, grid: Grid
) -> None:
    """Whatever certificate of the key comes along, and however that writes the name."""
    directory = CADirectory(grid.directory.path)
    second, inside = authority(SECOND), authority(INSIDE, grid.ca)
    for ca in (second, inside):
        directory.add(ca, revokes=None)
    (directory.path / f"{name_hash(grid.ca)}.signing_policy").unlink()
    door.tls.load()
    for name in (INSIDE, "/C=CA/O=GRID/CN=INSIDE"):
        crossed = authority(name, second, key=inside.key)
        user = end_entity(ROGER, authority("/C=CA/O=Grid/CN=Below", crossed))
        found = await door.welcomes(user.proxy())
        assert found.anchor == INSIDE


@pytest_twisted.ensureDeferred
async def test_a_ca_that_is_put_in_or_taken_out_counts_at_the_next_request(
    door: Door, grid: Grid
) -> None:
    """On connections that are open already, too."""
    sub = authority("/C=CA/O=Grid/CN=Sub CA", grid.ca)
    visit = await door.visit(end_entity(ROGER, sub).proxy())
    assert visit.peer is not None
    assert visit.peer.identity is not None
    assert not visit.peer.identity.issuer_is_known
    hashed = CADirectory(grid.directory.path).add(sub)
    door.tls.load()
    known = (await visit.again()).identity
    assert known is not None
    assert known.issuer_is_known
    assert known.anchor == visit.peer.identity.anchor == FIRST
    for ending in ("0", "r0"):
        (grid.directory.path / f"{hashed}.{ending}").unlink()
    CADirectory(grid.directory.path).add(authority(sub.subject, key=IMPOSTOR))
    door.tls.load()
    assert "has another key" in (await visit.again()).refusal
    visit.leave()
