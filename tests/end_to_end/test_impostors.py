"""A second trusted CA wants to be the administrator: at the real server, with a real database."""

from __future__ import annotations

import http.client
import itertools
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.credentials import Credential, authority, end_entity, name_hash, p256_key, rsa_key
from tests.postgres import on_server
from tests.server import ADMIN, Answer, Daemon

FIRST = "/C=CA/O=Grid/CN=Test CA"
SECOND = "/C=XX/CN=Second CA"
BETWEEN = "/C=CA/O=Grid/CN=Between"

VERSIONS = {"TLS 1.2": ssl.TLSVersion.TLSv1_2, "TLS 1.3": ssl.TLSVersion.TLSv1_3}
_numbers = itertools.count()


@pytest.fixture(scope="module", params=["if-present", "off"])
def grid(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Daemon]:
    """A server that trusts two CAs; neither has a CRL file, or CRLs are off."""
    daemon = Daemon(tmp_path_factory.mktemp("grid"), tls={"crl": request.param})
    directory = daemon.grid.directory
    second = authority(SECOND)
    directory.add(second, revokes=None)
    if request.param == "if-present":
        (directory.path / f"{name_hash(daemon.grid.ca)}.r0").unlink()
    with daemon.running():
        yield daemon


def second() -> Credential:
    return authority(SECOND)


def between(issuer: Credential, whose: str) -> Credential:
    """A CA that does not lie in the directory: anybody may call one so."""
    return authority(BETWEEN, issuer, key=rsa_key(f"between {whose}"))


@pytest.fixture(params=VERSIONS.values(), ids=VERSIONS)
def version(request: pytest.FixtureRequest) -> ssl.TLSVersion:
    return request.param  # type: ignore[no-any-return]  # untyped


def whoami(daemon: Daemon, dn: str, issuer: Credential, version: ssl.TLSVersion) -> Answer:
    """Come with a proxy of a certificate that ``issuer`` made."""
    user = end_entity(dn, issuer, key=p256_key("somebody"))
    path = user.proxy(key=p256_key("proxy")).write(daemon.directory / f"came{next(_numbers)}")
    context = ssl.create_default_context(capath=str(daemon.ca_directory))
    context.minimum_version = context.maximum_version = version
    context.load_cert_chain(path)
    connection = http.client.HTTPSConnection("localhost", daemon.https, context=context)
    connection.request("GET", "/api/whoami?view=full")
    response = connection.getresponse()
    headers = {k.title(): v for k, v in response.getheaders()}
    answer = Answer(response.status, response.reason, headers, response.read())
    connection.close()
    return answer


def test_a_second_ca_that_bears_the_firsts_name_is_not_the_administrator(
    grid: Daemon, version: ssl.TLSVersion
) -> None:
    true = whoami(grid, grid.admin.dn, grid.grid.ca, version)
    assert (true.status, true.json["user_name"]) == (200, ADMIN)
    assert true.json["credential"]["anchor"] == FIRST
    impostor = authority(FIRST, second(), key=rsa_key("impostor"))
    refused = whoami(grid, grid.admin.dn, impostor, version)
    assert refused.status == 403
    assert f"The certificate authority {FIRST} bears the name of one that is trusted here" in (
        refused.text
    )


def bound(daemon: Daemon, dn: str) -> tuple[str | None, str | None]:
    [row] = on_server(daemon.dsn, f"SELECT issuer, anchor FROM login WHERE subject = '{dn}'")
    return row  # type: ignore[return-value]  # two columns


def user(daemon: Daemon, **fields: str) -> tuple[str, str]:
    name = f"bound{next(_numbers)}"
    dn = f"/C=CA/O=Grid/CN=Person {name}"
    form = {"user_name": name, "cert_dn": dn, **fields}
    assert daemon.admin.ask("POST", "/api/users", form=form).status == 200
    return name, dn


def test_a_ca_outside_the_directory_is_bound_with_the_one_that_it_hangs_from(
    grid: Daemon, version: ssl.TLSVersion
) -> None:
    name, dn = user(grid)
    true, false = between(grid.grid.ca, "true"), between(second(), "false")
    assert whoami(grid, dn, true, version).json["user_name"] == name
    assert bound(grid, dn) == (BETWEEN, FIRST)
    refused = whoami(grid, dn, false, version)
    assert refused.status == 403
    assert f"The account of {dn} is bound to another certificate authority" in refused.text
    assert f"{BETWEEN}, a CA below {SECOND}" in refused.text
    assert whoami(grid, dn, true, version).status == 200
    rows = grid.admin.ask("GET", f"/api/audit?action=user.bind&subject={name}").json
    [entry] = rows if isinstance(rows, list) else rows["entries"]
    assert entry["detail"] == {"dn": dn, "issuer_dn": BETWEEN, "anchor_dn": FIRST}


def test_a_binding_of_an_older_repoman_keeps_nobody_out_and_is_completed(
    grid: Daemon, version: ssl.TLSVersion
) -> None:
    for issuer, called, anchor in (
        (grid.grid.ca, FIRST, FIRST),
        (between(grid.grid.ca, "true"), BETWEEN, FIRST),
    ):
        name, dn = user(grid)
        # Nobody has asked for this DN yet, so the server remembers nothing of it.
        on_server(grid.dsn, f"UPDATE login SET issuer = '{called}' WHERE subject = '{dn}'")
        other = whoami(grid, dn, second(), version)
        assert other.status == 403
        assert bound(grid, dn) == (called, None)
        assert whoami(grid, dn, issuer, version).json["user_name"] == name
        assert bound(grid, dn) == (called, anchor)
        assert whoami(grid, dn, between(second(), "false"), version).status == 403


def _command(daemon: Daemon, *words: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "repoman.cli", "-H", "localhost", "--port", str(daemon.https),
         "--proxy", str(daemon.admin.proxy), "--ca-dir", str(daemon.ca_directory), *words],
        check=True, timeout=60, env={**os.environ, "HOME": str(daemon.directory)},
    )  # fmt: skip


def test_an_administrator_gives_sees_and_takes_back_what_is_bound(
    grid: Daemon, version: ssl.TLSVersion
) -> None:
    name, dn = user(grid, issuer_dn=BETWEEN, anchor_dn=FIRST)
    true, false = between(grid.grid.ca, "true"), between(second(), "false")
    path = f"/api/users/{name}?view=full"
    assert whoami(grid, dn, false, version).status == 403
    seen = grid.admin.ask("GET", path).json["bindings"]
    assert seen == [{"dn": dn, "issuer_dn": BETWEEN, "anchor_dn": FIRST}]
    assert whoami(grid, dn, true, version).status == 200
    for form, then in (
        ({"anchor_dn": SECOND}, (BETWEEN, SECOND)),
        ({"issuer_dn": BETWEEN}, (BETWEEN, None)),
        ({"anchor_dn": FIRST, "issuer_dn": BETWEEN}, (BETWEEN, FIRST)),
        ({"email": f"{name}@example.org"}, (BETWEEN, FIRST)),
        ({"client_dns": f"{dn}\n{dn} 2"}, (BETWEEN, FIRST)),
        ({"client_dns": dn}, (BETWEEN, FIRST)),
        ({"issuer_dn": ""}, (None, None)),
        ({"issuer_dn": "", "anchor_dn": FIRST}, (None, FIRST)),
    ):
        changed = grid.admin.ask("POST", path, form=form).json["bindings"][0]
        assert (changed["issuer_dn"], changed["anchor_dn"]) == then
        assert bound(grid, dn) == then
        # ... and each counts at once
        admitted = then != (BETWEEN, SECOND)
        assert (whoami(grid, dn, true, version).status == 200) is admitted
    for anchor in (SECOND, "", FIRST):
        _command(grid, "modify-user", name, "--anchor_dn", anchor)
        assert bound(grid, dn) == (BETWEEN, anchor or None)
    stranger = grid.newcomer()
    assert stranger.ask("GET", path).json["bindings"] is None
    refused = stranger.ask("POST", f"/api/users/{stranger.name}", form={"anchor_dn": SECOND})
    assert refused.status == 403
    wrong = grid.admin.ask("POST", path, form={"anchor_dn": "no DN"})
    assert wrong.status == 400
    assert "Bad DN" in wrong.text
