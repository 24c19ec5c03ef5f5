"""A credential is shown as it is now: renewed ones are taken up, expired ones never shown."""

from __future__ import annotations

import shutil
from collections.abc import Callable
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
from tests.credentials import Credential, Grid, authority, end_entity, now, write_private


def test_a_renewed_proxy_is_taken_up(grid: Grid, tmp_path: Path) -> None:
    path, user = tmp_path / "proxy", grid.user()
    user.proxy().write(path)
    tls = RenewableTLS(CredentialFiles(path, path, "test"), grid.directory.path)
    first = tls.creatorForNetloc(b"localhost", 1).context
    assert tls.creatorForNetloc(b"localhost", 1).context is first
    user.proxy().write(path)
    assert tls.creatorForNetloc(b"localhost", 1).context is not first


def half(text: bytes) -> bytes:
    return text[: len(text) // 2]


HOUR = timedelta(hours=1)
# Each gets what may come to lie in the proxy's place, whole, of the same user and of another.
UNFIT: dict[str, Callable[[Credential, Credential, Grid], bytes | None]] = {
    "missing": lambda new, anna, grid: None,
    "empty": lambda new, anna, grid: b"",
    "half written": lambda new, anna, grid: half(contents(new)),
    "written up to its key": lambda new, anna, grid: new.pem() + new.key_pem(),
    "written into its end entity": lambda new, anna, grid: contents(new)[:-99],
    "written into its sub-CA": lambda new, anna, grid: contents(new) + half(grid.ca.pem()),
    "garbled": lambda new, anna, grid: b"\xff" * 4096,
    "a key that is not its own": lambda new, anna, grid: new.pem() + anna.key_pem(),
    "expired": lambda new, anna, grid: contents(
        grid.user().proxy(begins=now() - 2 * HOUR, ends=now() - HOUR)
    ),
    "another user's": lambda new, anna, grid: contents(anna),
    "the same name of another CA": lambda new, anna, grid: contents(
        end_entity("/C=CA/O=Grid/CN=Roger Impey", authority("/C=XX/CN=Other")).proxy()
    ),
}


def contents(proxy: Credential) -> bytes:
    return b"".join([proxy.pem(), proxy.key_pem(), *(issuer.pem() for issuer in proxy.sent)])


def put(path: Path, content: bytes | None) -> None:
    """Let the file hold this, from one moment to the next."""
    if content is None:
        path.unlink()
    else:
        write_private(path.with_name("next"), content).rename(path)


@pytest.mark.parametrize("which", UNFIT)
def test_an_unfit_file_does_not_end_what_a_good_proxy_has_begun(
    grid: Grid, tmp_path: Path, which: str
) -> None:
    path, user = tmp_path / "proxy", grid.user()
    user.proxy().write(path)
    tls = RenewableTLS(CredentialFiles(path, path, "test"), grid.directory.path)
    first = tls.creatorForNetloc(b"localhost", 1).context
    new = user.proxy()
    put(path, UNFIT[which](new, grid.user("Anna").proxy(), grid))
    for _ in range(2):
        assert tls.creatorForNetloc(b"localhost", 1).context is first
    put(path, contents(new))
    assert tls.creatorForNetloc(b"localhost", 1).context is not first


def test_a_proxy_that_others_can_read_is_not_taken_up(grid: Grid, tmp_path: Path) -> None:
    path, user = tmp_path / "proxy", grid.user()
    tls = RenewableTLS(CredentialFiles(user.proxy().write(path), path, ""), grid.directory.path)
    first = tls.creatorForNetloc(b"localhost", 1).context
    put(path, contents(user.proxy()))
    path.chmod(0o644)
    assert tls.creatorForNetloc(b"localhost", 1).context is first
    path.chmod(0o600)
    assert tls.creatorForNetloc(b"localhost", 1).context is not first


def test_a_ca_directory_that_is_being_replaced_ends_nothing(grid: Grid, tmp_path: Path) -> None:
    path, user, place = tmp_path / "proxy", grid.user(), tmp_path / "certificates"
    shutil.copytree(grid.directory.path, place)
    tls = RenewableTLS(CredentialFiles(user.proxy().write(path), path, ""), place)
    first = tls.creatorForNetloc(b"localhost", 1).context
    place.rename(tmp_path / "old")
    put(path, contents(user.proxy()))
    assert tls.creatorForNetloc(b"localhost", 1).context is first
    (tmp_path / "old").rename(place)
    assert tls.creatorForNetloc(b"localhost", 1).context is not first


ENDED = {
    "missing": "cannot be read",
    "half written": "cut off in the middle",
    "written into its sub-CA": "cut off in the middle",
    "another user's": "now the credential of /C=CA/O=Grid/CN=Anna, and this was begun as /C=CA/O=G",
}


@pytest_twisted.ensureDeferred
async def test_when_the_old_one_has_ended_the_new_ones_fault_is_told(
    grid: Grid, tmp_path: Path
) -> None:
    path, user = tmp_path / "proxy", grid.user()
    user.proxy(ends=now() + timedelta(seconds=2)).write(path)
    tls = RenewableTLS(CredentialFiles(path, path, "test"), grid.directory.path)
    await deferLater(reactor, 2.2)
    for which, words in ENDED.items():
        put(path, UNFIT[which](user.proxy(), grid.user("Anna").proxy(), grid))
        with pytest.raises(errors.CredentialProblem, match=words):
            tls.creatorForNetloc(b"localhost", 1)
        put(path, b"")
    put(path, contents(user.proxy()))
    assert tls.creatorForNetloc(b"localhost", 1)


@pytest_twisted.ensureDeferred
async def test_requests_go_on_while_the_proxy_is_written(
    grid: Grid, server: ScriptedServer, tmp_path: Path
) -> None:
    path, user = tmp_path / "proxy", grid.user()
    user.proxy().write(path)
    client = make_client(grid, CredentialFiles(path, path, "test"), server.url)
    server.scripts["GET /api/whoami"] = lambda _: json_reply({"user_name": "r"}) + CLOSE
    new = contents(user.proxy())
    for end in (len(new), 0, 99, len(new) // 2, len(new) - 99, len(new)):
        write_private(path, new[:end])
        assert (await client.whoami())["user_name"] == "r"
    assert server.connected >= 6
    await client.close()


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
