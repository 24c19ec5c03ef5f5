"""More attacks than the list has, with the legacy option off and on."""

from __future__ import annotations

import pytest
import pytest_twisted
from attrs import evolve
from OpenSSL import SSL

from tests.credentials import (
    CA_USAGE,
    DIGITAL_SIGNATURE,
    HOUR,
    KEY_ENCIPHERMENT,
    Credential,
    Extension,
    Grid,
    authority,
    basic_constraints,
    certificate,
    der,
    draft_proxy_cert_info,
    end_entity,
    extended_key_usage,
    key_usage,
    now,
    proxy_cert_info,
    rdn,
    rdns,
    rsa_key,
    seq,
)
from tests.tls.door import HOSTILE, Door

pytestmark = HOSTILE

ROGER = "/C=CA/O=Grid/CN=Roger Impey"
MAKERS = ["proxy", "legacy_proxy", "draft_proxy"]


@pytest.fixture
def roger(grid: Grid) -> Credential:
    return grid.user()


@pytest.mark.parametrize("length", [1, 1000])
@pytest_twisted.ensureDeferred
async def test_a_sub_ca_beyond_its_path_length_hidden_by_a_proxys(
    door: Door, grid: Grid, length: int
) -> None:
    """OpenSSL adds the path length that a proxy claims to that of the CAs."""
    sub = authority("/C=CA/O=Grid/CN=Sub CA", grid.ca, path_length=0)
    sub_sub = authority("/C=CA/O=Grid/CN=Sub Sub CA", sub)
    user = end_entity(ROGER, sub_sub)
    for credential in (user, user.proxy(path_length=length), user.legacy_proxy()):
        await door.refuses(credential)
    assert "so many below it" in await door.refuses(user.proxy(path_length=length))
    await door.refuses(user.draft_proxy(path_length=length))


@pytest_twisted.ensureDeferred
async def test_a_ca_that_changed_its_key_is_not_a_ca_below_itself(door: Door, grid: Grid) -> None:
    """Self-issued certificates do not count (RFC 5280, 6.1.4 l)."""
    sub = authority("/C=CA/O=Grid/CN=Sub CA", grid.ca, path_length=0)
    renewed = authority("/C=CA/O=Grid/CN=Sub CA", sub, key=rsa_key("renewed"))
    user = end_entity(ROGER, renewed)
    assert (await door.welcomes(user)).subject == ROGER
    assert (await door.welcomes(user.proxy())).subject == ROGER


@pytest.mark.parametrize("make", MAKERS)
@pytest_twisted.ensureDeferred
async def test_name_constraints_of_a_sub_ca_hold_behind_proxies(
    door: Door, grid: Grid, make: str
) -> None:
    """Only below /C=CA/O=Else (RFC 5280, 4.2.1.10)."""
    permitted = der(0xA0, seq(der(0xA4, seq(rdns("/C=CA/O=Else")))))
    constraints = Extension("2.5.29.30", seq(permitted), critical=True)
    sub = authority("/C=CA/O=Grid/CN=Sub CA", grid.ca, more=[constraints])
    outside = end_entity(ROGER, sub)
    await door.refuses(outside)
    await door.refuses(getattr(outside, make)())


@pytest_twisted.ensureDeferred
async def test_a_sub_ca_without_the_right_to_sign(door: Door, grid: Grid) -> None:
    for extensions in (
        [basic_constraints(True), key_usage(DIGITAL_SIGNATURE)],
        [basic_constraints(False), CA_USAGE],
        [CA_USAGE],
        [],
    ):
        sub = grid.ca.issue("/C=CA/O=Grid/CN=Sub CA", rsa_key("sub"), extensions)
        user = end_entity(ROGER, sub)
        for credential in (user, user.proxy(), user.legacy_proxy(), user.draft_proxy()):
            await door.refuses(credential)


@pytest_twisted.ensureDeferred
async def test_a_sub_ca_for_servers_only(door: Door, grid: Grid) -> None:
    purpose = extended_key_usage("1.3.6.1.5.5.7.3.1")
    sub = authority("/C=CA/O=Grid/CN=Sub CA", grid.ca, more=[purpose])
    user = end_entity(ROGER, sub)
    for credential in (user, user.proxy(), user.legacy_proxy()):
        await door.refuses(credential)


@pytest_twisted.ensureDeferred
async def test_an_expired_root(door: Door, grid: Grid) -> None:
    old = authority("/C=XX/CN=Old", ends=now() - HOUR / 2)
    grid.directory.add(old)
    door.tls.load()
    user = end_entity("/C=XX/CN=Anna", old)
    for credential in (user, user.proxy(), user.legacy_proxy()):
        await door.refuses(credential)


@pytest_twisted.ensureDeferred
async def test_a_root_of_the_same_name_and_another_key(door: Door, grid: Grid) -> None:
    fake = authority("/C=CA/O=Grid/CN=Test CA", key=rsa_key("fake"))
    for user in (end_entity(ROGER, fake), end_entity(ROGER, fake, identifiers=False)):
        for credential in (user, user.proxy(), user.legacy_proxy()):
            await door.refuses(credential, send=(*credential.sent, fake))
            await door.refuses(credential, send=(*credential.sent, grid.ca))


@pytest.mark.parametrize("make", MAKERS)
@pytest_twisted.ensureDeferred
async def test_somebody_elses_certificate_with_my_key(
    door: Door, roger: Credential, grid: Grid, make: str
) -> None:
    """The certificate is public; without its key nobody can use it."""
    stolen = evolve(roger, key=rsa_key("mallory"))
    with pytest.raises(SSL.Error, match="mismatch"):
        await door.visit(stolen)
    await door.refuses(getattr(stolen, make)(identifiers=False), send=[roger])


@pytest.mark.parametrize("make", MAKERS)
@pytest_twisted.ensureDeferred
async def test_a_signature_with_one_bit_changed(door: Door, roger: Credential, make: str) -> None:
    for flawed in (roger, getattr(roger, make)()):
        broken = flawed.der[:-1] + bytes([flawed.der[-1] ^ 1])
        credential = evolve(flawed, der=broken)
        await door.refuses(credential)
        await door.refuses(getattr(credential, make)())


@pytest_twisted.ensureDeferred
async def test_a_proxy_with_the_serial_and_key_of_its_issuer(door: Door, roger: Credential) -> None:
    """Odd, but arcproxy reuses serial numbers, and a key is its holder's business."""
    twin = roger.proxy(serial=roger.serial, key=roger.key)
    assert (await door.welcomes(twin)).subject == ROGER
    assert (await door.welcomes(twin.proxy(serial=roger.serial))).subject == ROGER


@pytest_twisted.ensureDeferred
async def test_a_legacy_name_in_another_case_is_no_legacy_proxy(
    door: Door, roger: Credential
) -> None:
    for last in ("Proxy", "PROXY", "limited  proxy", "Limited Proxy", "proxy2"):
        await door.refuses(roger.legacy_proxy(name=roger.subject + rdn(("CN", last))))


@pytest_twisted.ensureDeferred
async def test_limited_by_name_and_full_by_extension(door: Door, roger: Credential) -> None:
    """A limited legacy proxy must not become full through an extension."""
    limited = roger.legacy_proxy(limited=True)
    for info in (proxy_cert_info(), draft_proxy_cert_info()):
        await door.refuses(limited.proxy(info=info))


@pytest_twisted.ensureDeferred
async def test_both_extensions_at_once(door: Door, roger: Credential) -> None:
    for more in ([draft_proxy_cert_info()], [draft_proxy_cert_info(critical=False)]):
        await door.refuses(roger.proxy(more=more))


@pytest_twisted.ensureDeferred
async def test_an_old_proxy_below_a_revoked_or_expired_person(door: Door, grid: Grid) -> None:
    expired = grid.user(ends=now() - HOUR / 2)
    revoked = grid.user("Revoked")
    grid.revoke(revoked)
    door.tls.load()
    for user in (expired, revoked):
        for make in MAKERS:
            await door.refuses(getattr(user, make)())
            await door.refuses(getattr(getattr(user, make)(), make)())


@pytest_twisted.ensureDeferred
async def test_an_expired_old_proxy(door: Door, roger: Credential) -> None:
    for make in MAKERS:
        await door.refuses(getattr(roger, make)(ends=now() - HOUR / 2))
        await door.refuses(getattr(getattr(roger, make)(ends=now() - HOUR / 2), make)())


@pytest_twisted.ensureDeferred
async def test_a_chain_of_names_without_signatures(door: Door, grid: Grid) -> None:
    """Every name is right and every signature is its own."""
    names = [ROGER + "/CN=1/CN=2", ROGER + "/CN=1", ROGER]
    keys = [rsa_key(f"own {number}") for number in range(3)]
    chain = [
        certificate(name, key, [proxy_cert_info()] if "CN=1" in name else [], identifiers=False)
        for name, key in zip(names, keys, strict=True)
    ]
    await door.refuses(chain[0], send=[*chain[1:], grid.ca])


@pytest_twisted.ensureDeferred
async def test_critical_extensions_that_only_an_old_proxy_may_have(
    door: Door, grid: Grid, roger: Credential
) -> None:
    """What OpenSSL does not know is forgiven to a draft proxy's ProxyCertInfo, to nothing else."""
    odd = Extension("1.2.3.4", b"\x05\x00", critical=True)
    draft = draft_proxy_cert_info()
    await door.refuses(roger.draft_proxy(more=[odd]))
    await door.refuses(roger.legacy_proxy(more=[odd]))
    for user in (end_entity(ROGER, grid.ca, more=[odd]), end_entity(ROGER, grid.ca, more=[draft])):
        for credential in (user, user.draft_proxy(), user.legacy_proxy(), user.proxy()):
            await door.refuses(credential)
    sub = authority("/C=CA/O=Grid/CN=Sub CA", grid.ca, more=[draft])
    await door.refuses(end_entity(ROGER, sub).draft_proxy())


@pytest_twisted.ensureDeferred
async def test_key_agreement_is_enough_for_openssl_and_not_for_a_proxy(
    door: Door, grid: Grid
) -> None:
    user = grid.user(usage=key_usage(4, KEY_ENCIPHERMENT))
    for make in MAKERS:
        await door.refuses(getattr(user, make)())
