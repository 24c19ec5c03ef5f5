"""The client's end: whom it believes, what it shows, and what it says when refused."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from OpenSSL import SSL
from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint, wrapServerTLS
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory, Protocol
from twisted.web.client import Agent
from twisted.web.resource import Resource
from twisted.web.server import Site
from zope.interface import implementer

from repoman.errors import CredentialProblem, TrustUnreadable
from repoman.gsi.advice import explain_alert
from repoman.gsi.credential import ClientCredential
from repoman.tls import ClientTLS, ServerTLS, TlsSettings
from tests.credentials import (
    CLIENT_AUTH,
    HOUR,
    Credential,
    Grid,
    authority,
    certificate,
    crl,
    end_entity,
    extended_key_usage,
    host,
    name_hash,
    now,
    rsa_key,
)
from tests.tls.conftest import Lookout
from tests.tls.door import VERSIONS, Door

LOCAL = ("localhost", "127.0.0.1")


class Hello(Resource):
    """Says who it thinks asks."""

    isLeaf = True
    tls: ServerTLS | None = None

    def render_GET(self, request: Any) -> bytes:
        if self.tls is None:
            return b"hello"
        peer = self.tls.peer(request.channel.transport.getHandle())
        return (peer.identity.subject if peer.identity else peer.refusal).encode()


@implementer(IOpenSSLServerConnectionCreator)
class AnyServer:
    """A server that shows whatever it is told to."""

    def __init__(self, shown: Credential, version: int = SSL.TLS1_3_VERSION) -> None:
        self.context = SSL.Context(SSL.TLS_SERVER_METHOD)
        self.context.set_cipher_list(b"ALL:@SECLEVEL=0")
        self.context.set_min_proto_version(version)
        self.context.set_max_proto_version(version)
        self.context.use_certificate(shown.certificate)
        for other in shown.sent:
            self.context.add_extra_chain_cert(other.certificate)
        self.context.use_privatekey(shown.key)

    def serverConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        return SSL.Connection(self.context, None)


Listen = Callable[[Any], Any]


@pytest_twisted.async_yield_fixture
async def listen() -> AsyncIterator[Listen]:
    ports = []

    async def listen(creator: Any, page: Resource | None = None) -> int:
        endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        port = await wrapServerTLS(creator, endpoint).listen(Site(page or Hello()))
        ports.append(port)
        return int(port.getHost().port)

    yield listen
    for port in ports:
        await port.stopListening()


async def get(client: ClientTLS, port: int, name: str = "localhost") -> str:
    """What the server says, or what the client says instead."""
    agent = HTTPClient(Agent(reactor, contextFactory=client))
    try:
        response = await agent.get(f"https://{name}:{port}/", timeout=10)
        return str(await response.text())
    except Exception as error:
        return f"refused: {explain_alert(error) or repr(error)}"


@pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)
@pytest.mark.parametrize("name", ["/C=CA/O=Grid/CN=Test CA", "/C=CA/O=GRID/CN=test  ca"])
@pytest_twisted.ensureDeferred
async def test_a_ca_that_bears_a_trusted_name_with_another_key_proves_no_server(
    grid: Grid, listen: Listen, name: str, version: int
) -> None:
    """Whom a user trusts is a key as well: the second CA has no policy that would say it."""
    second = authority("/C=XX/CN=Second CA")
    grid.directory.add(second)
    impostor = authority(name, second, key=rsa_key("impostor"))
    between = authority("/C=XX/CN=Between", impostor)
    for issuer in (impostor, between):
        port = await listen(AnyServer(host(issuer, *LOCAL), version))
        said = await get(ClientTLS(None, grid.directory.path), port)
        assert said.startswith("refused: the server's certificate was refused: ")
        assert f"{name} bears the name of one that is trusted here, but has another key" in said
    honest = authority("/C=XX/CN=Honest", second)
    for issuer in (second, honest, authority(name, second, key=grid.ca.key)):
        port = await listen(AnyServer(host(issuer, *LOCAL), version))
        assert await get(ClientTLS(None, grid.directory.path), port) == "hello"


@pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)
@pytest.mark.parametrize("name", LOCAL)
@pytest_twisted.ensureDeferred
async def test_a_good_server(grid: Grid, listen: Listen, name: str, version: int) -> None:
    port = await listen(AnyServer(host(grid.ca, *LOCAL), version))
    assert await get(ClientTLS(None, grid.directory.path), port, name) == "hello"


@pytest_twisted.ensureDeferred
async def test_below_a_sub_ca_that_it_sends(grid: Grid, listen: Listen) -> None:
    sub = authority("/C=CA/O=Grid/CN=Sub CA", grid.ca)
    port = await listen(AnyServer(host(sub, *LOCAL)))
    assert await get(ClientTLS(None, grid.directory.path), port) == "hello"


HOSTS = {
    "another name": (("www.example.org",), "not for localhost"),
    "no name at all": ((), "not for localhost"),
    "a name that only begins so": (("localhost.example.org",), "not for localhost"),
    "a wildcard": (("*",), "not for localhost"),
    "the address instead of the name": (("127.0.0.1",), "not for localhost"),
}


@pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)
@pytest.mark.parametrize("names", HOSTS)
@pytest_twisted.ensureDeferred
async def test_a_certificate_for_somebody_else(
    grid: Grid, listen: Listen, names: str, version: int
) -> None:
    """Even without any subjectAltName, which Twisted's own check lets pass."""
    alternatives, reason = HOSTS[names]
    shown = host(grid.ca, *alternatives, subject="/C=CA/O=Grid/CN=localhost")
    port = await listen(AnyServer(shown, version))
    assert reason in await get(ClientTLS(None, grid.directory.path), port)


@pytest_twisted.ensureDeferred
async def test_the_name_instead_of_the_address(grid: Grid, listen: Listen) -> None:
    port = await listen(AnyServer(host(grid.ca, "localhost")))
    answer = await get(ClientTLS(None, grid.directory.path), port, "127.0.0.1")
    assert answer == "refused: the server's certificate is not for 127.0.0.1"


SERVERS: dict[str, tuple[Callable[[Grid], Credential], str]] = {
    "expired": (lambda grid: host(grid.ca, *LOCAL, ends=now() - HOUR), "has expired"),
    "of tomorrow": (lambda grid: host(grid.ca, *LOCAL, begins=now() + HOUR), "not valid yet"),
    "unknown CA": (lambda grid: host(authority("/C=XX/CN=X"), *LOCAL), "not known"),
    "self-signed": (lambda grid: certificate("/CN=localhost", rsa_key("x")), "self-signed"),
    "a proxy": (lambda grid: host(grid.ca, *LOCAL).proxy(), "the server's certificate was refused"),
    "for clients only": (
        lambda grid: host(grid.ca, *LOCAL, purpose=extended_key_usage(CLIENT_AUTH)),
        "not meant for this",
    ),
    "a small key": (lambda grid: host(grid.ca, *LOCAL, key=rsa_key("small", 1024)), "too small"),
    "SHA-1": (lambda grid: host(grid.ca, *LOCAL, digest="sha1"), "too weak"),
    "signed by a user": (lambda grid: host(grid.user(), *LOCAL), "was refused"),
    "a name that its CA may not issue": (
        lambda grid: host(grid.ca, *LOCAL, subject="/C=XX/CN=localhost"),
        "may not issue /C=XX/CN=localhost",
    ),
}


@pytest.mark.parametrize("which", SERVERS)
@pytest_twisted.ensureDeferred
async def test_servers_that_are_not_believed(grid: Grid, listen: Listen, which: str) -> None:
    make, reason = SERVERS[which]
    shown = make(grid)
    port = await listen(AnyServer(shown))
    answer = await get(ClientTLS(None, grid.directory.path), port)
    assert answer.startswith("refused: ")
    assert reason in answer


@pytest_twisted.ensureDeferred
async def test_a_revoked_server(grid: Grid, listen: Listen) -> None:
    shown = host(grid.ca, *LOCAL)
    port = await listen(AnyServer(shown))
    assert await get(ClientTLS(None, grid.directory.path), port) == "hello"
    grid.revoke(shown)
    assert "was revoked by" in await get(ClientTLS(None, grid.directory.path), port)


@pytest_twisted.ensureDeferred
async def test_crls_are_looked_at_where_they_are(grid: Grid, listen: Listen) -> None:
    port = await listen(AnyServer(host(grid.ca, *LOCAL)))
    path = grid.directory.path / f"{name_hash(grid.ca)}.r0"
    path.write_bytes(crl(grid.ca, ends=now() - HOUR / 2))
    assert "expired at" in await get(ClientTLS(None, grid.directory.path), port)
    path.write_bytes(b"broken")
    assert "cannot be used" in await get(ClientTLS(None, grid.directory.path), port)
    path.unlink()
    assert await get(ClientTLS(None, grid.directory.path), port) == "hello"


@pytest_twisted.ensureDeferred
async def test_hashes_need_not_be_right(grid: Grid, listen: Listen) -> None:
    port = await listen(AnyServer(host(grid.ca, *LOCAL)))
    for file in list(grid.directory.path.iterdir()):
        file.rename(file.with_name("00000000" + file.suffix))
    assert await get(ClientTLS(None, grid.directory.path), port) == "hello"


# -- what is shown --------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest_twisted.ensureDeferred
async def test_the_whole_chain_is_sent(
    grid: Grid, settings: TlsSettings, clock: Lookout, listen: Listen, tmp_path: Path, depth: int
) -> None:
    sub = authority("/C=CA/O=Grid/CN=Sub CA", grid.ca)
    credential = end_entity("/C=CA/O=Grid/CN=Roger Impey", sub)
    for _ in range(depth):
        credential = credential.proxy()
    page = Hello()
    page.tls = ServerTLS(settings, clock)
    page.tls.load()
    port = await listen(page.tls, page)
    shown = ClientCredential.read(credential.write(tmp_path / "x509up"))
    answer = await get(ClientTLS(shown, grid.directory.path), port)
    assert answer == "/C=CA/O=Grid/CN=Roger Impey"


@pytest_twisted.ensureDeferred
async def test_anonymous(grid: Grid, settings: TlsSettings, clock: Lookout, listen: Listen) -> None:
    page = Hello()
    page.tls = ServerTLS(settings, clock)
    page.tls.load()
    port = await listen(page.tls, page)
    assert "You showed no certificate" in await get(ClientTLS(None, grid.directory.path), port)


ADVICE = {
    "expired": "make a new one with grid-proxy-init",
    "unknown CA": "does not trust the certificate authority",
    "revoked": "was revoked",
}


@pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)
@pytest.mark.parametrize("why", ADVICE)
@pytest_twisted.ensureDeferred
async def test_alerts_become_advice(
    door: Door, grid: Grid, tmp_path: Path, why: str, version: int
) -> None:
    """Under TLS 1.3 the client learns of it only when it reads."""
    user = grid.user()
    credential = {
        "expired": user.proxy(ends=now() - HOUR / 2),
        "unknown CA": end_entity("/C=XX/CN=Anna", authority("/C=XX/CN=X")).proxy(),
        "revoked": user.proxy(),
    }[why]
    if why == "revoked":
        grid.revoke(user)
        door.tls.load()
    shown = ClientCredential.read(credential.write(tmp_path / "x509up"))
    client = ClientTLS(shown, grid.directory.path)
    client._context.set_max_proto_version(version)
    answer = await get(client, door.number)
    assert ADVICE[why] in answer, answer


class PlainHTTP(Protocol):
    """Answers anything as a web server does that hears no HTTP."""

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@pytest_twisted.ensureDeferred
async def test_a_server_without_tls(grid: Grid) -> None:
    endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
    port = await endpoint.listen(Factory.forProtocol(PlainHTTP))
    answer = await get(ClientTLS(None, grid.directory.path), port.getHost().port)
    assert answer == "refused: the server does not speak TLS on this port"
    await port.stopListening()


def test_a_key_that_is_too_small(grid: Grid, tmp_path: Path) -> None:
    weak = grid.user(key=rsa_key("small", 1024)).write(tmp_path / "x509up")
    words = f"{weak} .its key is too small.; make a new one with grid-proxy-init -bits 2048"
    with pytest.raises(CredentialProblem, match=words):
        ClientTLS(ClientCredential.read(weak), grid.directory.path)


def test_no_ca_to_trust(tmp_path: Path) -> None:
    with pytest.raises(TrustUnreadable, match=f"directory {tmp_path} holds no certificate author"):
        ClientTLS(None, tmp_path)
    with pytest.raises(TrustUnreadable, match=r"/nowhere cannot be read .No such file"):
        ClientTLS(None, tmp_path / "nowhere")
