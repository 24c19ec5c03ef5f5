"""What the grid's programs make and send: proxies of each maker, up and down with each client."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from repoman.gsi.credential import ClientCredential
from tests.credentials import Extension, Grid, octets, p256_key, seq, utf8
from tests.server import Daemon, Person
from tests.tls.test_trust_real_tools import TOOLS, VOMS_PROXY_FAKE, run_tool

MAKERS = [
    "grid-proxy-init",
    "voms-proxy-init",
    "voms-proxy-fake",
    "arcproxy",
    "arcproxy of arcproxy",
]
VOMS = "1.3.6.1.4.1.8005.100.100.5"
"""Where VOMS puts its attribute certificates."""


@pytest.fixture(scope="module")
def user(daemon: Daemon) -> Person:
    return daemon.newcomer()


@pytest.fixture(scope="module")
def proxies(daemon: Daemon, user: Person, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A function that makes a proxy of the user's, once for each maker."""
    made: dict[str, Path] = {}

    def make(maker: str, tool: list[str] | None = None) -> Path:
        if maker not in made:
            grid = Grid(tmp_path_factory.mktemp("maker"), daemon.grid.ca)
            files = grid.place / "usercert.pem", grid.place / "userkey.pem"
            assert user.credential is not None
            user.credential.write_pair(*files)
            first, _, second = maker.partition(" of ")
            made[maker] = run_tool(tool or TOOLS[first], grid, *files)
            if second:
                made[maker] = run_tool(TOOLS[second], grid, made[maker], made[maker])
        return made[maker]

    return make


def curl(person: Person, source: Path, url: str, back: Path) -> None:
    for words in (["-T", source, url], ["-o", back, url]):
        subprocess.run(["curl", "--fail", *person.curl, *map(str, words)], check=True, timeout=60)


def davix(person: Person, source: Path, url: str, back: Path) -> None:
    if shutil.which("davix-put") is None:
        pytest.skip("davix is not installed")
    options = ["-E", str(person.proxy), "--capath", str(person.daemon.ca_directory)]
    subprocess.run(["davix-put", *options, str(source), url], check=True, timeout=60)
    subprocess.run(["davix-get", *options, url, str(back)], check=True, timeout=60)


def python(person: Person, source: Path, url: str, back: Path) -> None:
    with source.open("rb") as body:
        length = {"Content-Length": str(source.stat().st_size)}
        assert person.ask("PUT", url, body=body, headers=length).status == 200
    back.write_bytes(person.ask("GET", url).body)


@pytest.mark.parametrize("client", [curl, davix, python])
@pytest.mark.parametrize("maker", MAKERS)
def test_up_and_down(
    daemon: Daemon, user: Person, proxies: Any, tmp_path: Path, maker: str, client: Any
) -> None:
    holder = Person(daemon, user.name, user.dn, proxies(maker))
    seen = holder.ask("GET", "/api/whoami?view=full").json["credential"]
    assert (seen["dn"], seen["proxies"], seen["limited"]) == (user.dn, 1 + (" of " in maker), False)
    name = f"{maker.replace(' ', '_')}-{client.__name__}"
    assert holder.ask("POST", "/api/images", form={"name": name}).status == 201
    source, back = tmp_path / "in", tmp_path / "out"
    source.write_bytes(os.urandom(1_000_003))
    client(holder, source, f"{daemon.url}/api/images/raw/{user.name}/{name}", back)
    assert back.read_bytes() == source.read_bytes()
    holder.hang_up()


def test_attribute_certificates_of_voms_have_no_influence(
    daemon: Daemon, user: Person, proxies: Any, tmp_path: Path
) -> None:
    """Whoever signed them, whatever they claim: they are not verified, so they say nothing."""
    claims = [word.replace("/testvo", "/admins/Role=admin") for word in VOMS_PROXY_FAKE]
    claims = [word if word != "testvo" else "admins" for word in claims]
    assert user.credential is not None
    key = p256_key("proxy")
    garbage = [
        user.credential.proxy(key=key, more=[Extension(VOMS, value)])
        for value in (b"", b"\xff" * 50, seq(octets(b"/admins")), utf8("/admins/Role=admin"))
    ]
    plain = user.ask("GET", "/api/whoami").json
    shown = [proxies("voms-proxy-fake"), proxies("voms-proxy-fake with claims", claims)]
    shown += [one.write(tmp_path / f"x509up{number}") for number, one in enumerate(garbage)]
    for proxy in shown:
        holder = Person(daemon, user.name, user.dn, proxy)
        assert holder.ask("GET", "/api/whoami").json == plain
        assert holder.ask("POST", "/api/groups", form={"name": "mine"}).status == 403
        holder.hang_up()
    claim = ClientCredential.read(proxies("voms-proxy-fake with claims")).credential.certificate
    assert b"/admins/Role=admin" in claim.public_bytes(Encoding.DER)


def test_a_critical_attribute_certificate_is_not_understood(
    daemon: Daemon, user: Person, tmp_path: Path
) -> None:
    assert user.credential is not None
    critical = Extension(VOMS, seq(octets(b"/admins")), critical=True)
    proxy = user.credential.proxy(key=p256_key("proxy"), more=[critical])
    holder = Person(daemon, user.name, user.dn, proxy.write(tmp_path / "x509up"))
    with suppress(OSError):  # an alert
        assert holder.ask("GET", "/api/whoami").status == 403
    holder.hang_up()
