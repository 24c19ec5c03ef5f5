"""Random chains are accepted exactly when a plain restatement of the rules accepts them.

The restatement never looks at a certificate: it reads the description from
which the certificates are made.  Each handshake is a real one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL

from repoman.tls import ServerTLS, TlsSettings
from tests.credentials import (
    CERT_SIGN,
    CLIENT_AUTH,
    DIGITAL_SIGNATURE,
    HOUR,
    INDEPENDENT,
    INHERIT_ALL,
    KEY_ENCIPHERMENT,
    LIMITED,
    SERVER_AUTH,
    Credential,
    Grid,
    alternative_names,
    authority,
    basic_constraints,
    der,
    end_entity,
    extended_key_usage,
    integer,
    key_usage,
    now,
    octets,
    oid,
    rdn,
    rdns,
    rsa_key,
    seq,
)
from tests.credentials import Extension as Ext
from tests.tls.memory import shake_hands

USAGES = {
    "absent": None,
    "signs": key_usage(DIGITAL_SIGNATURE, KEY_ENCIPHERMENT),
    "enciphers": key_usage(KEY_ENCIPHERMENT),
    "certifies": key_usage(DIGITAL_SIGNATURE, CERT_SIGN),
}
PURPOSES = {
    "absent": None,
    "client": extended_key_usage(CLIENT_AUTH),
    "both": extended_key_usage(SERVER_AUTH, CLIENT_AUTH),
    "server": extended_key_usage(SERVER_AUTH),
}
LANGUAGES = {
    "inherit": INHERIT_ALL, "limited": LIMITED, "independent": INDEPENDENT, "unknown": "1.2.3.4",
}  # fmt: skip


@frozen
class Proxy:
    """How a proxy is to be made."""

    flavour: str
    language: str
    length: int | None
    usage: str
    purpose: str
    constraints: str
    name: str
    flaw: str


@frozen
class Story:
    """How a chain is to be made: the CAs, the person, and the proxies from there down."""

    sub_cas: tuple[int | None, ...]
    usage: str
    purpose: str
    issued_by_a_person: bool
    name: str
    proxies: tuple[Proxy, ...]


def mostly(good: list[Any], bad: list[Any]) -> st.SearchStrategy[Any]:
    """The good ones nearly always, so that whole chains of them come out."""
    return st.integers(0, 29).flatmap(lambda n: st.sampled_from(bad if n == 0 and bad else good))


def proxies_of(flavour: str) -> st.SearchStrategy[Proxy]:
    return st.builds(
        Proxy,
        flavour=mostly([flavour], ["rfc", "draft", "legacy"]),
        language=mostly(["inherit", "inherit", "inherit", "limited"], ["independent", "unknown"]),
        length=mostly([None, None, None, 0, 1, 2, 1000], [-1, 1001, 2**40]),
        usage=mostly(["signs", "absent"], ["enciphers", "certifies"]),
        purpose=mostly(["absent", "client", "both"], ["server"]),
        constraints=mostly(["absent", "no CA"], ["CA"]),
        name=mostly(["one more CN"], ["two more", "an OU", "the same", "another case", "two CNs"]),
        flaw=mostly(
            ["none"],
            ["expired", "future", "not critical", "octets", "trailing", "names", "stolen"],
        ),
    )


stories = st.builds(
    Story,
    sub_cas=mostly([(), (None,), (0,), (1, None), (None, 0)], [(0, None), (0, 0)]),
    usage=mostly(["signs", "absent"], ["enciphers"]),
    purpose=mostly(["client", "both", "absent"], ["server"]),
    issued_by_a_person=mostly([False], [True]),
    name=mostly(["Roger Impey", "Grid/CN=Eve"], ["proxy", "limited proxy", "", " x", "new\nline"]),
    proxies=st.tuples(
        st.sampled_from(["rfc", "rfc", "draft", "legacy"]), st.integers(0, 4)
    ).flatmap(lambda both: st.tuples(*[proxies_of(both[0])] * both[1])),
)

# -- the plain restatement ------------------------------------------------------------------


def rules(story: Story, legacy_allowed: bool) -> Iterator[tuple[str, bool]]:
    """Each rule, and whether the chain keeps it."""
    proxies = story.proxies
    for position, length in enumerate(story.sub_cas):
        below = len(story.sub_cas) - position - 1
        yield "a CA's path length counts the CAs below it", length is None or below <= length
    yield "only CAs certify", not story.issued_by_a_person
    yield "a name is what it seems", story.name in ("Roger Impey", "Grid/CN=Eve")
    yield "a person's key signs", story.usage != "enciphers"
    yield "a person is a client", story.purpose != "server"
    yield "one kind of proxy", len({p.flavour for p in proxies}) <= 1
    yield "old ones by leave", legacy_allowed or {p.flavour for p in proxies} <= {"rfc"}
    for position, proxy in enumerate(proxies):
        below = len(proxies) - position - 1
        yield "a proxy's key signs, and no certificates", proxy.usage in ("signs", "absent")
        yield "a proxy is a client", proxy.purpose != "server"
        yield "a proxy is no CA", proxy.constraints != "CA"
        yield "a proxy is named by one more CN", proxy.name == "one more CN"
        yield "no time, no theft, no other names", proxy.flaw not in (
            "expired", "future", "names", "stolen",
        )  # fmt: skip
        if proxy.flavour == "legacy":
            limited = proxy.language == "limited"
        else:
            limited = proxy.language == "limited"
            yield "languages", proxy.language in ("inherit", "limited")
            yield "ProxyCertInfo is exact", proxy.flaw not in ("not critical", "octets", "trailing")
            yield "path length", proxy.length is None or 0 <= proxy.length <= 1000
            yield "path length kept", proxy.length is None or below <= proxy.length
        if proxy.flavour == "rfc":
            # Not in the RFC, but OpenSSL has it so, and it takes nothing from anybody.
            given_above = [p.length - position + i for i, p in enumerate(proxies[:position])
                           if p.length is not None]  # fmt: skip
            more = proxy.length is not None and any(proxy.length > left for left in given_above)
            yield "nobody grants more than was granted", not more
        above = position > 0 and proxies[position - 1].language == "limited"
        yield "limited stays limited", limited or not above


# -- the certificates -----------------------------------------------------------------------


def certificates(story: Story, root: Credential) -> Credential:
    issuer = root
    for number, length in enumerate(story.sub_cas):
        issuer = authority(f"/C=CA/O=Grid/CN=Sub {number}", issuer, length)
    if story.issued_by_a_person:
        issuer = end_entity("/C=CA/O=Grid/CN=Mallory", issuer)
    name = rdns("/C=CA/O=Grid") + rdn(("CN", story.name))
    credential = end_entity(
        name, issuer, key=rsa_key("end"), usage=USAGES[story.usage],
        purpose=PURPOSES[story.purpose],
    )  # fmt: skip
    for proxy in story.proxies:
        credential = signed(proxy, credential)
    return credential


def signed(proxy: Proxy, issuer: Credential) -> Credential:
    more = [
        PURPOSES[proxy.purpose],
        {"absent": None, "no CA": basic_constraints(False), "CA": basic_constraints(True)}[
            proxy.constraints
        ],
        alternative_names("x.example.org") if proxy.flaw == "names" else None,
    ]
    bent: dict[str, Any] = {
        "name": subject(proxy, issuer.subject),
        "info": info(proxy),
        "usage": USAGES[proxy.usage],
        "more": [extension for extension in more if extension],
    }
    if proxy.flaw == "expired":
        bent["ends"] = now() - HOUR / 2
    if proxy.flaw == "future":
        bent["begins"] = now() + HOUR
    if proxy.flaw == "stolen":
        bent |= {"signer": rsa_key("thief"), "identifiers": False}
    return issuer.proxy(**bent)


def subject(proxy: Proxy, parent: bytes) -> bytes:
    last = "12345"
    if proxy.flavour == "legacy":
        last = "limited proxy" if proxy.language == "limited" else "proxy"
    return {
        "one more CN": parent + rdn(("CN", last)),
        "two more": parent + rdn(("CN", "1")) + rdn(("CN", last)),
        "an OU": parent + rdn(("OU", last)),
        "the same": parent,
        "another case": parent.lower().replace(b"grid", b"GRID") + rdn(("CN", last)),
        "two CNs": parent + rdn(("CN", last), ("CN", "x")),
    }[proxy.name]


def info(proxy: Proxy) -> Ext | None:
    if proxy.flavour == "legacy":
        return None
    policy = seq(oid(LANGUAGES[proxy.language]), octets(b"x") if proxy.flaw == "octets" else b"")
    length = b"" if proxy.length is None else integer(proxy.length)
    trailing = b"\x05\x00" if proxy.flaw == "trailing" else b""
    critical = proxy.flaw != "not critical"
    if proxy.flavour == "rfc":
        return Ext("1.3.6.1.5.5.7.1.14", seq(length, policy) + trailing, critical)
    length = length and der(0xA1, length)
    return Ext("1.3.6.1.4.1.3536.1.222", seq(policy, length) + trailing, critical)


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    return Grid(tmp_path_factory.mktemp("grid"))


def server(grid: Grid, legacy: bool) -> ServerTLS:
    certificate, key = grid.host("localhost")
    settings = TlsSettings(
        certificate, key, grid.directory.path, signing_policy="off", legacy_proxies=legacy
    )
    tls = ServerTLS(settings, now)
    tls.load()
    return tls


@pytest.fixture(scope="module")
def strict(grid: Grid) -> ServerTLS:
    return server(grid, legacy=False)


@pytest.fixture(scope="module")
def lenient(grid: Grid) -> ServerTLS:
    return server(grid, legacy=True)


def check(tls: ServerTLS, grid: Grid, story: Story, version: int, legacy: bool) -> None:
    credential = certificates(story, grid.ca)
    broken = [rule for rule, kept in rules(story, legacy) if not kept]
    verdict = shake_hands(tls, credential, version)
    told = f"{story}\nbroken: {broken}\nverdict: {verdict}"
    if broken:
        assert isinstance(verdict, str) or (verdict.identity is None and verdict.refusal), told
        return
    assert not isinstance(verdict, str), told
    assert verdict.identity is not None, told
    assert verdict.identity.subject == "/C=CA/O=Grid/CN=" + story.name.replace("/", "\\/")
    assert verdict.identity.proxies == len(story.proxies)
    assert verdict.identity.limited == any(p.language == "limited" for p in story.proxies)


versions = st.sampled_from([SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])


# Two functions: pytest-twisted runs a property once, not once for each parameter.
@given(story=stories, version=versions)
@settings(max_examples=200)
def test_accepted_exactly_when_the_rules_accept(
    strict: ServerTLS, grid: Grid, story: Story, version: int
) -> None:
    check(strict, grid, story, version, legacy=False)


@given(story=stories, version=versions)
@settings(max_examples=300)
def test_accepted_exactly_when_the_rules_accept_with_old_proxies(
    lenient: ServerTLS, grid: Grid, story: Story, version: int
) -> None:
    check(lenient, grid, story, version, legacy=True)
