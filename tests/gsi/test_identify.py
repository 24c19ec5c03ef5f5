"""The pure pass alone, fed with chains that OpenSSL would not have let through.

It must not lean on OpenSSL more than it says: a chain is judged whole here.
"""

from __future__ import annotations

import pytest

from repoman.errors import CredentialRefused
from repoman.gsi.chain import divide
from repoman.gsi.proxy import ProxyRules, identify
from repoman.gsi.proxycertinfo import Flavour
from repoman.gsi.waivers import WAIVABLE, check_waivers
from repoman.model import Identity
from tests.credentials import (
    HOUR,
    SERVER_AUTH,
    Credential,
    Extension,
    authority,
    der,
    draft_proxy_cert_info,
    end_entity,
    extended_key_usage,
    key_usage,
    now,
    proxy_cert_info,
    rsa_key,
    seq,
)

ROGER = "/C=CA/O=Grid/CN=Roger Impey"
MAKERS = ["proxy", "legacy_proxy", "draft_proxy"]


@pytest.fixture(scope="module")
def ca() -> Credential:
    return authority("/C=CA/O=Grid/CN=Test CA")


@pytest.fixture(scope="module")
def roger(ca: Credential) -> Credential:
    return end_entity(ROGER, ca)


def who(credential: Credential) -> Identity:
    return identify(credential.path, now(), ProxyRules(legacy=True))


def refusal(credential: Credential) -> str:
    with pytest.raises(CredentialRefused) as refused:
        who(credential)
    return refused.value.message


@pytest.mark.parametrize("make", MAKERS)
def test_a_good_one(roger: Credential, make: str) -> None:
    found = who(getattr(getattr(roger, make)(), make)())
    assert (found.subject, found.issuer, found.proxies) == (ROGER, "/C=CA/O=Grid/CN=Test CA", 2)


@pytest.mark.parametrize("make", MAKERS)
def test_a_forged_signature(roger: Credential, make: str) -> None:
    forged = getattr(roger, make)(signer=rsa_key("mallory"))
    assert "was not signed by the one above" in refusal(forged)
    assert "was not signed by the one above" in refusal(getattr(forged, make)())


@pytest.mark.parametrize("info", [proxy_cert_info(), draft_proxy_cert_info()])
def test_a_ca_that_signs_a_proxy(ca: Credential, info: Extension) -> None:
    assert "signed a proxy certificate" in refusal(end_entity(ROGER, ca, more=[info]))


def test_of_tomorrow_and_of_yesterday(ca: Credential, roger: Credential) -> None:
    assert "Your proxy is not valid before" in refusal(roger.proxy(begins=now() + HOUR))
    assert "check your clock" in refusal(roger.proxy(begins=now() + HOUR))
    assert "Your proxy expired at" in refusal(roger.proxy(ends=now() - HOUR / 2))
    assert "Your certificate expired at" in refusal(end_entity(ROGER, ca, ends=now() - HOUR / 2))
    old = authority("/CN=Old", ends=now() - HOUR / 2)
    assert "The certificate authority /CN=Old expired at" in refusal(end_entity(ROGER, old))


def test_what_raises_is_refused(ca: Credential, roger: Credential) -> None:
    with pytest.raises(CredentialRefused, match="not validly encoded"):
        identify([None], now(), ProxyRules())  # type: ignore[list-item]  # as odd as can be


ODD = {
    "an extension twice": (
        [Extension("1.2.3", b"\x05\x00")] * 2, "has the extension 1.2.3 twice"
    ),
    "keyUsage twice": (
        [key_usage(0), key_usage(0)], "has the extension keyUsage (2.5.29.15) twice"
    ),
    "a name in Latin-1": (
        [Extension("2.5.29.17", seq(der(0x82, b"\xfc")))], "(in its subjectAltName)"
    ),
    "a name of an unknown kind": (
        [Extension("2.5.29.17", seq(der(0xA3, b"")))], "has a name of a kind that is not known"
    ),
    "garbage for extKeyUsage": ([Extension("2.5.29.37", b"\xff")], "is not validly encoded"),
}  # fmt: skip


@pytest.mark.parametrize("which", ODD)
def test_the_odd_certificate_is_named_with_its_extension(
    ca: Credential, roger: Credential, which: str
) -> None:
    more, words = ODD[which]
    made = {"purpose": None, "usage": None, "more": more}
    sub = authority("/C=CA/O=Grid/CN=Sub CA", ca, more=more[:1] * 2)
    for credential, name in (
        (end_entity(ROGER, ca, **made), ROGER),
        (end_entity(ROGER, ca, **made).proxy(), ROGER),
        (roger.proxy(serial=7, usage=None, more=more), f"{ROGER}/CN=7"),
        (end_entity(ROGER, sub), "/C=CA/O=Grid/CN=Sub CA"),
    ):
        told = refusal(credential)
        assert told.startswith(f"Your certificate chain is not validly encoded: {name} ")
        assert words in told or name.endswith("Sub CA")
        assert "ParseError" not in told
        assert "\n" not in told


def test_a_critical_extension_is_named_with_its_certificate(roger: Credential) -> None:
    odd = Extension("1.2.3.4", b"\x05\x00", critical=True)
    told = refusal(roger.proxy(serial=7, more=[odd]).proxy(serial=8))
    assert f"The proxy certificate {ROGER}/CN=7 has a critical extension not known here: " in told
    assert "1.2.3.4" in told
    told = refusal(roger.proxy(serial=7, more=[extended_key_usage(SERVER_AUTH)]))
    assert f"Your certificate {ROGER}/CN=7 is not meant for clients" in told


def test_no_chain_and_nobody_in_it(ca: Credential, roger: Credential) -> None:
    for chain in ([], roger.path[:1], [ca.certificate], [ca.certificate] * 3):
        with pytest.raises(CredentialRefused):
            identify(chain, now(), ProxyRules())


def test_the_certificate_is_named(roger: Credential) -> None:
    shown = refusal(roger.proxy(limited=True, serial=7).proxy(serial=8))
    assert shown.endswith(f" (Certificate: {ROGER}/CN=7/CN=8)")


# Depth 0 and 1 are proxies here, 2 the end entity, 3 the sub-CA, 4 the root.
EXPLAINED = {
    Flavour.RFC: {(3, 2), (3, 3), (3, 4), (25, 3), (25, 4)},
    Flavour.LEGACY: {
        *((3, depth) for depth in range(5)),
        *((error, depth) for error in (26, 32, 79) for depth in (1, 2)),
        *((25, depth) for depth in (3, 4)),
    },
}
EXPLAINED[Flavour.DRAFT] = EXPLAINED[Flavour.LEGACY] | {(34, 0), (34, 1)}


@pytest.mark.parametrize("flavour", Flavour)
def test_which_errors_of_openssl_the_position_explains(ca: Credential, flavour: Flavour) -> None:
    make = {Flavour.RFC: "proxy", Flavour.LEGACY: "legacy_proxy", Flavour.DRAFT: "draft_proxy"}
    user = end_entity(ROGER, authority("/C=CA/O=Grid/CN=Sub CA", ca))
    path = divide(getattr(getattr(user, make[flavour])(), make[flavour])().path)
    explained = set()
    for error in (*WAIVABLE, 1, 10, 20, 23):
        for depth in range(-1, 6):
            try:
                check_waivers(path, {flavour}, [(error, depth)])
            except CredentialRefused:
                continue
            if depth in range(5):
                explained.add((error, depth))
    assert explained == EXPLAINED[flavour]


def test_without_proxies_only_missing_crls_are_explained(roger: Credential) -> None:
    path = divide(roger.path)
    for error in WAIVABLE:
        for depth in range(2):
            if error == 3:
                check_waivers(path, set(), [(error, depth)])
            else:
                with pytest.raises(CredentialRefused):
                    check_waivers(path, set(), [(error, depth)])


def test_a_root_of_version_1() -> None:
    """It says nothing of itself; where it stands makes it the authority."""
    root = authority("/CN=Old root", version=1)
    assert who(end_entity(ROGER, root).proxy()).issuer == "/CN=Old root"
