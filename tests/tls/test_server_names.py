"""Servers' certificates are judged by the host name that they prove, not by rules for users.

curl, which asks OpenSSL, is the comparison: what it takes, we take.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.protocol import Protocol
from twisted.internet.utils import getProcessValue
from twisted.python.failure import Failure

from repoman.gsi.host import host_names, proves_name
from repoman.tls import ClientTLS
from tests.credentials import (
    HOUR,
    SERVER_AUTH,
    CADirectory,
    Credential,
    Extension,
    Grid,
    alternative_names,
    authority,
    end_entity,
    extended_key_usage,
    host,
    now,
    oid,
    rdn,
    rdns,
    seq,
    utf8,
)
from tests.credentials import der as tlv
from tests.tls.door import VERSIONS
from tests.tls.test_client_tls import LOCAL, AnyServer, Listen, get
from tests.tls.test_client_tls import listen as listen

SAN = "2.5.29.17"
DNS, IP, URI, EMAIL = 0x82, 0x87, 0x86, 0x81
GOOD = tlv(DNS, b"localhost")
BOTH = pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)


def other_name(kind: str, value: bytes) -> bytes:
    """An otherName (RFC 5280, 4.2.1.6)."""
    return tlv(0xA0, oid(kind), tlv(0xA0, value))


ODD = {
    "an address as host name": tlv(DNS, b"127.0.0.1"),
    "an IPv6 address as host name": tlv(DNS, b"::1"),
    "a number": tlv(DNS, b"4711"),
    "a wildcard for a top-level domain": tlv(DNS, b"*.local"),
    "a wildcard elsewhere": tlv(DNS, b"a.*"),
    "two wildcards": tlv(DNS, b"*.*.example.org"),
    "nothing but a wildcard": tlv(DNS, b"*"),
    "an empty name": tlv(DNS, b""),
    "a blank": tlv(DNS, b" "),
    "Latin-1": tlv(DNS, b"m\xfcller.example.org"),
    "UTF-8": tlv(DNS, "müller.example.org".encode()),
    "a NUL": tlv(DNS, b"localhost\x00.example.org"),
    "a dot at its end": tlv(DNS, b"www.example.org."),
    "an underscore": tlv(DNS, b"my_host.example.org"),
    "two dots": tlv(DNS, b"www..example.org"),
    "an address of five bytes": tlv(IP, b"\x7f\0\0\1\0"),
    "an address without bytes": tlv(IP, b""),
    "an address with a mask": tlv(IP, b"\x7f\0\0\1\xff\xff\xff\xff"),
    "an e-mail address": tlv(EMAIL, b"root@example.org"),
    "an odd e-mail address": tlv(EMAIL, b"r\xf6\xf6t"),
    "a URI": tlv(URI, b"https://www.example.org/"),
    "a URI that is none": tlv(URI, b"nonsense"),
    "a URI of several colons": tlv(URI, b"urn:uuid:1:2"),
    "an SRV name as UTF8String": other_name("1.3.6.1.5.5.7.8.7", utf8("_https.example.org")),
    "an otherName of nobody's": other_name("1.2.3.4.5", tlv(0x04, b"\xff\xff")),
    "a Microsoft UPN": other_name("1.3.6.1.4.1.311.20.2.3", utf8("host@example.org")),
    "a directoryName": tlv(0xA4, seq(rdns("/C=CA/CN=x"))),
    "an empty directoryName": tlv(0xA4, seq()),
    "a directoryName that is none": tlv(0xA4, seq(rdn(("CN", tlv(0x03, b"\x00x"))))),
    "a registered ID": tlv(0x88, b"\x2a\x03\x04"),
    "an X.400 address": tlv(0xA3, seq()),
    "an EDI party": tlv(0xA5, tlv(0xA1, utf8("x"))),
}
"""Entries of a subjectAltName that are no names of localhost."""


def named(issuer: Credential, entries: bytes, subject: str | bytes = "", **bent) -> Credential:
    """A server with this subjectAltName; without a subject the extension is critical."""
    more = [Extension(SAN, seq(entries), critical=not subject)]
    purpose = extended_key_usage(SERVER_AUTH)
    return end_entity(subject or b"", issuer, **({"more": more, "purpose": purpose} | bent))


async def curl(grid: Grid, port: int, name: str = "localhost") -> bool:
    """Curl takes the server for the one it wants."""
    command = shutil.which("curl")
    assert command is not None
    ca = grid.place / "ca.pem"
    ca.write_bytes(grid.ca.pem())
    words = ["-s", "-o", "/dev/null", "--max-time", "10", "--cacert", str(ca)]
    where = f"{name}:{port}"
    code = await getProcessValue(
        command, [*words, "--resolve", f"{where}:127.0.0.1", f"https://{where}/"],
        env={}, reactor=reactor,
    )  # fmt: skip
    assert code in (0, 35, 60), code
    return code == 0


@BOTH
@pytest.mark.parametrize("which", ODD)
@pytest_twisted.ensureDeferred
async def test_an_odd_name_does_not_void_the_good_one_beside_it(
    grid: Grid, listen: Listen, which: str, version: int
) -> None:
    """Before and behind it; and by itself it proves nothing."""
    for entries in (ODD[which] + GOOD, GOOD + ODD[which]):
        shown = named(grid.ca, entries, "/C=CA/O=Grid/CN=www.example.org")
        port = await listen(AnyServer(shown, version))
        assert await get(ClientTLS(None, grid.directory.path), port) == "hello"
        assert await curl(grid, port)
    port = await listen(AnyServer(named(grid.ca, ODD[which], "/CN=localhost"), version))
    answer = await get(ClientTLS(None, grid.directory.path), port)
    assert answer == "refused: the server's certificate is not for localhost"


NOT_FOR_LOCALHOST = {
    "no entry": b"",
    "blanks around it": tlv(DNS, b" localhost "),
    "a line's end": tlv(DNS, b"localhost\n"),
    "a dot at its end": tlv(DNS, b"localhost."),
    "all odd ones": b"".join(ODD.values()),
    "its address alone": tlv(IP, b"\x7f\0\0\1"),
}


@BOTH
@pytest.mark.parametrize("which", NOT_FOR_LOCALHOST)
@pytest_twisted.ensureDeferred
async def test_what_matches_nothing_is_refused_whatever_its_cn_says(
    grid: Grid, listen: Listen, which: str, version: int
) -> None:
    shown = named(grid.ca, NOT_FOR_LOCALHOST[which], "/C=CA/O=Grid/CN=localhost")
    port = await listen(AnyServer(shown, version))
    answer = await get(ClientTLS(None, grid.directory.path), port)
    assert answer == "refused: the server's certificate is not for localhost"


MALFORMED = {
    "two lists": [Extension(SAN, seq(GOOD)), Extension(SAN, seq(GOOD))],
    "no list": [Extension(SAN, GOOD)],
}


@pytest.mark.parametrize("which", MALFORMED)
@pytest_twisted.ensureDeferred
async def test_names_that_are_not_der_are_refused_as_openssl_does(
    grid: Grid, listen: Listen, which: str
) -> None:
    shown = named(grid.ca, b"", "/C=CA/O=Grid/CN=localhost", more=MALFORMED[which])
    port = await listen(AnyServer(shown))
    assert (await get(ClientTLS(None, grid.directory.path), port)).startswith("refused: ")
    assert not await curl(grid, port)
    assert not proves_name(shown.certificate, "localhost")


SUBJECTS = {
    "empty": b"",
    "with a blank at its end": rdns("/C=CA/O=Grid") + rdn(("CN", "localhost ")),
    "with an empty value": rdns("/C=CA/O=Grid") + rdn(("CN", "")),
    "with a line's end": rdns("/C=CA/O=Grid") + rdn(("CN", "local\nhost")),
    "named like an old proxy": rdns("/C=CA/O=Grid/CN=proxy"),
    "with a bit string": rdns("/C=CA/O=Grid") + rdn(("2.5.4.45", tlv(0x03, b"\x00\xff"))),
    "in Latin-1": rdns("/C=CA/O=Grid") + rdn(("CN", tlv(0x14, b"m\xfcller"))),
    "of no text at all": rdn(("CN", tlv(0x03, b"\x00x"))),
}


@BOTH
@pytest.mark.parametrize("which", SUBJECTS)
@pytest_twisted.ensureDeferred
async def test_a_servers_subject_may_be_empty_or_odd(
    grid: Grid, listen: Listen, which: str, version: int
) -> None:
    """Let's Encrypt's short-lived certificates have none; who logs in with a host's DN?"""
    port = await listen(AnyServer(named(grid.ca, GOOD, SUBJECTS[which]), version))
    assert await get(ClientTLS(None, grid.directory.path), port) == "hello"
    assert await curl(grid, port)


@pytest_twisted.ensureDeferred
async def test_an_odd_subject_is_held_to_the_signing_policy_all_the_same(
    grid: Grid, listen: Listen
) -> None:
    shown = named(grid.ca, GOOD + ODD["Latin-1"], rdns("/C=XX") + rdn(("CN", "localhost ")))
    answer = await get(ClientTLS(None, grid.directory.path), await listen(AnyServer(shown)))
    assert "may not issue /C=XX/CN=localhost " in answer


@pytest_twisted.ensureDeferred
async def test_a_revoked_server_with_an_odd_name_is_refused(grid: Grid, listen: Listen) -> None:
    shown = named(grid.ca, GOOD + ODD["Latin-1"])
    grid.revoke(shown)
    answer = await get(ClientTLS(None, grid.directory.path), await listen(AnyServer(shown)))
    assert "was revoked by /C=CA/O=Grid/CN=Test CA" in answer


class Greeting(Protocol):
    """Asks, and waits for the first of the reply."""

    def __init__(self) -> None:
        self.heard: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        self.transport.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")

    def dataReceived(self, data: bytes) -> None:
        if not self.heard.called:
            self.heard.callback(data)

    def connectionLost(self, reason: Failure) -> None:
        if not self.heard.called:
            self.heard.errback(reason)


def commercial() -> tuple[Credential, Credential]:
    """A root and an intermediate as Let's Encrypt has them."""
    root = authority("/C=US/O=Internet Security Research Group/CN=ISRG Root X1")
    return root, authority("/C=US/O=Let's Encrypt/CN=R3", root, 0)


@BOTH
@pytest_twisted.ensureDeferred
async def test_a_public_ca_without_policy_or_crl(
    listen: Listen, tmp_path: Path, version: int
) -> None:
    root, below = commercial()
    CADirectory(tmp_path / "public").add(root, revokes=None)
    port = await listen(AnyServer(named(below, GOOD), version))
    assert await get(ClientTLS(None, tmp_path / "public"), port) == "hello"


@BOTH
@pytest_twisted.ensureDeferred
async def test_a_public_root_that_was_once_signed_by_another(
    listen: Listen, tmp_path: Path, version: int
) -> None:
    """Servers sent the expired cross-signed certificate of ISRG Root X1 for years."""
    root, below = commercial()
    older = authority("/O=Digital Signature Trust Co./CN=DST Root CA X3", ends=now() - HOUR / 2)
    name = "/C=US/O=Internet Security Research Group/CN=ISRG Root X1"
    crossed = authority(name, older, ends=now() - HOUR / 2)
    CADirectory(tmp_path / "public").add(root, revokes=None)
    shown = evolve(named(below, GOOD), issuers=(below, crossed, older))
    port = await listen(AnyServer(shown, version))
    assert await get(ClientTLS(None, tmp_path / "public"), port) == "hello"


@BOTH
@pytest_twisted.ensureDeferred
async def test_an_intermediate_may_have_odd_names_but_not_none(
    grid: Grid, listen: Listen, version: int
) -> None:
    odd = Extension(SAN, seq(ODD["Latin-1"] + ODD["an X.400 address"]))
    below = authority("/C=CA/O=Grid/CN=Sub CA", grid.ca, more=[odd])
    port = await listen(AnyServer(named(below, GOOD), version))
    assert await get(ClientTLS(None, grid.directory.path), port) == "hello"
    nameless = authority(b"", grid.ca)
    port = await listen(AnyServer(named(nameless, GOOD), version))
    assert "refused: " in await get(ClientTLS(None, grid.directory.path), port)


ADDRESSES = {
    "IPv4": ("127.0.0.1", alternative_names("127.0.0.1"), True),
    "IPv6": ("::1", alternative_names("::1"), True),
    "IPv6, written at length": ("0:0::0:1", alternative_names("::1"), True),
    "another": ("127.0.0.1", alternative_names("127.0.0.2"), False),
    "as host name": ("127.0.0.1", Extension(SAN, seq(tlv(DNS, b"127.0.0.1"))), False),
    "IPv4 in IPv6": ("127.0.0.1", alternative_names("::ffff:127.0.0.1"), False),
    "beside odd ones": (
        "127.0.0.1",
        Extension(SAN, seq(b"".join(ODD.values()), tlv(IP, b"\x7f\0\0\1"))),
        True,
    ),
}
NAMES = {
    "another case": ("LOCALHOST.example.org", b"localhost.EXAMPLE.org", True),
    "a wildcard": ("x.example.org", b"*.example.org", True),
    "a wildcard one level too high": ("a.b.example.org", b"*.example.org", False),
    "part of a label": ("foo.example.org", b"f*.example.org", False),
    "the domain itself": ("example.org", b"*.example.org", False),
    "punycode": ("xn--mller-kva.example.org", b"xn--mller-kva.example.org", True),
    "an underscore": ("my_host.example.org", b"my_host.example.org", True),
    "Unicode in the certificate": ("xn--mller-kva.example.org", "müller.example.org".encode(), 0),
    "no host": ("", b"", False),
    "a wildcard that is asked for": ("*.example.org", b"*.example.org", False),
}


@pytest.mark.parametrize("which", [*ADDRESSES, *NAMES])
def test_what_proves_a_host(grid: Grid, which: str) -> None:
    if which in ADDRESSES:
        name, extension, proved = ADDRESSES[which]
    else:
        name, entry, proved = NAMES[which]
        extension = Extension(SAN, seq(tlv(DNS, entry)))
    shown = end_entity("/C=CA/O=Grid/CN=x", grid.ca, more=[extension])
    assert proves_name(shown.certificate, name) is bool(proved)


@pytest_twisted.ensureDeferred
async def test_the_dot_that_ends_an_absolute_name_is_no_part_of_it(
    grid: Grid, listen: Listen
) -> None:
    port = await listen(AnyServer(host(grid.ca, *LOCAL)))
    creator = ClientTLS(None, grid.directory.path).creatorForNetloc(b"localhost.", port)
    address = TCP4ClientEndpoint(reactor, "127.0.0.1", port)  # some resolvers know no "localhost."
    greeting = await connectProtocol(wrapClientTLS(creator, address), Greeting())
    assert (await greeting.heard).startswith(b"HTTP/1.1 200 OK")
    greeting.transport.abortConnection()


def test_64_kilobytes_of_names_take_no_time(grid: Grid) -> None:
    many = b"".join(tlv(DNS, b"*.a%d.b" % n) for n in range(6500)) + GOOD
    assert len(many) > 2**16
    shown = named(grid.ca, many).certificate
    begun = time.process_time()
    assert proves_name(shown, "localhost")
    assert not proves_name(shown, "elsewhere.a1")
    assert time.process_time() - begun < 1


def test_the_usable_names_of_our_own_host_are_found_beside_odd_ones(grid: Grid) -> None:
    entries = b"".join(ODD.values()) + GOOD + tlv(IP, b"\x7f\0\0\1")
    found = host_names(named(grid.ca, entries).certificate)
    assert found[-2:] == ("localhost", "127.0.0.1")
    assert set(found) == {"localhost", "127.0.0.1", "my_host.example.org"}
