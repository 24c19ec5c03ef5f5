"""A credential is shown as it is now: renewed ones are taken up, expired ones never shown."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import deferLater

from repoman import errors
from repoman.client.credentials import CredentialFiles
from repoman.client.renewal import RenewableTLS
from tests.client.conftest import make_client
from tests.client.scripted import CLOSE, ScriptedServer, json_reply
from tests.credentials import Grid, now


def test_a_renewed_proxy_is_taken_up(grid: Grid, tmp_path: Path) -> None:
    path, user = tmp_path / "proxy", grid.user()
    user.proxy().write(path)
    tls = RenewableTLS(CredentialFiles(path, path, "test"), grid.directory.path)
    first = tls.creatorForNetloc(b"localhost", 1).context
    assert tls.creatorForNetloc(b"localhost", 1).context is first
    user.proxy().write(path)
    assert tls.creatorForNetloc(b"localhost", 1).context is not first


@pytest_twisted.ensureDeferred
async def test_a_proxy_that_expires_meanwhile_is_told_before_connecting(
    grid: Grid, server: ScriptedServer, tmp_path: Path
) -> None:
    path = tmp_path / "proxy"
    grid.user().proxy(ends=now() + timedelta(seconds=3)).write(path)
    client = make_client(grid, CredentialFiles(path, path, "test"), server.url)
    server.scripts["GET /api/whoami"] = lambda _: json_reply({"user_name": "r"}) + CLOSE
    await client.whoami()
    await deferLater(reactor, 3.2)
    connected = server.connected
    with pytest.raises(errors.CredentialProblem, match=r"expired at .*grid-proxy-init"):
        await client.whoami()
    assert server.connected == connected
    path.unlink()
    grid.user().proxy().write(path)
    assert (await client.whoami())["user_name"] == "r"
    await client.close()
