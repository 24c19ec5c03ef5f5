"""One alert has several causes: the client looks at what it has before it blames it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from attrs import frozen
from cryptography.x509 import load_pem_x509_crl
from OpenSSL import SSL
from OpenSSL.crypto import X509, X509StoreFlags
from twisted.internet import reactor
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from zope.interface import implementer

from repoman.client.credentials import CredentialFiles
from repoman.client.exchange import Exchange
from repoman.client.renewal import RenewableTLS
from repoman.errors import ConnectionProblem, CredentialProblem, CredentialRefused, RepomanError
from repoman.gsi.advice import explain_alert, own_error
from repoman.gsi.credential import ClientCredential
from repoman.gsi.examination import look
from tests.credentials import (
    DAY,
    HOUR,
    SERVER_AUTH,
    Credential,
    Grid,
    authority,
    crl,
    end_entity,
    extended_key_usage,
    host,
    name_hash,
    now,
    p256_key,
    rsa_key,
)
from tests.tls.door import VERSIONS, Door
from tests.tls.test_client_tls import LOCAL, Listen
from tests.tls.test_client_tls import listen as listen

ROGER = "/C=CA/O=Grid/CN=Roger Impey"
SUB = "/C=CA/O=Grid/CN=Sub CA"
IN_ORDER = "is in order as far as can be seen here (valid until "
ADMINISTRATOR = "tell its administrator"


@frozen
class Case:
    """Why a server refuses, and what the client is to say.

    :ivar made: the credential; may change what the server, and what the client, believes.
    :ivar alert: what the server sends.
    :ivar words: what the client says then, among others.
    """

    made: Callable[[Grid, Path], Credential]
    alert: str
    words: tuple[str, ...]


def server_crl(grid: Grid, content: bytes) -> None:
    (grid.directory.path / f"{name_hash(grid.ca)}.r0").write_bytes(content)


def with_server_crl(content: Callable[[Grid], bytes], here: bool = False) -> Any:
    """A good proxy; the server's CRL is this, and the client's too if it is ``here``."""

    def made(grid: Grid, client: Path) -> Credential:
        server_crl(grid, content(grid))
        if here:
            shutil.copy(grid.directory.path / f"{name_hash(grid.ca)}.r0", client)
        return grid.user().proxy()

    return made


def below(sub: Callable[[Grid], Credential]) -> Callable[[Grid, Path], Credential]:
    return lambda grid, client: end_entity(ROGER, sub(grid)).proxy()


def of_a_ca_known_here(grid: Grid, client: Path) -> Credential:
    other = authority("/C=XX/CN=Other")
    (client / "0123abcd.0").write_bytes(other.pem())
    return end_entity("/C=XX/CN=Anna", other).proxy()


def deep(proxies: int) -> Callable[[Grid, Path], Credential]:
    def made(grid: Grid, client: Path) -> Credential:
        credential = grid.user()
        for number in range(proxies):
            credential = credential.proxy(key=p256_key(f"deep {number % 2}"))
        return credential

    return made


BLAMELESS = (IN_ORDER, "issued by /C=CA/O=Grid/CN=Test CA", ADMINISTRATOR)
CASES = {
    "the server's CRL has ended": Case(
        with_server_crl(lambda g: crl(g.ca, begins=now() - 2 * DAY, ends=now() - DAY)),
        "certificate expired", (*BLAMELESS, "the server's CRL of your certificate authority"),
    ),
    "the CRL has ended here as well": Case(
        with_server_crl(lambda g: crl(g.ca, begins=now() - 2 * DAY, ends=now() - DAY), here=True),
        "certificate expired", ("/CN=Test CA", "expired at", "run fetch-crl"),
    ),
    "a sub-CA has expired": Case(
        below(lambda g: authority(SUB, g.ca, begins=now() - 2 * DAY, ends=now() - DAY)),
        "certificate expired", (f"the certificate authority {SUB} in ", "expired at"),
    ),
    "a proxy is not valid yet": Case(
        lambda g, c: g.user().proxy(begins=now() + HOUR),
        "bad certificate", ("is valid only from ", "set the clock of this machine"),
    ),
    "the end entity is not valid yet": Case(
        lambda g, c: g.user(begins=now() + HOUR).proxy(),
        "bad certificate", ("is valid only from ", "set the clock of this machine"),
    ),
    "the server's CRL is of the future": Case(
        with_server_crl(lambda g: crl(g.ca, begins=now() + DAY)),
        "bad certificate", (*BLAMELESS, "is of the future"),
    ),
    "the CRL is of the future here as well": Case(
        with_server_crl(lambda g: crl(g.ca, begins=now() + DAY), here=True),
        "bad certificate", ("/CN=Test CA", "is not valid before", "run fetch-crl"),
    ),
    "the end entity's key is small": Case(
        lambda g, c: g.user(key=rsa_key("small", 1024)).proxy(),
        "bad certificate", (f"{ROGER} in ", "a key of 1024 bits only", "get a new certificate"),
    ),
    "a weak signature of the CA's": Case(
        lambda g, c: g.user(digest="sha1").proxy(),
        "bad certificate", (f"{ROGER} in ", "signed with SHA1", "get a new certificate"),
    ),
    "the CA is trusted here, and not there": Case(
        of_a_ca_known_here, "unknown ca",
        (IN_ORDER, "issued by /C=XX/CN=Other", "the server does not trust the", ADMINISTRATOR),
    ),
    "the CA is trusted nowhere": Case(
        lambda g, c: end_entity("/C=XX/CN=Anna", authority("/C=XX/CN=Other")).proxy(),
        "unknown ca", ("/C=XX/CN=Anna in ", "issued by /C=XX/CN=Other", "is neither in that file"),
    ),
    "the sub-CA is missing in the file": Case(
        lambda g, c: Credential(
            *(lambda u: (u.der, u.key, u.subject, u.serial, (u.issuers[0],)))(
                end_entity(ROGER, authority(SUB, g.ca)))),
        "unknown ca", (f"issued by {SUB}", "add its certificate to the file"),
    ),
    "too many proxies": Case(
        deep(13), "unknown ca", ("has 13 proxies one below the other, and 8 are the most",),
    ),
    "revoked": Case(
        with_server_crl(lambda g: crl(g.ca, [g.user()])), "certificate revoked", (),
    ),
    "a wrong signature": Case(
        lambda g, c: end_entity(ROGER, g.ca, signer=rsa_key("another")),
        "decrypt error", (f"{ROGER} in ", "not signed with the key of the one of this name"),
    ),
}  # fmt: skip


async def said(
    tls: RenewableTLS, number: int, version: int, whom: type[RepomanError] = CredentialRefused
) -> str:
    tls._tls._context.set_max_proto_version(version)
    exchange = Exchange(reactor, f"https://localhost:{number}", tls, retry_delays=())
    try:
        with pytest.raises(whom) as refusal:
            await exchange.json("GET", "/api/whoami")
    finally:
        await exchange.close()
    message = refusal.value.message
    assert message.endswith(".")
    assert not message.endswith("..")
    assert "\n" not in message
    return message


def bare(error: str) -> str:
    """What is said of an alert by who knows no credential."""
    return explain_alert(SSL.Error([("SSL routines", "", f"tls alert {error}")]))


@pytest.mark.parametrize("which", CASES)
@pytest_twisted.ensureDeferred
async def test_the_cause_that_can_be_seen_is_named_and_no_other_blamed(
    door: Door, grid: Grid, tmp_path: Path, version: int, which: str
) -> None:
    client = tmp_path / "client"
    shutil.copytree(grid.directory.path, client)
    case = CASES[which]
    path = case.made(grid, client).write(tmp_path / "x509up")
    if which == "revoked":
        server_crl(grid, crl(grid.ca, [read_end_entity(path)]))
    door.tls.load()
    tls = RenewableTLS(CredentialFiles(path, path, "test"), client)
    # Under TLS 1.3 the client refuses the server by its own CRL before it hears that it is refused.
    whom = RepomanError if "run fetch-crl" in case.words else CredentialRefused
    message = await said(tls, door.number, version, whom)
    for words in case.words:
        assert words in message, message
    sight = tls.look(case.alert)
    assert sight is not None
    if whom is CredentialRefused:
        assert sight.found in message
    if IN_ORDER in case.words:
        assert "make a new" not in message
        assert f'the server says "{case.alert}"' in message


def read_end_entity(path: Path) -> int:
    return ClientCredential.read(path).end_entity.serial_number


@implementer(IOpenSSLServerConnectionCreator)
class StrictServer:
    """A server that leaves all to OpenSSL, and wants a certificate."""

    def __init__(self, grid: Grid, revocations: bytes | None = None) -> None:
        shown = host(grid.ca, *LOCAL)
        self.context = SSL.Context(SSL.TLS_SERVER_METHOD)
        self.context.use_certificate(shown.certificate)
        self.context.use_privatekey(shown.key)
        store = self.context.get_cert_store()
        assert store is not None
        store.add_cert(X509.from_cryptography(grid.ca.certificate))
        store.set_flags(X509StoreFlags.ALLOW_PROXY_CERTS)
        if revocations is not None:
            store.add_crl(load_pem_x509_crl(revocations))
            store.set_flags(X509StoreFlags.CRL_CHECK | X509StoreFlags.CRL_CHECK_ALL)
        mode = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT
        self.context.set_verify(mode, lambda connection, certificate, error, depth, ok: bool(ok))

    def serverConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        return SSL.Connection(self.context, None)


STRICT: dict[str, tuple[Callable[[Grid], Credential], str]] = {
    "an old proxy": (
        lambda g: g.user().legacy_proxy(), "make a new one with grid-proxy-init -rfc"
    ),
    "for servers only": (
        lambda g: g.user(purpose=extended_key_usage(SERVER_AUTH)), "not meant for clients"
    ),
    "more proxies than one allows": (
        lambda g: g.user().proxy(path_length=0).proxy(), "allows 0 more below it, and 1 are there"
    ),
    "a proxy named like its end entity": (
        lambda g: g.user().proxy(name=g.user().subject), "is not its issuer's plus one"
    ),
}  # fmt: skip


@pytest.mark.parametrize("which", STRICT)
@pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)
@pytest_twisted.ensureDeferred
async def test_a_rule_that_is_broken_is_seen_whatever_the_alert(
    grid: Grid, listen: Listen, tmp_path: Path, version: int, which: str
) -> None:
    make, words = STRICT[which]
    path = make(grid).write(tmp_path / "x509up")
    tls = RenewableTLS(CredentialFiles(path, path, "test"), grid.directory.path)
    message = await said(tls, await listen(StrictServer(grid)), version)
    assert words in message, message


@pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)
@pytest_twisted.ensureDeferred
async def test_a_crl_that_somebody_else_signed_is_the_servers_to_mend(
    grid: Grid, listen: Listen, tmp_path: Path, version: int
) -> None:
    path = grid.user().proxy().write(tmp_path / "x509up")
    tls = RenewableTLS(CredentialFiles(path, path, "test"), grid.directory.path)
    port = await listen(StrictServer(grid, crl(grid.ca, key=rsa_key("another"))))
    message = await said(tls, port, version)
    for words in (*BLAMELESS, 'the server says "decrypt error"', "is not the authority's own"):
        assert words in message, message


@pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)
@pytest_twisted.ensureDeferred
async def test_who_shows_nothing_is_told_to_make_a_proxy(
    grid: Grid, listen: Listen, version: int
) -> None:
    tls = RenewableTLS(None, grid.directory.path)
    port = await listen(StrictServer(grid))
    if version == SSL.TLS1_3_VERSION:
        assert "make a proxy with grid-proxy-init" in await said(tls, port, version)
    else:  # the alert of TLS 1.2 says no more
        message = await said(tls, port, version, RepomanError)
        assert "or it wants a certificate that was not shown" in message


NOTHING_IN_COMMON: dict[str, tuple[Callable[[StrictServer], None], str]] = {
    "no version": (
        lambda server: server.context.set_max_proto_version(SSL.TLS1_2_VERSION),
        "the server and this client have no TLS version in common",
    ),
    "no cipher": (
        lambda server: server.context.set_tls13_ciphersuites(b"TLS_AES_128_CCM_SHA256"),
        "no TLS version or cipher in common",
    ),
}


@pytest.mark.parametrize("which", NOTHING_IN_COMMON)
@pytest_twisted.ensureDeferred
async def test_what_is_not_about_certificates_blames_none(
    grid: Grid, listen: Listen, tmp_path: Path, which: str
) -> None:
    spoil, words = NOTHING_IN_COMMON[which]
    server = StrictServer(grid)
    spoil(server)
    path = grid.user().proxy().write(tmp_path / "x509up")
    tls = RenewableTLS(CredentialFiles(path, path, "test"), grid.directory.path)
    tls._tls._context.set_min_proto_version(SSL.TLS1_3_VERSION)
    message = await said(tls, await listen(server), SSL.TLS1_3_VERSION, ConnectionProblem)
    assert words in message, message
    assert "make a new" not in message


EARLIER = {
    "expired": (lambda g: g.user().proxy(ends=now() - HOUR / 2), "make a new proxy with grid-pr"),
    "without its end entity": (
        lambda g: Credential(*(lambda p: (p.der, p.key, p.subject, p.serial))(g.user().proxy())),
        "lacks the certificate that signed the proxy",
    ),
    "of a small key": (
        lambda g: g.user().proxy(key=rsa_key("small", 1024)), "its key is too small"
    ),
}  # fmt: skip


@pytest.mark.parametrize("which", EARLIER)
def test_what_can_be_seen_before_is_told_before(grid: Grid, tmp_path: Path, which: str) -> None:
    make, words = EARLIER[which]
    path = make(grid).write(tmp_path / "x509up")
    with pytest.raises(CredentialProblem, match=words) as problem:
        RenewableTLS(CredentialFiles(path, path, "test"), grid.directory.path)
    assert str(path) in problem.value.message


def test_an_alert_about_nobodys_certificate_stays_what_it_is(grid: Grid, tmp_path: Path) -> None:
    shown = ClientCredential.read(grid.user().proxy().write(tmp_path / "x509up"))
    for alert in ("protocol version", "internal error", "access denied", "illegal parameter"):
        error = SSL.Error([("SSL routines", "", f"tlsv1 alert {alert}")])
        seen = explain_alert(error, lambda a: look(shown, grid.directory.path, now(), a))
        assert seen == bare(alert)
    ours = SSL.Error(own_error("the server is not it"))
    assert explain_alert(ours, lambda a: None) == "the server is not it"
