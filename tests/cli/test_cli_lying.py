"""What a hostile server says makes no line of its own, moves no cursor, and is never "done"."""

from __future__ import annotations

import json
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor

from repoman.cli.command import Session
from repoman.cli.options import parse
from repoman.cli.output import Output
from repoman.cli.table import COMMANDS
from repoman.client.credentials import CredentialFiles
from repoman.client.repository import RepositoryClient
from repoman.client.settings import Settings
from tests.cli.conftest import Start
from tests.client.scripted import ScriptedServer, json_reply, problem, reply
from tests.credentials import Grid

FORGED = "[OK]     Removed image vm."
"""What no command prints here for itself."""

TEXTS = {
    "lines": FORGED.join(("x", "\n", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029")),
    "cursor": f"x\r{FORGED}\x08\x08\x1b[1A\x1b[2K{FORGED}\x1b]0;title\x07",
    "controls": "\x9b2J\x9d0;t\x9c\x90\x00\x7f\x0e\x0f",
    "directions": "x\u202e[KO]\u202c\u2066y\u2069\u200e\u200f\u061c\u200b\ufeff",
    "first": FORGED,
    "blanks first": f"  {FORGED}",
    "half a pair": "\ud800",
}
"""Texts that play with who reads them."""


def records(text: str) -> dict[str, Any]:
    """What a server may say to each question, with ``text`` wherever there is one."""
    url = f"https://h/api/images/{text}"
    image = {
        "name": text, "owner_user_name": text, "hypervisor": text, "size": 10**18,
        "modified": text, "description": text, "file_url": text, "files": {}, text: text,
        "raw_file_uploaded": False, "read_only": False, "checksum": {"type": text, "value": text},
        "nested": {text: [text, {text: text}]},
    }  # fmt: skip
    user = {
        "user_name": text, "full_name": text, "email": text, "client_dn": text, "groups": [url],
        "permissions": [text], "images": [text, url], "used": 1, "quota": 2, text: text,
        "credential": {"dn": text, "issuer": text, "proxies": text, "valid_until": text},
    }  # fmt: skip
    offer = {
        "name": text, "owner_user_name": text, "recipient_user_name": text, "version": text,
        "bytes": 1, "ends": text, "description": text, text: text,
    }  # fmt: skip
    group = {"name": text, "users": [url, text], "permissions": [text], text: text}
    return {
        "GET /api/whoami": user,
        "GET /api/images": [image],
        "GET /api/images/vm": image,
        "POST /api/images": image,
        "POST /api/images/vm": image,
        "GET /api/users": [user],
        "GET /api/users/r": user,
        "GET /api/users/r/images": [text, url],
        "GET /api/users/r/shared": [image],
        "GET /api/offers": [offer],
        "GET /api/groups": [group],
        "GET /api/groups/g": group,
        "GET /api/groups/g/users": [user],
        "GET /api/groups/g/shared": [image],
        "POST /api/groups/g": group,
    }


LINES = (
    "whoami", "whoami -v", "list", "list -u r", "list -a -l", "list-images -a", "li -a -s",
    "li -a -U", "li vm", "li -u r", "li -g g", "describe-image vm", "list-users", "lu -s", "lu r",
    "lu -g g", "describe-user r", "list-groups -a", "lg -a -s", "lg g", "describe-group g",
    "create-image vm", "modify-image vm -d x", "rename vm new", "offers",
)  # fmt: skip
"""Every command that prints what a server says."""


@pytest.mark.parametrize("line", LINES)
@pytest_twisted.ensureDeferred
async def test_no_text_of_a_server_plays_with_who_reads_it(
    server: ScriptedServer, grid: Grid, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    proxy = CredentialFiles(grid.place / "x509up", grid.place / "x509up", "test")
    client = RepositoryClient.with_files(reactor, server.url, proxy, grid.directory.path)
    try:
        for text in TEXTS.values():
            for route, answer in records(text).items():
                server.scripts[route] = lambda _, answer=answer: json_reply(answer)
            await _told(client, line)
            out, err = capsys.readouterr()
            own = ("[OK]     Created", "[OK]     Modif", "[OK]     Renam")
            for one in [*out.split("\n"), *err.split("\n")]:
                assert one.isprintable(), (text, one)
                assert not one.lstrip().startswith(("[OK]", "[FAILED]")) or one.startswith(own)
            await _told(client, f"{line} --json")
            shown = json.loads(capsys.readouterr().out)
            # A listing of names is made of URLs.
            assert line in ("list", "list -u r") or _holds(shown, text)
    finally:
        await client.close()


async def _told(client: RepositoryClient, line: str) -> None:
    """Do what ``repoman LINE`` does."""
    command, options = parse(COMMANDS, line.split())
    assert command is not None
    assert command.work is not None
    await command.work(Session(client, options, Output(options.json), Settings(), None))


def _holds(value: Any, text: str) -> bool:
    """JSON is exact."""
    if isinstance(value, dict):
        return any(_holds(v, text) for v in (*value, *value.values()))
    if isinstance(value, list):
        return any(_holds(v, text) for v in value)
    return isinstance(value, str) and (value == text or value.endswith(f"/{text}"))


@pytest.mark.parametrize("kind", ["problem", "text", "elsewhere", "page"])
@pytest_twisted.ensureDeferred
async def test_no_refusal_of_a_server_plays_with_who_reads_it(
    server: ScriptedServer, start: Start, kind: str
) -> None:
    text = "".join(TEXTS.values())
    said = {
        "problem": problem("Missing", 404, text),
        "text": reply(404, text.encode("utf-8", "replace"), Content_Type="text/plain"),
        "elsewhere": reply(302, Location="https://h/\x1b[2J\x08[OK]"),
        "page": reply(500, text.encode("utf-8", "replace"), Content_Type="text/html"),
    }
    server.scripts["GET /api/images/vm"] = lambda _: said[kind]
    program = start("describe-image", "vm")
    assert await program.ended not in (0, None)
    assert program.out == ""
    first, *rest = program.err.rstrip("\n").split("\n")
    assert first == "[FAILED] Describing image."
    assert all(one.isprintable() and one.startswith(" " * 9) for one in rest), program.err


@pytest.mark.parametrize("line", ["list -a", "list-groups -a", "lu -l"])
@pytest_twisted.ensureDeferred
async def test_what_is_no_url_ends_in_no_traceback(
    server: ScriptedServer, start: Start, line: str
) -> None:
    said = records("x")
    said["GET /api/images"] = ["https://["]
    said["GET /api/groups"][0]["users"] = said["GET /api/users"][0]["groups"] = ["https://["]
    for route, answer in said.items():
        server.scripts[route] = lambda _, answer=answer: json_reply(answer)
    program = start(*line.split())
    assert await program.ended == 1
    assert "has a URL that is none" in program.err


@pytest.mark.parametrize("number", [2**63, 10**400, -(10**400)])
@pytest_twisted.ensureDeferred
async def test_no_number_of_a_server_ends_in_a_traceback(
    server: ScriptedServer, start: Start, number: int
) -> None:
    image = {**records("x")["GET /api/images/vm"], "size": number}
    server.scripts["GET /api/images"] = lambda _: json_reply([image])
    program = start("list", "-a", "-l")
    assert await program.ended == 1
    assert "something strange for 'size'" in program.err
