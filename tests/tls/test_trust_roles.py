"""Cases 25 to 33: who plays which part, with the legacy option off and on."""

from __future__ import annotations

import pytest
import pytest_twisted

from tests.credentials import (
    CA_USAGE,
    CERT_SIGN,
    CRL_SIGN,
    DIGITAL_SIGNATURE,
    KEY_AGREEMENT,
    KEY_ENCIPHERMENT,
    SERVER_AUTH,
    Credential,
    Extension,
    Grid,
    alternative_names,
    authority,
    basic_constraints,
    bits,
    draft_proxy_cert_info,
    end_entity,
    extended_key_usage,
    key_usage,
    proxy_cert_info,
    rdn,
    rdns,
    rsa_key,
)
from tests.tls.door import HOSTILE, Door

pytestmark = HOSTILE

ROGER = "/C=CA/O=Grid/CN=Roger Impey"
MAKERS = ["proxy", "legacy_proxy", "draft_proxy"]


@pytest.fixture
def roger(grid: Grid) -> Credential:
    return grid.user()


@pytest.mark.parametrize("make", MAKERS)
@pytest_twisted.ensureDeferred
async def test_case_25_a_proxy_issued_by_a_ca(door: Door, grid: Grid, make: str) -> None:
    sub = authority("/C=CA/O=Grid/CN=Sub CA", grid.ca)
    for ca in (grid.ca, sub):
        await door.refuses(getattr(ca, make)())
        await door.refuses(getattr(ca, make)().proxy())


@pytest.mark.parametrize("info", [proxy_cert_info(), draft_proxy_cert_info()])
@pytest_twisted.ensureDeferred
async def test_case_25_an_end_entity_that_claims_to_be_a_proxy(
    door: Door, grid: Grid, info: Extension
) -> None:
    for name in (ROGER, ROGER + "/CN=123"):
        await door.refuses(end_entity(name, grid.ca, more=[info]))


@pytest_twisted.ensureDeferred
async def test_case_26_a_ca_issues_what_is_named_like_rogers_proxy(
    door: Door, grid: Grid, roger: Credential
) -> None:
    for last in ("proxy", "limited proxy"):
        impostor = end_entity(f"{ROGER}/CN={last}", grid.ca)
        for credential in (impostor, impostor.proxy(), impostor.legacy_proxy()):
            await door.refuses(credential)
            await door.refuses(credential, send=(*credential.sent, roger))


@pytest_twisted.ensureDeferred
async def test_case_26_a_ca_issues_a_name_under_rogers(door: Door, grid: Grid) -> None:
    name = rdns(ROGER) + rdn(("CN", "host/evil"))
    evil = end_entity(name, grid.ca)
    for credential in (evil, evil.proxy()):
        assert (await door.welcomes(credential)).subject == ROGER + "/CN=host\\/evil"
    other = end_entity(ROGER + "/CN=1234", grid.ca)
    assert (await door.welcomes(other.proxy())).subject == ROGER + "/CN=1234"


@pytest_twisted.ensureDeferred
async def test_case_27_an_end_entity_signs_another_name(
    door: Door, grid: Grid, roger: Credential
) -> None:
    for name in ("/C=CA/O=Grid/CN=Bob", ROGER, "/C=CA/O=Grid", ROGER + "/OU=x"):
        forged = end_entity(name, roger)
        for credential in (forged, forged.proxy(), forged.legacy_proxy(), forged.draft_proxy()):
            await door.refuses(credential)


@pytest_twisted.ensureDeferred
async def test_case_27_nor_one_whose_usage_is_for_signing(door: Door, grid: Grid) -> None:
    usage = key_usage(DIGITAL_SIGNATURE, CERT_SIGN, CRL_SIGN)
    for user in (grid.user(usage=usage), grid.user(usage=None, purpose=None)):
        await door.refuses(end_entity("/C=CA/O=Grid/CN=Bob", user))
        await door.refuses(end_entity("/C=CA/O=Grid/CN=proxy", user))


@pytest.mark.parametrize("make", MAKERS)
@pytest_twisted.ensureDeferred
async def test_case_28_a_proxy_signs_what_is_no_proxy(
    door: Door, roger: Credential, make: str
) -> None:
    proxy = getattr(roger, make)()
    for name in ("/C=CA/O=Grid/CN=Bob", ROGER, ROGER + "/CN=proxy"):
        await door.refuses(end_entity(name, proxy))
    await door.refuses(end_entity(proxy.subject + rdn(("CN", "1")), proxy))


@pytest_twisted.ensureDeferred
async def test_case_28_an_end_entity_signs_a_sub_ca(door: Door, grid: Grid) -> None:
    usage = key_usage(DIGITAL_SIGNATURE, CERT_SIGN)
    one = grid.user()
    for user in (one, grid.user(usage=usage), one.proxy(), one.legacy_proxy()):
        sub = authority("/C=CA/O=Grid/CN=Own CA", user)
        forged = end_entity("/C=CA/O=Grid/CN=Bob", sub)
        for credential in (sub, forged, forged.proxy(), forged.legacy_proxy()):
            await door.refuses(credential)


@pytest_twisted.ensureDeferred
async def test_case_28_a_sub_ca_named_like_a_proxy(door: Door, roger: Credential) -> None:
    for name in (roger.subject + rdn(("CN", "proxy")), roger.subject + rdn(("CN", "1"))):
        sub = roger.issue(name, rsa_key("sub"), [basic_constraints(True), CA_USAGE])
        for credential in (sub, end_entity("/C=CA/O=Grid/CN=Bob", sub), sub.legacy_proxy()):
            await door.refuses(credential)


@pytest.mark.parametrize("make", MAKERS)
@pytest_twisted.ensureDeferred
async def test_case_29_a_proxy_that_is_a_ca(door: Door, roger: Credential, make: str) -> None:
    for more in ([basic_constraints(True)], [basic_constraints(True, 0)]):
        proxy = getattr(roger, make)(more=more)
        await door.refuses(proxy)
        await door.refuses(proxy.proxy())
    for usage in (CA_USAGE, key_usage(DIGITAL_SIGNATURE, CERT_SIGN)):
        await door.refuses(getattr(roger, make)(usage=usage))


@pytest.mark.parametrize("make", MAKERS)
@pytest_twisted.ensureDeferred
async def test_case_29_a_proxy_that_signs_crls(door: Door, roger: Credential, make: str) -> None:
    await door.refuses(getattr(roger, make)(usage=key_usage(DIGITAL_SIGNATURE, CRL_SIGN)))


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("issuer", [False, True])
@pytest_twisted.ensureDeferred
async def test_case_30_a_proxy_with_alternative_names(
    door: Door, roger: Credential, make: str, issuer: bool
) -> None:
    proxy = getattr(roger, make)(more=[alternative_names("evil.example.org", issuer=issuer)])
    await door.refuses(proxy)
    await door.refuses(proxy.proxy())


@pytest.mark.parametrize("make", MAKERS)
@pytest_twisted.ensureDeferred
async def test_case_31_the_issuer_may_not_sign(door: Door, grid: Grid, make: str) -> None:
    for usage in (key_usage(KEY_ENCIPHERMENT), key_usage(KEY_AGREEMENT), key_usage(CERT_SIGN)):
        await door.refuses(getattr(grid.user(usage=usage), make)())
        await door.refuses(getattr(getattr(grid.user(), make)(usage=usage), make)())


@pytest_twisted.ensureDeferred
async def test_case_32_for_servers_only(door: Door, grid: Grid, roger: Credential) -> None:
    server = extended_key_usage(SERVER_AUTH)
    await door.refuses(grid.user(purpose=server))
    for make in MAKERS:
        await door.refuses(getattr(grid.user(purpose=server), make)())
        await door.refuses(getattr(roger, make)(more=[server]))
        await door.refuses(getattr(getattr(roger, make)(more=[server]), make)())


@pytest_twisted.ensureDeferred
async def test_case_32_by_netscapes_word_for_it(door: Door, grid: Grid) -> None:
    server = Extension("2.16.840.1.113730.1.1", bits(b"\x40", 6))
    client = Extension("2.16.840.1.113730.1.1", bits(b"\xb0", 4))
    await door.refuses(grid.user(more=[server]))
    for make in MAKERS:
        await door.refuses(getattr(grid.user(more=[server]), make)())
    await door.welcomes(grid.user(more=[client]).proxy())


@pytest_twisted.ensureDeferred
async def test_case_33_a_ca_as_client(door: Door, grid: Grid) -> None:
    sub = authority("/C=CA/O=Grid/CN=Sub CA", grid.ca)
    usage = key_usage(DIGITAL_SIGNATURE, CERT_SIGN)
    signing = grid.ca.issue(
        "/C=CA/O=Grid/CN=Sub CA", rsa_key("signing"), [basic_constraints(True), usage]
    )
    for ca in (grid.ca, sub, signing):
        await door.refuses(ca)
