"""A credential that was named is used, or refused: never dropped in silence."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytest_twisted

from repoman.errors import CredentialProblem, TrustUnreadable
from repoman.gsi.credential import ClientCredential
from repoman.tls import ClientTLS, ServerTLS, TlsSettings
from tests.credentials import DAY, Grid, authority, end_entity, host, now, write_private
from tests.gsi.test_credential_files import DROPPED, GOOD, KEYS, SUB, pkcs8
from tests.tls.conftest import Lookout
from tests.tls.door import Door
from tests.tls.test_client_tls import get

ROGER = "/C=CA/O=Grid/CN=Roger Impey"

NEWER = ["brainpoolP256r1"]
"""Keys that TLS 1.3 alone has a signature for (RFC 8734)."""


async def shown_to(door: Door, grid: Grid, path: Path, version: int) -> str:
    """What the server says to who shows what is in the file."""
    client = ClientTLS(ClientCredential.read(path, now=now()), grid.directory.path)
    client._context.set_max_proto_version(version)
    return await get(client, door.number)


@pytest.mark.parametrize("which", KEYS)
@pytest_twisted.ensureDeferred
async def test_a_key_that_is_taken_is_shown(
    door: Door, grid: Grid, tmp_path: Path, version: int, which: str
) -> None:
    """As a proxy's key, and as an end entity's; where TLS cannot, the handshake fails aloud."""
    key = KEYS[which]()
    proxy, user = grid.user().proxy(key=key), grid.user(key=key)
    path = tmp_path / "x509up"
    for content in (proxy.pem() + pkcs8(key) + grid.user().pem(), user.pem() + pkcs8(key)):
        answer = await shown_to(door, grid, write_private(path, content), version)
        if which in NEWER and "refused: " in answer:
            assert "disagree about the handshake" in answer
        else:
            assert f'"dn": "{ROGER}"' in answer, answer


@pytest.mark.parametrize("which", DROPPED)
def test_a_key_that_would_not_be_shown_is_refused_before_anybody_is_asked(
    grid: Grid, settings: TlsSettings, clock: Lookout, tmp_path: Path, which: str
) -> None:
    key, words = DROPPED[which][0](), DROPPED[which][1]
    path = write_private(tmp_path / "x509up", grid.user(key=key).pem() + pkcs8(key))
    with pytest.raises(CredentialProblem, match=words):
        ClientCredential.read(path)
    made = host(grid.ca, "localhost", key=key)
    settings.certificate.write_bytes(made.pem())
    write_private(settings.key, pkcs8(key))
    with pytest.raises(TrustUnreadable, match=f"{words}.*Set certificate and key in section"):
        ServerTLS(settings, clock).load()


@pytest.mark.parametrize("which", GOOD)
@pytest_twisted.ensureDeferred
async def test_what_else_lies_in_the_file_keeps_nobody_out(
    door: Door, grid: Grid, tmp_path: Path, version: int, which: str
) -> None:
    sub = authority(SUB, grid.ca)
    user = end_entity(ROGER, sub)
    parts = GOOD[which](user.proxy(), user, sub, grid)
    path = write_private(tmp_path / "x509up", b"".join(parts))
    answer = await shown_to(door, grid, path, version)
    assert f'"dn": "{ROGER}"' in answer, answer


@pytest_twisted.ensureDeferred
async def test_a_sub_ca_that_was_renewed_at_the_server_alone(
    door: Door, grid: Grid, tmp_path: Path, version: int
) -> None:
    """The file has the old one, of the same name and key: the server knows better."""
    old = authority(SUB, grid.ca, begins=now() - 9 * DAY, ends=now() - DAY)
    grid.directory.add(authority(SUB, grid.ca))
    door.tls.load()
    user = end_entity(ROGER, old)
    path = write_private(tmp_path / "x509up", user.pem() + user.key_pem() + old.pem())
    answer = await shown_to(door, grid, path, version)
    assert f'"dn": "{ROGER}"' in answer, answer
