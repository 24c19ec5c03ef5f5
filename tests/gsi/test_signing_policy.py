"""Which names a CA may issue, in both formats."""

from __future__ import annotations

import time

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


def test_a_glob_of_many_stars_takes_no_time() -> None:
    glob = "/O=" + "*a" * 25 + "b"
    text = f"access_id_CA X509 '{CA}'\npos_rights globus CA:sign\ncond_subjects globus '{glob}'"
    begin = time.monotonic()
    assert not allows(parse_signing_policy(text, "x"), "/O=" + "a" * 1500)
    assert time.monotonic() - begin < 1


def test_brackets_are_no_wildcards() -> None:
    text = f"access_id_CA X509 '{CA}'\npos_rights globus CA:sign\n"
    policy = parse_signing_policy(text + "cond_subjects globus '\"/O=[ab]!*\"'", "x")
    assert allows(policy, "/O=[ab]!/CN=x")
    assert not allows(policy, "/O=a!/CN=x")


def test_unbalanced_quotes_are_told_with_their_line() -> None:
    text = f"access_id_CA X509 '{CA}'\npos_rights globus CA:sign\n"
    with pytest.raises(ValueError, match="unbalanced quotes in line 3"):
        parse_signing_policy(text + "cond_subjects globus '\"/C=CA/*'", "x")


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
        f"access_id_CA X509 '{CA}'",
        f"access_id_CA X509 '{CA}'\naccess_id_ANYBODY",
        f"access_id_CA X509 '{CA}'\npos_rights globus CA:sign\ncond_day globus '\"monday\"'",
        f"access_id_CA X509 '{CA}'\npos_rights globus CA:sign\ncond_subjects globus '\"/*\"' x\ny",
        f"access_id_ROBOT X509 '{CA}'\npos_rights globus CA:sign\ncond_subjects globus '\"/*\"'",
        f"access_id_CA X509 '{CA}'\npos_rights globus CA:sign\ncond_subjects globus '\\xE4*'",
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


LETS_ENCRYPT = "/C=US/O=Let's Encrypt/CN=R3"
USER = "/C=US/O=Let's Encrypt/CN=Roger"


@pytest.mark.parametrize(
    ("entry", "subject", "allowed"),
    [
        # Quotes, as CILogon and OSG write them.
        (r"""access_id_CA X509 '/C=US/O=Let\'s Encrypt/CN=R3'
pos_rights globus CA:sign
cond_subjects globus '"/C=US/O=Let\'s Encrypt/*"'""", USER, True),
        (r"""access_id_CA X509 "/C=US/O=Let's Encrypt/CN=R3"
pos_rights globus CA:sign
cond_subjects globus "/C=US/O=Let's Encrypt/*" """, USER, True),
        (r"""access_id_CA X509 '"/C=US/O=Let\'s Encrypt/CN=R3"'
pos_rights globus CA:sign
cond_subjects globus "'/C=US/*'" """, USER, True),
        ("""access_id_CA X509 "CA"
pos_rights globus CA:sign
cond_subjects globus '"/C=DE/*" "/C=US/*"' '"/C=FR/*"'""", USER, True),
        ("""access_id_CA X509 "CA"
pos_rights globus CA:sign
cond_subjects globus "/C=DE/*" "/C=US/*\"""", USER, True),
        ("""access_id_CA X509 "CA"
pos_rights globus CA:sign
cond_subjects globus /C=US/*""", USER, True),
        # ? is one character, and only one.
        ("""access_id_CA X509 "CA"
pos_rights globus CA:sign
cond_subjects globus '"/C=US/O=Let?s Encrypt/CN=R?ger"'""", USER, True),
        ("""access_id_CA X509 "CA"
pos_rights globus CA:sign
cond_subjects globus '"/C=US/O=Let?s Encrypt/CN=Ro?r"'""", USER, False),
        # Comments, blank lines, tabs, lines of DOS, a mark of order, words in any case.
        ("""\ufeff# policy

access_id_CA X509 "CA"   # whose
\tpos_rights\tglobus\tCA:sign# no comment""", USER, None),
        ("""\ufeff# policy\r
\r
access_id_CA X509 "CA"   # whose\r
\tpos_rights\tglobus\tCA:sign\t# what\r
\tcond_subjects\tglobus\t'"/C=US/*"'\t# "/C=DE/*" too, later\r
""", USER, True),
        ("""ACCESS_ID_CA x509 "CA"
Pos_Rights Globus ca:SIGN
Cond_Subjects GLOBUS '"/C=US/*"'""", USER, True),
        # Globus reads words, wherever lines end.
        ("""access_id_CA X509
   "CA" pos_rights globus
   CA:sign cond_subjects globus
   '"/C=US/*"'""", USER, True),
        # Several identities of one entry, several rights, several conditions.
        ("""access_id_CA X509 '/CN=Other'
access_id_CA X509 "CA"
pos_rights globus CA:sign
cond_subjects globus '"/C=US/*"'""", USER, True),
        ("""access_id_CA X509 "CA"
pos_rights globus CA:sign
cond_subjects globus '"/C=DE/*"'
cond_subjects globus '"/C=US/*"'""", USER, True),
        ("""access_id_CA X509 "CA"
pos_rights globus CA:sign
cond_subjects globus '"/C=DE/*"'
pos_rights globus CA:sign
cond_subjects globus '"/C=US/*"'""", USER, True),
        ("""access_id_CA X509 "CA"
pos_rights globus CA:sign
cond_subjects globus '"/C=DE/*"'
access_id_CA X509 '/CN=Other'
pos_rights globus CA:sign
cond_subjects globus '"/C=US/*"'""", USER, False),
        # What is taken away; what is no authority's.
        ("""access_id_CA X509 "CA"
pos_rights globus CA:sign
cond_subjects globus '"/C=US/*"'
access_id_CA X509 "CA"
neg_rights globus CA:sign""", USER, False),
        ("""access_id_CA X509 "CA"
pos_rights globus CA:sign
cond_subjects globus '"/C=US/*"'
access_id_ANYBODY
neg_rights globus CA:sign""", USER, True),
        ("""access_id_ANYBODY
pos_rights globus CA:sign
cond_subjects globus '"/C=US/*"'""", USER, False),
        ("""access_id_USER X509 "CA"
pos_rights globus CA:sign
cond_subjects globus '"/C=US/*"'""", USER, False),
        ("""access_id_CA X509 "CA"
pos_rights globus CA:sign""", USER, False),
        # Names of attributes, and letters, as OpenSSL prints them.
        ("""access_id_CA X509 "CA"
pos_rights globus CA:sign
cond_subjects globus '"/C=DE/postalCode=*/street=*/CN=*"'""",
         "/C=DE/2.5.4.17=12345/2.5.4.9=Weg 1/CN=x", True),
        ("""access_id_CA X509 "CA"
pos_rights globus CA:sign
cond_subjects globus '"/C=DE/2.5.4.17=*/OID.2.5.4.9=*/E=*"'""",
         "/C=DE/2.5.4.17=12345/2.5.4.9=Weg 1/emailAddress=x@y", True),
        (r"""access_id_CA X509 "CA"
pos_rights globus CA:sign
cond_subjects globus '"/C=DE/O=M\xC3\xBCnchen/*"'""", "/C=DE/O=M\u00fcnchen/CN=x", True),
    ],
)  # fmt: skip
def test_a_policy_is_read_as_globus_reads_it(
    entry: str, subject: str, allowed: bool | None
) -> None:
    text = entry.replace('"CA"', f'"{LETS_ENCRYPT}"').removeprefix("\ufeff")
    if allowed is None:
        with pytest.raises(ValueError, match="not understood"):
            parse_signing_policy(text, "x")
    else:
        assert parse_signing_policy(text, "x").allows(LETS_ENCRYPT, subject) == allowed


@pytest.mark.parametrize(
    ("glob", "words"),
    [
        ("C=CA/O=Grid/*", "no DN can match: C=CA/O=Grid/*"),
        ("CN=*", "no DN can match"),
        ("/CA/O=Grid/*", "no DN can match"),
        ("/XX=Grid/*", "no DN can match"),
        ("/C=CA/O=Grid/", "no DN can match"),
        ("CN=x,O=Grid,C=CA", "no DN can match"),
        ("/C=CA/O=Grid", "nobody's"),
        ("/C=CA/O=Grid/CN=One", ""),
        ("/C=CA/O=Grid*", ""),
        ("/*/CN=x", ""),
        ("*", ""),
        ("?C=CA/*", ""),
        ("/1.2.3=x/CN=y", ""),
        ("/postalCode=1/CN=y", ""),
    ],
)
def test_a_rule_that_can_match_nothing_is_told(glob: str, words: str) -> None:
    text = f"access_id_CA X509 '{CA}'\npos_rights globus CA:sign\ncond_subjects globus '\"{glob}\"'"
    policy = parse_signing_policy(text, "x")
    told = list(policy.remarks_on(CA))
    assert [words in line and "line 3" in line for line in told] == [True] * bool(words)


def test_a_policy_about_others_is_told() -> None:
    for text in (POLICY.replace("Grid Canada CA", "Other"), "# nothing\n"):
        (line,) = parse_signing_policy(text, "x").remarks_on(CA)
        assert line == f"permits {CA} nothing: all of its users are refused"
    assert list(parse_signing_policy(POLICY, "x").remarks_on(CA)) == []
    (line, _) = parse_signing_policy(
        f"access_id_CA X509 '{CA}'\npos_rights globus CA:sign\n", "x"
    ).remarks_on(CA)
    assert "line 2 a right without cond_subjects" in line


@pytest.mark.parametrize(
    ("statement", "subject", "allowed"),
    [
        ('TO Issuer SELF PERMIT Subject "/C=CA/.*" # all', "/C=CA/CN=x", True),
        ('\tto\tissuer\tself\r\n  permit subject "/C=CA/.*"\r\n', "/C=CA/CN=x", True),
        ('TO Issuer "SELF" PERMIT Subject "/C=CA/.*"', "/C=CA/CN=x", False),
        ("TO Issuer SELF PERMIT Subject '/C=CA/.*'", "/C=CA/CN=x", True),
        ('TO Issuer SELF PERMIT Subject "/C=CA/Email=.*"', "/C=CA/emailAddress=x", True),
        ('TO Issuer SELF PERMIT Subject "/C=CA/postalCode=.*"', "/C=CA/2.5.4.17=x", True),
        (r'TO Issuer SELF PERMIT Subject "/C=CA/CN=\S+"', "/C=CA/CN=x", True),
        ('TO Issuer SELF PERMIT Subject "/.*"\nTO Issuer SELF DENY Subject "/C=CA/.*"',
         "/C=CA/CN=x", False),
    ],
)  # fmt: skip
def test_namespaces_are_read_as_the_igtf_writes_them(
    statement: str, subject: str, allowed: bool
) -> None:
    assert parse_namespaces(statement, "x", name(CA)).allows(CA, subject) == allowed


@pytest.mark.parametrize("pattern", ["C=CA/.*", "CN=.*", "^C=CA"])
def test_a_pattern_that_can_match_nothing_is_told(pattern: str) -> None:
    text = f'TO Issuer SELF PERMIT Subject "{pattern}"'
    (line,) = parse_namespaces(text, "x", name(CA)).remarks_on(CA)
    assert "no DN can match" in line
