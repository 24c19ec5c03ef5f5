"""What each command asks of the server and prints: the command itself, in this process."""

from __future__ import annotations

import json
import os
import pwd
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor

from repoman.cli.command import Session
from repoman.cli.exits import Usage
from repoman.cli.options import parse
from repoman.cli.output import Output
from repoman.cli.table import COMMANDS
from repoman.client.credentials import CredentialFiles
from repoman.client.repository import RepositoryClient
from repoman.client.settings import Settings
from tests.client.scripted import ScriptedServer, json_reply
from tests.credentials import Grid

URL = "https://h/api/images/impeyr/"
USER = {"user_name": "impeyr", "images": [URL + "a.img", URL + "b.img"], "groups": []}
IMAGE = {"name": "vm"}
OFFER = {
    "name": "vm", "owner_user_name": "impeyr", "recipient_user_name": "kyle", "version": 2,
    "bytes": 2048, "ends": "Sun Dec 27 20:44:17 2026", "description": "base\nsystem",
}  # fmt: skip


@pytest_twisted.async_yield_fixture
async def client(grid: Grid, server: ScriptedServer) -> AsyncIterator[RepositoryClient]:
    proxy = CredentialFiles(grid.place / "x509up", grid.place / "x509up", "test")
    client = RepositoryClient.with_files(reactor, server.url, proxy, grid.directory.path)
    yield client
    await client.close()


async def run(client: RepositoryClient, *words: str) -> None:
    """Do what ``repoman WORDS`` does."""
    command, options = parse(COMMANDS, words)
    assert command is not None
    assert command.work is not None
    await command.work(Session(client, options, Output(options.json), Settings(), None))


ANSWERS: dict[str, Any] = {
    "GET /api/whoami": USER,
    "GET /api/images": [URL + "a.img", "https://h/api/images/kyle/c.img"],
    "POST /api/images": IMAGE,
    "POST /api/images/vm": IMAGE,
    "POST /api/images/roger/vm": IMAGE,
    "DELETE /api/images/vm": {},
    "DELETE /api/images/roger/vm": {},
    "GET /api/offers": [OFFER],
    "POST /api/offers": OFFER,
    "POST /api/offers/roger/vm": IMAGE,
    "DELETE /api/offers/roger/vm": {},
    "DELETE /api/offers/impeyr/vm": {},
    "GET /api/images/vm": {"name": "vm", "a": None},
    "POST /api/images/vm/share/group/g": {},
    "POST /api/images/vm/share/group/h": {},
    "DELETE /api/images/vm/share/user/r": {},
    "POST /api/users": USER,
    "POST /api/users/r": USER,
    "DELETE /api/users/r": {},
    "GET /api/users": [{**USER, "full_name": "Roger Impey", "client_dn": "/C=CA/CN=r"}],
    "GET /api/users/r": {"user_name": "r"},
    "GET /api/groups": [
        {"name": "g", "permissions": ["image_create"], "users": ["https://h/api/users/impeyr"]},
        {"name": "h", "permissions": [], "users": []},
    ],
    "POST /api/groups": {"name": "g"},
    "GET /api/groups/g": {"name": "g", "permissions": ["a", "b"], "users": []},
    "POST /api/groups/g": {"name": "g"},
    "DELETE /api/groups/g": {},
    "POST /api/groups/g/permissions/c": {},
    "DELETE /api/groups/g/permissions/a": {},
    "POST /api/groups/g/users/r": {},
    "POST /api/groups/g/users/k": {},
}

PRINTED: list[tuple[list[str], str, list[str]]] = [
    (["whoami"], "impeyr", ["GET /api/whoami"]),
    (["list"], "impeyr/a.img\nimpeyr/b.img", ["GET /api/whoami"]),
    (["list", "-a"], "impeyr/a.img\nkyle/c.img", ["GET /api/images"]),
    (["ci", "vm", "-h", "kvm"], "[OK]     Created new image 'vm'",
     ["GET /api/whoami", "POST /api/images"]),
    (["rename", "vm", "new"], "[OK]     Renaming image.", ["POST /api/images/vm"]),
    (["rn", "roger/vm", "roger/new"], "[OK]     Renaming image.", ["POST /api/images/roger/vm"]),
    (["mi", "vm", "--foo", "x"], "[OK]     Modifying image.", ["POST /api/images/vm"]),
    (["delete", "vm", "-f"], "[OK]     Removed image vm.", ["DELETE /api/images/vm"]),
    (["ri", "-f", "-o", "roger", "vm"], "[OK]     Removed image vm.",
     ["DELETE /api/images/roger/vm"]),
    (["di", "vm"], "{'a': None, 'name': 'vm'}", ["GET /api/images/vm"]),
    (["li", "vm"], "   a : \nname : vm", ["GET /api/images/vm"]),
    (["sig", "vm", "g,h"],
     "[OK]     Shared image: 'vm' with group: 'g'\n[OK]     Shared image: 'vm' with group: 'h'",
     ["POST /api/images/vm/share/group/g", "POST /api/images/vm/share/group/h"]),
    (["ui", "vm", "-u", "r"], "[OK]     Unshared image: 'vm' with user: 'r'",
     ["DELETE /api/images/vm/share/user/r"]),
    (["offer", "vm", "kyle"], "[OK]     Offered image: 'vm' to user: 'kyle'",
     ["POST /api/offers"]),
    (["offers"],
     "Image      Offered To  Version  Size     Until                     Description\n"
     "impeyr/vm  kyle        2        2.0 KiB  Sun Dec 27 20:44:17 2026  base?system",
     ["GET /api/offers"]),
    (["accept", "roger/vm"], "[OK]     Accepted image: 'roger/vm' as 'vm'",
     ["POST /api/offers/roger/vm"]),
    (["accept", "-o", "roger", "vm", "-n", "new", "--seen", "2"],
     "[OK]     Accepted image: 'roger/vm' as 'new'", ["POST /api/offers/roger/vm"]),
    (["decline", "roger/vm"], "[OK]     Declined image: 'roger/vm'",
     ["DELETE /api/offers/roger/vm"]),
    (["withdraw", "vm"], "[OK]     Withdrew the offer of image: 'vm'",
     ["GET /api/whoami", "DELETE /api/offers/impeyr/vm"]),
    (["cu", "r", "/C=CA/CN=r"], "[OK]     Created new user r.", ["POST /api/users"]),
    (["mu", "r", "-e", "x@y"], "[OK]     Modifying user.", ["POST /api/users/r"]),
    (["ru", "r", "-f"], "[OK]     Removed user r.", ["DELETE /api/users/r"]),
    (["lu", "-s"], "impeyr", ["GET /api/users?view=full"]),
    (["du", "r"], "{'user_name': 'r'}", ["GET /api/users/r"]),
    (["lg", "-s"], "g", ["GET /api/groups?view=full", "GET /api/whoami"]),
    (["lg", "-s", "-a"], "g\nh", ["GET /api/groups?view=full"]),
    (["cg", "g", "-p", "a,b", "-u", "r"],
     "[OK]     Creating new group: 'g'\n[OK]     Adding permission: 'a' to group: 'g'\n"
     "[OK]     Adding permission: 'b' to group: 'g'\n[OK]     Adding user: `r` to group: 'g'",
     ["POST /api/groups"]),
    (["mg", "g", "-p", "b,c", "-n", "h"],
     "[OK]     Adding permission: 'c' to group: 'g'\n"
     "[OK]     Removing permission: 'a' from group: 'g'\n[OK]     Modifying group.",
     ["GET /api/groups/g", "POST /api/groups/g/permissions/c",
      "DELETE /api/groups/g/permissions/a", "POST /api/groups/g"]),
    (["rg", "g", "-f"], "[OK]     Removed group g.", ["DELETE /api/groups/g"]),
    (["aug", "g", "r", "k"],
     "[OK]     Adding user: `r` to group: 'g'\n[OK]     Adding user: `k` to group: 'g'",
     ["POST /api/groups/g/users/r", "POST /api/groups/g/users/k"]),
    (["rp", "g", "-p", "a"], "[OK]     Removing permission: 'a' from group: 'g'",
     ["DELETE /api/groups/g/permissions/a"]),
]  # fmt: skip


@pytest.mark.parametrize(("words", "printed", "asked"), PRINTED, ids=[r[0][0] for r in PRINTED])
@pytest_twisted.ensureDeferred
async def test_what_a_command_asks_and_prints(
    server: ScriptedServer,
    client: RepositoryClient,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    printed: str,
    asked: list[str],
) -> None:
    for route, answer in ANSWERS.items():
        server.scripts[route] = lambda _, answer=answer: json_reply(answer)
    await run(client, *words)
    told = "Into the account of impeyr.\n" if words[0] == "ci" else ""
    assert capsys.readouterr() == (printed + "\n", told)
    assert server.paths() == asked


@pytest_twisted.ensureDeferred
async def test_fields_go_by_the_names_of_the_interface(
    server: ScriptedServer, client: RepositoryClient
) -> None:
    for route in ("images", "images/vm", "users", "users/r", "offers", "offers/r/vm"):
        server.scripts[f"POST /api/{route}"] = lambda _: json_reply({**USER, **IMAGE})
    for words in (
        ["ci", "vm", "-o", "r", "-a", "true", "--color", "red"],
        ["mi", "vm", "-n", "new", "-N", "kyle"],
        ["create-user", "--name", "r", "--client_dn", "/CN=r", "-f", "R I"],
        ["modify-user", "r", "--name", "s"],
        ["offer", "r/vm", "kyle"],
        ["accept", "r/vm", "--name", "new", "--seen", "2"],
        ["accept", "r/vm"],
    ):
        await run(client, *words)
    assert [json.loads(asked.body) for asked in server.asked] == [
        {"name": "vm", "user_name": "r", "unauthenticated_access": "true", "color": "red"},
        {"name": "new", "owner": "kyle"},
        {"user_name": "r", "cert_dn": "/CN=r", "full_name": "R I"},
        {"user_name": "s"},
        {"name": "vm", "recipient": "kyle", "owner": "r"},
        {"name": "new", "version": "2"},
        {},
    ]


@pytest.mark.parametrize("as_json", [False, True])
@pytest_twisted.ensureDeferred
async def test_a_new_owner_who_has_to_accept_is_told_beside_the_result(
    server: ScriptedServer,
    client: RepositoryClient,
    capsys: pytest.CaptureFixture[str],
    as_json: bool,
) -> None:
    image = {**IMAGE, "owner_user_name": "impeyr"}
    server.scripts["POST /api/images/vm"] = lambda _: json_reply(image)
    await run(client, "mi", "vm", "-N", "kyle", *(["--json"] if as_json else []))
    out, err = capsys.readouterr()
    told = "It is offered to kyle, and yours until kyle accepts it."
    if as_json:
        assert json.loads(out) == {"done": "Modifying image.", "image": image}
        assert json.loads(err) == {"message": told}
    else:
        assert (out, err) == ("[OK]     Modifying image.\n", told + "\n")
    await run(client, "mi", "vm", "-N", "impeyr")
    assert capsys.readouterr() == ("[OK]     Modifying image.\n", "")


@pytest.mark.parametrize(
    "line",
    ["create-image", "create-image a --name b", "modify-image vm", "modify-user r", "create-user r",
     "create-group", "modify-group g", "add-permissions g", "rename vm kyle/vm",
     "delete roger/vm -o kyle", "accept vm", "decline vm", "withdraw roger/vm -o kyle"],
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_half_a_command_asks_nothing(
    server: ScriptedServer, client: RepositoryClient, line: str
) -> None:
    with pytest.raises(Usage):
        await run(client, *line.split())
    assert server.asked == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be under sudo")
def test_under_sudo_a_configuration_is_the_callers_and_so_are_the_rights_to_write_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with tempfile.TemporaryDirectory() as place:
        home, victim = Path(place) / "home", Path(place) / "victim"
        home.mkdir()
        victim.mkdir()
        os.chown(place, 12345, 12345)
        os.chown(home, 12345, 12345)
        anna = pwd.struct_passwd(("anna", "x", 12345, 12345, "", str(home), "/bin/sh"))
        monkeypatch.setattr(pwd, "getpwnam", {"anna": anna}.__getitem__)
        monkeypatch.setenv("SUDO_USER", "anna")
        command, options = parse(COMMANDS, ["-H", "h", "make-config"])
        assert command is not None
        assert command.local is not None
        command.local(options, Settings(), Output(as_json=False))
        command.local(options, Settings(), Output(as_json=False))
        made = [home / ".repoman", *(home / ".repoman").iterdir()]
        assert {(p.stat().st_uid, p.stat().st_gid) for p in made} == {(12345, 12345)}
        assert len(made) == 3
        (home / ".repoman").rename(home / "old")
        (home / ".repoman").symlink_to(victim)
        with pytest.raises(PermissionError):
            command.local(options, Settings(), Output(as_json=False))
        assert list(victim.iterdir()) == []
        assert (os.geteuid(), os.getegid()) == (0, os.getgid())
