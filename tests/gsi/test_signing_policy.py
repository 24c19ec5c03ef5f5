"""Which names a CA may issue, in both formats."""

from __future__ import annotations

import pytest
from cryptography import x509

from repoman.gsi.dn import dn_text
from repoman.gsi.signing_policy import NamePolicy, parse_namespaces, parse_signing_policy
from tests.credentials import certificate, p256_key, rdn, rdns

CA = "/C=CA/O=Grid/CN=Grid Canada CA"

POLICY = """
# ca_signing_policy.conf, as CAs write it
access_id_CA      X509         '/C=CA/O=Grid/CN=Grid Canada CA'
pos_rights        globus        CA:sign
cond_subjects     globus     '"/C=CA/O=Grid/*" "/c=ca/o=Also Grid/ou=*/CN=*"'

access_id_CA\tX509\t"/C=CA/O=Grid/CN=Another"
pos_rights\tglobus\tCA:sign
cond_subjects\tglobus\t"/C=US/*"
"""

NAMESPACES = """
# @(#)IGTF
TO Issuer "/C=CA/O=Grid/CN=Grid Canada CA" \\
  PERMIT Subject "/C=CA/O=Grid/.*"
TO Issuer SELF PERMIT Subject "/C=CA/O=Self/CN=[a-z]+"
to issuer self deny subject "/C=CA/O=Grid/CN=Evil.*"
"""


def name(text: str | bytes) -> x509.Name:
    return certificate(text, p256_key("names")).certificate.subject


def allows(policy: NamePolicy, subject: str | bytes, ca: str = CA) -> bool:
    return policy.allows(dn_text(name(ca)), dn_text(name(subject)))


@pytest.mark.parametrize(
    ("subject", "allowed"),
    [
        ("/C=CA/O=Grid/CN=Roger Impey", True),
        ("/C=CA/O=Grid/OU=x/CN=y/CN=z", True),
        ("/C=CA/O=GRID/CN=ROGER", True),
        ("/C=CA/O=Also Grid/OU=x/CN=y", True),
        ("/C=CA/O=Also Grid/CN=y", False),
        ("/C=CA/O=Gridlock/CN=y", False),
        ("/C=CA/O=Grid", False),
        ("/C=US/CN=y", False),
        ("/O=x/C=CA/O=Grid/CN=y", False),
    ],
)
def test_globs(subject: str, allowed: bool) -> None:
    assert allows(parse_signing_policy(POLICY, "x"), subject) == allowed


def test_each_ca_has_its_own_block() -> None:
    policy = parse_signing_policy(POLICY, "x")
    assert allows(policy, "/C=US/CN=y", "/C=CA/O=Grid/CN=Another")
    assert not allows(policy, "/C=CA/O=Grid/CN=y", "/C=CA/O=Grid/CN=Another")
    assert not allows(policy, "/C=CA/O=Grid/CN=y", "/C=CA/O=Grid/CN=Third")


def test_slashes_in_names_are_written_as_they_are() -> None:
    text = f"access_id_CA X509 '{CA}'\npos_rights globus CA:sign\n"
    policy = parse_signing_policy(text + "cond_subjects globus '\"/O=Grid/CN=host/*\"'", "x")
    assert allows(policy, rdns("/O=Grid") + rdn(("CN", "host/www.example.org")))
    assert not allows(policy, "/O=Grid/CN=www.example.org")


def test_the_old_names_of_mail_and_user() -> None:
    text = f"access_id_CA X509 '{CA}'\npos_rights globus CA:sign\n"
    policy = parse_signing_policy(text + "cond_subjects globus '\"/USERID=*/Email=*\"'", "x")
    assert allows(policy, "/UID=a/emailAddress=b")


def test_a_dot_is_a_dot() -> None:
    text = f"access_id_CA X509 '{CA}'\npos_rights globus CA:sign\n"
    policy = parse_signing_policy(text + "cond_subjects globus '\"/O=a.b/*\"'", "x")
    assert allows(policy, "/O=a.b/CN=x")
    assert not allows(policy, "/O=aXb/CN=x")


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "access_id_CA X509 'unbalanced",
        "access_id_ANYBODY",
        "pos_rights globus CA:sign",
        "cond_subjects globus '\"/*\"'",
        f"access_id_CA X509 '{CA}'\ncond_subjects globus '\"/*\"'",
        f"access_id_CA X509 '{CA}'\npos_rights globus CA:revoke\ncond_subjects globus '\"/*\"'",
        f"access_id_CA X509 '{CA}'\nneg_rights globus CA:sign\ncond_subjects globus '\"/*\"'",
        f"access_id_CA X509 '{CA}'\npos_rights globus CA:sign\ncond_subjects other '\"/*\"'",
        f"access_id_CA X509 '{CA}'\npos_rights globus CA:sign\ncond_subjects globus",
        f"access_id_CA X509 '{CA}' 'two'\npos_rights globus CA:sign",
    ],
)
def test_a_policy_half_understood_is_none(text: str) -> None:
    with pytest.raises(ValueError):
        parse_signing_policy(text, "x")


def test_an_empty_policy_allows_nothing() -> None:
    assert not allows(parse_signing_policy("# nothing\n", "x"), "/C=CA/O=Grid/CN=y")
    assert not allows(parse_namespaces("# nothing\n", "x", name(CA)), "/C=CA/O=Grid/CN=y")


@pytest.mark.parametrize(
    ("subject", "allowed"),
    [
        ("/C=CA/O=Grid/CN=Roger Impey", True),
        ("/C=CA/O=Self/CN=abc", True),
        ("/C=CA/O=Self/CN=abc1", False),
        ("/C=CA/O=Other/CN=abc", False),
        ("/C=CA/O=Grid/CN=Evil Eve", False),
        ("/X=y/C=CA/O=Grid/CN=abc".replace("/X=y", "/O=y"), False),
    ],
)
def test_namespaces(subject: str, allowed: bool) -> None:
    assert allows(parse_namespaces(NAMESPACES, "x", name(CA)), subject) == allowed


@pytest.mark.parametrize(
    "text", ["nonsense", 'TO Issuer SELF PERMIT Subject "("', 'TO Issuer SELF ALLOW Subject "x"']
)
def test_namespaces_half_understood(text: str) -> None:
    with pytest.raises(ValueError):
        parse_namespaces(text, "x", name(CA))
