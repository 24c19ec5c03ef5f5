"""The text of a DN has exactly one reading."""

from __future__ import annotations

import re
import subprocess
import warnings
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import assume, given
from hypothesis import strategies as st

from repoman.errors import CredentialRefused, Invalid
from repoman.gsi.attributes import OIDS as OIDS_BY_NAME
from repoman.gsi.dn import LIMIT, dn_text, parse_dn, rdns, unescaped
from tests.credentials import ATTRIBUTES, Pair, certificate, p256_key, rdn, seq

# Without C, about whose length the library warns.
OIDS = [oid for kind, oid in ATTRIBUTES.items() if kind != "C"] + ["2.5.4.42", "1.2.3.4.5"]


def name(*parts: bytes) -> x509.Name:
    """A name as a certificate has it, from the DER of its RDNs."""
    from tests.credentials import certificate, p256_key

    made = certificate(b"".join(parts), p256_key("names"))
    assert seq(*parts) in made.der
    return made.certificate.subject


visible = st.characters(exclude_categories=["C", "Z", "Mn"]).filter(
    lambda c: c not in "\u115f\u1160\u2800\u3164\uffa0"
)
texts = st.text(visible, min_size=1, max_size=12) | st.text("/\\+=CN ,.", min_size=1, max_size=12)
values = texts.map(str.strip).filter(bool)
pairs = st.tuples(st.sampled_from(OIDS), values)
rdn_lists = st.lists(
    st.lists(pairs, min_size=1, max_size=3, unique=True).map(tuple), min_size=1, max_size=5
)


def canonical(parts: list[tuple[Pair, ...]]) -> list[list[Pair]]:
    return [sorted(part) for part in parts]


@given(one=rdn_lists)
def test_what_is_printed_is_read_the_same(one: list[tuple[Pair, ...]]) -> None:
    text = dn_text(name(*(rdn(*part) for part in one)))
    assert parse_dn(text) == text
    assert [list(part) for part in rdns(name(*(rdn(*part) for part in one)))] == canonical(one)


@given(one=rdn_lists, other=rdn_lists)
def test_two_names_never_share_a_text(
    one: list[tuple[Pair, ...]], other: list[tuple[Pair, ...]]
) -> None:
    assume(canonical(one) != canonical(other))
    assert dn_text(name(*(rdn(*p) for p in one))) != dn_text(name(*(rdn(*p) for p in other)))


awkward = st.text("/\\+=CNOUab", min_size=1, max_size=10)


@given(left=awkward, right=awkward)
def test_nor_do_names_that_differ_only_in_where_they_are_cut(left: str, right: str) -> None:
    """``/CN=a`` + ``/CN=b`` and ``/CN=a/CN=b`` are two names."""
    assume(left != right)
    split = dn_text(name(rdn(("CN", left)), rdn(("CN", right))))
    assert split != dn_text(name(rdn(("CN", left + right))))
    assert split != dn_text(name(rdn(("CN", f"{left}/CN={right}"))))
    assert split != dn_text(name(rdn(("CN", left), ("CN", right))))


@given(text=st.text(max_size=40) | st.text("/\\+=CNOUDe. 1ab", max_size=40))
def test_whatever_is_typed_is_canonical_or_refused(text: str) -> None:
    try:
        found = parse_dn(text)
    except Invalid:
        return
    assert parse_dn(found) == found


@pytest.mark.parametrize(
    ("typed", "canonical"),
    [
        ("/C=CA/O=Grid/OU=imsb.nrc.ca/CN=Roger Impey", None),
        ("  /C=CA/O=Grid/CN=Roger Impey\n", "/C=CA/O=Grid/CN=Roger Impey"),
        ("/DC=ch/DC=cern/OU=Organic Units/CN=jdoe/CN=123456/CN=John Doe", None),
        ("/O=Grid/CN=host/www.example.org", "/O=Grid/CN=host\\/www.example.org"),
        ("/O=Grid/CN=host\\/www.example.org", None),
        ("/O=Grid/CN=a b/E=x@y.z", "/O=Grid/CN=a b/emailAddress=x@y.z"),
        ("/O=Grid/CN=a/Email=x@y.z", "/O=Grid/CN=a/emailAddress=x@y.z"),
        ("/O=Grid/USERID=abc", "/O=Grid/UID=abc"),
        ("/o=Grid/cn=a", "/O=Grid/CN=a"),
        ("/O=Grid/2.5.4.3=a", "/O=Grid/CN=a"),
        ("/O=Grid/1.2.3.4=a", None),
        ("/O=Grid/CN=a+UID=b", "/O=Grid/UID=b+CN=a"),
        ("/O=Grid/CN=C++", "/O=Grid/CN=C\\+\\+"),
        ("/O=Grid/CN=a\\\\b", None),
        ("/O=Grid/CN=x=y", None),
        ("/O=Grid/CN=Jürgen Groß", None),
        ("/O=Grid/CN=http://x.y/z?a=b", "/O=Grid/CN=http:\\/\\/x.y\\/z?a=b"),
    ],
)
def test_what_administrators_type(typed: str, canonical: str | None) -> None:
    assert parse_dn(typed) == (canonical or typed)


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        ("", "does not begin"),
        ("CN=Roger Impey,O=Grid,C=CA", "does not begin"),
        ("Roger", "does not begin"),
        ("/Roger", "does not begin"),
        ("//CN=x", "does not begin"),
        ("+CN=x", "does not begin"),
        ("/XX=y", "does not begin"),
        ("/O=Grid/CN=", "empty"),
        ("/O=/CN=x", "empty"),
        ("/O=Grid /CN=x", "blank"),
        ("/O=Grid/CN= x", "blank"),
        ("/O=Grid/CN=x\0", "invisible"),
        ("/O=Grid/CN=x\ny", "invisible"),
        ("/O=Grid/CN=\u202ex", "invisible"),
        ("/O=Grid/CN=x/foo=y", "two readings"),
        ("/O=Grid/CN=x/ OU=y", "two readings"),
        ("/O=Grid/CN=x + y=z", "two readings"),
        ("/O=Grid/CN=a\\/b/c", "two readings"),
        ("/O=Grid/CN=a\\+b+c", "two readings"),
        ("/O=Grid/CN=a\\x41", "backslash"),
        ("/O=Grid/CN=a\\x2FCN=b", "backslash"),
        ("/O=Grid/CN=a\\xC3", "not UTF-8"),
        ("/O=Grid/CN=M\\xFCller", "not UTF-8"),
        ("/O=Grid/CN=a\\xE2\\x80\\xAEb", "invisible"),
        ("/O=Grid/CN=\\xC2\\xA0a", "invisible"),
        ("/O=Grid/CN=a\\xC3\\xBC\\x00", "backslash"),
        ("/O=Grid/CN=a\\xc3\\/\\xbc", "not UTF-8"),
        ("/O=Grid/CN=a\\", "backslash"),
        ("/O=Grid/02.5.4.3=a", "two readings"),
    ],
)
def test_what_is_no_dn_or_two(typed: str, why: str) -> None:
    with pytest.raises(Invalid, match=why) as refused:
        parse_dn(typed, named="client_dn")
    assert refused.value.field == "client_dn"
    assert "\n" not in refused.value.message


def test_too_long_for_an_index() -> None:
    with pytest.raises(Invalid, match="at most"):
        parse_dn("/CN=" + "ü" * (LIMIT // 2))
    with pytest.warns(UserWarning, match="64"), pytest.raises(CredentialRefused, match="longer"):
        dn_text(name(rdn(("CN", "ü" * (LIMIT // 2)))))


def test_an_empty_name_has_no_text() -> None:
    with pytest.raises(CredentialRefused, match="is empty"):
        dn_text(x509.Name([]))


def test_the_form_in_which_policies_write() -> None:
    text = dn_text(name(rdn(("O", "Grid")), rdn(("CN", "host/a+b\\c"))))
    assert text == "/O=Grid/CN=host\\/a\\+b\\\\c"
    assert unescaped(text) == "/O=Grid/CN=host/a+b\\c"


@pytest.mark.parametrize(
    ("typed", "canonical"),
    [
        ("/C=DE/postalCode=12345/CN=x", "/C=DE/2.5.4.17=12345/CN=x"),
        ("/C=DE/street=Weg 1/CN=x", "/C=DE/2.5.4.9=Weg 1/CN=x"),
        ("/C=DE/STREET=Weg 1/CN=x", "/C=DE/2.5.4.9=Weg 1/CN=x"),
        ("/C=DE/streetAddress=Weg 1/CN=x", "/C=DE/2.5.4.9=Weg 1/CN=x"),
        ("/C=US/S=Texas/CN=x", "/C=US/ST=Texas/CN=x"),
        ("/C=US/stateOrProvinceName=Texas/commonName=x", "/C=US/ST=Texas/CN=x"),
        ("/O=G/title=Dr/CN=x", "/O=G/2.5.4.12=Dr/CN=x"),
        ("/O=G/CN=x/dnQualifier=7", "/O=G/CN=x/2.5.4.46=7"),
        ("/O=G/organizationIdentifier=VATDE-1/CN=x", "/O=G/2.5.4.97=VATDE-1/CN=x"),
        ("/businessCategory=Private/jurisdictionC=DE/CN=x",
         "/2.5.4.15=Private/1.3.6.1.4.1.311.60.2.1.3=DE/CN=x"),
        ("/CN=x/unstructuredName=y", "/CN=x/1.2.840.113549.1.9.2=y"),
        ("/CN=x/SN=y/serialNumber=7", None),
        ("/CN=x/surname=y/SERIALNUMBER=7", "/CN=x/SN=y/serialNumber=7"),
        ("/CN=x/givenName=y/G=z", "/CN=x/GN=y/GN=z"),
        ("/CN=x/EMAILADDRESS=a@b", "/CN=x/emailAddress=a@b"),
        ("/CN=x/pseudonym=P:PN", "/CN=x/2.5.4.65=P:PN"),
        ("/CN=x/OID.2.5.4.17=1/oid.1.2.3=4", "/CN=x/2.5.4.17=1/1.2.3=4"),
        ("/CN=x+initials=y", "/CN=x+2.5.4.43=y"),
        ("/CN=host/www.example.org/title=x", "/CN=host\\/www.example.org/2.5.4.12=x"),
        (r"/O=Grid/CN=J\xC3\xBCrgen Gro\xc3\x9F", "/O=Grid/CN=J\u00fcrgen Gro\u00df"),
        (r"/O=Grid/CN=host/j\xC3\xBC.example.org", r"/O=Grid/CN=host\/j\u00fc.example.org"),
        (r"/O=Grid/CN=host\/j\xC3\xBC", "/O=Grid/CN=host\\/j\u00fc"),
        (r"/O=Grid/CN=\xF0\x9F\x90\xAD", "/O=Grid/CN=\U0001f42d"),
        # A backslash of the name, escaped, is what it was.
        (r"/O=Grid/CN=a\\xC3\\xBC", None),
    ],
)  # fmt: skip
def test_a_dn_as_tools_print_it_can_be_registered(typed: str, canonical: str | None) -> None:
    canonical = (canonical or typed).replace("\\u00fc", "\u00fc")
    assert parse_dn(typed) == canonical
    assert parse_dn(canonical) == canonical


# Its name in small letters is that of UID in ours: RFC 4519, section 2.39.
OPENSSL_CALLS_IT_UID = "0.9.2342.19200300.100.1.44"


@pytest.mark.parametrize("third", range(3))
@pytest.mark.parametrize("how", ["compat", "lname,sep_multiline,utf8"])
def test_what_openssl_prints_is_read_as_what_it_is(tmp_path: Path, how: str, third: int) -> None:
    """Every attribute that we have a name for, under OpenSSL's short and long names."""
    oids = [oid for oid in dict.fromkeys(OIDS_BY_NAME.values()) if oid != OPENSSL_CALLS_IT_UID]
    oids = oids[third::3]
    subject = b"".join(rdn((oid, "J\u00fcrgen")) for oid in oids)
    made = certificate(subject, p256_key("names"))
    (tmp_path / "it.pem").write_bytes(made.pem())
    words = ["openssl", "x509", "-in", str(tmp_path / "it.pem"), "-noout", "-subject"]
    done = subprocess.run(
        [*words, "-nameopt", how], capture_output=True, text=True, check=True
    ).stdout
    if how == "compat":
        typed = done.removeprefix("subject=").strip()
    else:
        typed = "".join(f"/{line.strip()}" for line in done.splitlines()[1:])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = dn_text(made.certificate.subject)
    assert typed.count("/") == len(oids), done
    assert parse_dn(typed) == expected


@given(text=st.text("/\\xC3BC+=CNOUDeEstS. 1aK\u212a\u017f\u00fc", max_size=40))
def test_no_text_is_read_as_another_name_when_it_is_copied(text: str) -> None:
    """What a 403 prints is what an administrator may type: no value hides a divider."""
    try:
        shown = dn_text(name(rdn(("O", "G")), rdn(("CN", text))))
    except CredentialRefused:
        return
    assert parse_dn(shown) == shown
    assert len(_DIVIDERS.findall(shown)) == 2


_DIVIDERS = re.compile(r"(?<!\\)(?:\\\\)*[/+]")
