"""The command lines of both generations, as a table."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from typing import Any

import pytest

from repoman.cli import manual
from repoman.cli.exits import Usage
from repoman.cli.options import command_parser, parse
from repoman.cli.table import COMMANDS

TABLE: list[tuple[str, str, dict[str, Any]]] = [
    # the slides and 2011
    ("get vm", "get", {"image": "vm", "target": None}),
    ("get vm -d /tmp/x", "get", {"target": "/tmp/x"}),
    ("get vm --dest /tmp/x", "get", {"target": "/tmp/x"}),
    ("download-image vm", "get", {"image": "vm"}),
    ("down vm", "get", {}),
    ("rename a b", "rename", {"image": "a", "new_name": "b"}),
    ("rn a b", "rename", {}),
    ("rn -- -a b", "rename", {"image": "-a", "new_name": "b"}),
    ("get -- -a", "get", {"image": "-a"}),
    ("delete r/vm", "delete", {"image": "r/vm", "force": False}),
    ("del vm -f", "delete", {"force": True}),
    ("remove-image vm --force", "delete", {"force": True}),
    ("ri vm -o r", "delete", {"owner": "r"}),
    ("list", "list", {"all": False, "long": False, "sharedwith": False}),
    ("list -a -l", "list", {"all": True, "long": True}),
    ("list --sharedwith", "list", {"sharedwith": True}),
    ("list -u r", "list", {"user": "r"}),
    ("list -g g", "list", {"group": "g"}),
    ("make-config", "make-config", {"stdout": False}),
    ("mc --stdout", "make-config", {"stdout": True}),
    ("di vm", "describe-image", {"image": "vm"}),
    ("du r", "describe-user", {"user": "r"}),
    ("dg g", "describe-group", {"group": "g"}),
    ("upload-image vm --file f", "upload-image", {"image": "vm", "file": "f"}),
    ("up vm --file=f", "upload-image", {"file": "f"}),
    (
        "create-image --name vm --description 'a b' --os_arch x86 --foo bar",
        "create-image",
        {"name": "vm", "description": "a b", "os_arch": "x86", "pairs": {"foo": "bar"}},
    ),
    (
        "create-image --foo bar vm",
        "create-image",
        {"image": "vm", "pairs": {"foo": "bar"}},
    ),
    (
        "modify-image vm --name new --read-only=true",
        "modify-image",
        {"image": "vm", "pairs": {"name": "new", "read_only": "true"}},
    ),
    (
        "create-user --name r --client_dn /C=CA/CN=r --full_name 'R I'",
        "create-user",
        {"name": "r", "full_name": "R I", "pairs": {"client_dn": "/C=CA/CN=r"}},
    ),
    ("modify-user r --quota 5", "modify-user", {"user": "r", "pairs": {"quota": "5"}}),
    ("create-group --name g", "create-group", {"name": "g"}),
    ("modify-group g --name h", "modify-group", {"group": "g", "pairs": {"name": "h"}}),
    ("share-image vm -u r", "share-image", {"user": "r"}),
    ("si vm -g g", "share-image", {"group": "g"}),
    ("si vm --user=r", "share-image", {"user": "r"}),
    ("si vm -ur", "share-image", {"user": "r"}),
    ("si vm --gzip", "save", {"gzip": True}),
    ("save vm --gzip --resize 100 --os_type linux", "save", {"gzip": True, "resize": 100}),
    ("save --name vm -f --comment words", "save", {"name": "vm", "comment": "words"}),
    ("save vm --colour red", "save", {"pairs": {"colour": "red"}}),
    ("si vm -a true --clean --verbose", "save", {"image": "vm", "clean": True}),
    ("put disk vm -h kvm", "put-image", {"hypervisor": "kvm"}),
    ("put - vm", "put-image", {"file": "-"}),
    ("get vm -j 4 -d -", "get", {"streams": 4, "target": "-"}),
    ("unshare-image vm -u r", "unshare-image", {"user": "r"}),
    ("ui vm -g g", "unshare-image", {"group": "g"}),
    ("add-permissions g -p a b", "add-permissions", {"group": "g", "more": ["a", "b"]}),
    ("ap g -p a", "add-permissions", {}),
    ("remove-permissions g -p a", "remove-permissions", {}),
    ("rp g -p a", "remove-permissions", {}),
    ("add-users-to-group g -u a b", "add-users-to-group", {"more": ["a", "b"]}),
    ("autg g -u a", "add-users-to-group", {}),
    ("rufg g -u a", "remove-users-from-group", {}),
    ("list-users", "list-users", {"user": None}),
    ("list-users -l", "list-users", {"long": True}),
    ("list-groups -l", "list-groups", {"long": True}),
    ("whoami", "whoami", {}),
    ("about", "about", {}),
    ("remove-user r", "remove-user", {"user": "r"}),
    ("remove-group g -f", "remove-group", {"group": "g", "force": True}),
    # 2012
    ("help", "help", {"topic": None}),
    ("help get", "help", {"topic": "get"}),
    ("version", "version", {}),
    (
        "ci vm -a true -d words -h kvm -o r --os_type linux --os_variant sl",
        "create-image",
        {"image": "vm", "unauthenticated_access": "true", "description": "words",
         "hypervisor": "kvm", "owner": "r", "os_type": "linux", "os_variant": "sl"},
    ),
    ("ci -h kvm,xen vm", "create-image", {"hypervisor": "kvm,xen", "image": "vm"}),
    ("li", "list-images", {"image": None}),
    ("li -s -a", "list-images", {"short": True, "all": True}),
    ("li -U -g g", "list-images", {"url": True, "group": "g"}),
    ("li -l", "list-images", {"long": True}),
    ("li vm -o r", "list-images", {"image": "vm", "owner": "r"}),
    ("mi vm -n new -N bob -d x", "modify-image",
     {"new_name": "new", "new_owner": "bob", "description": "x"}),
    ("mi vm -h kvm", "modify-image", {"hypervisor": "kvm"}),
    ("pi f vm -f -h kvm -o r", "put-image",
     {"file": "f", "image": "vm", "force": True, "hypervisor": "kvm", "owner": "r"}),
    ("gi vm -o r -p /tmp/x", "get", {"owner": "r", "target": "/tmp/x"}),
    ("get-image vm --path /tmp/x", "get", {"target": "/tmp/x"}),
    ("ru r -f", "remove-user", {"force": True}),
    ("rg g", "remove-group", {"force": False}),
    ("sig vm a,b", "share-image-with-groups", {"image": "vm", "group": "a,b"}),
    ("siu vm a,b -o r", "share-image-with-users", {"user": "a,b", "owner": "r"}),
    ("uig vm a", "unshare-image-with-groups", {"group": "a"}),
    ("offer r/vm kyle", "offer", {"image": "r/vm", "user": "kyle"}),
    ("offer-image vm kyle -o r", "offer", {"owner": "r"}),
    ("offers", "offers", {}),
    ("list-offers --json", "offers", {"json": True}),
    ("accept r/vm -n new --seen 2", "accept", {"image": "r/vm", "name": "new", "seen": "2"}),
    ("accept-image vm -o r", "accept", {"owner": "r", "name": None, "seen": None}),
    ("decline r/vm", "decline", {"image": "r/vm"}),
    ("decline-image r/vm", "decline", {}),
    ("withdraw vm", "withdraw", {"image": "vm"}),
    ("withdraw-image r/vm", "withdraw", {}),
    ("uiu vm a", "unshare-image-with-users", {"user": "a"}),
    ("cu r /C=CA/CN=r -e r@x -f 'R I'", "create-user",
     {"user": "r", "client_dn": "/C=CA/CN=r", "email": "r@x", "full_name": "R I"}),
    ("lu r", "list-users", {"user": "r"}),
    ("lu -s -g g", "list-users", {"short": True, "group": "g"}),
    ("lg -s -a", "list-groups", {"short": True, "all": True}),
    ("lg -u r", "list-groups", {"user": "r"}),
    ("lg g", "list-groups", {"group": "g"}),
    ("mu r -c /CN=x -n s", "modify-user", {"client_dn": "/CN=x", "new_name": "s"}),
    ("cg g -p a,b -u r", "create-group", {"group": "g", "permissions": "a,b", "users": "r"}),
    ("mg g -n h -p a", "modify-group", {"new_name": "h", "permissions": "a"}),
    ("apg g a,b", "add-permissions", {"words": ["a,b"]}),
    ("add-permissions-to-group g a", "add-permissions", {}),
    ("rpg g a", "remove-permissions", {}),
    ("remove-permissions-from-group g a", "remove-permissions", {}),
    ("aug g a b", "add-users-to-group", {"words": ["a", "b"]}),
    ("rug g a", "remove-users-from-group", {}),
    # options for every command, before it
    ("-H h -P 443 --proxy p list", "list", {"host": "h", "port": "443", "proxy": "p"}),
    ("-r h -p 443 -P /tmp/p list", "list", {"host": "h", "port": "443", "proxy": "/tmp/p"}),
    ("-P 8443 -P p list", "list", {"port": "8443", "proxy": "p"}),
    ("--repository h --port 443 list", "list", {"host": "h", "port": "443"}),
    ("--cert c --key k --ca-dir d --json list", "list",
     {"cert": "c", "key": "k", "ca_dir": "d", "json": True}),
    # ... and behind it
    ("--json get vm", "get", {"json": True}),
    ("get vm --json --proxy p", "get", {"json": True, "proxy": "p"}),
    ("-H h get --host i vm", "get", {"host": "i"}),
    ("create-image vm --json --foo bar", "create-image", {"json": True, "pairs": {"foo": "bar"}}),
]  # fmt: skip


@pytest.mark.parametrize(("line", "name", "stated"), TABLE, ids=[row[0] for row in TABLE])
def test_both_generations_are_understood(line: str, name: str, stated: dict[str, Any]) -> None:
    command, options = parse(COMMANDS, shlex.split(line))
    assert command is not None
    assert (command.name, options.help) == (name, False)
    assert {key: getattr(options, key) for key in stated} == stated


@pytest.mark.parametrize(
    "line",
    ["get -h", "get --help", "get vm -h", "ci -h", "ci -h -d x", "pi --help", "mi vm -h",
     "delete --help vm"],
)  # fmt: skip
def test_help_is_asked_for(line: str) -> None:
    command, options = parse(COMMANDS, line.split())
    assert command is not None
    assert options.help


@pytest.mark.parametrize("line", ["", "-h", "--help", "--help-all", "--version", "-h get vm"])
def test_no_command_is_asked_for(line: str) -> None:
    assert parse(COMMANDS, line.split())[0] is None


@pytest.mark.parametrize(
    "line",
    ["nonsense", "create-image --foo", "create-image vm --foo --bar x", "--nonsense get a", "get",
     "get a b", "get a --foo bar", "list -u r -g g", "share-image vm", "rename a",
     "save vm --resize 0", "get a -j 0", "get a -j 17", "upload-image vm", "li -s -U", "list --al"],
)  # fmt: skip
def test_nonsense_is_a_usage_error(line: str) -> None:
    with pytest.raises(Usage):
        parse(COMMANDS, line.split())


def test_a_usage_error_shows_the_usage() -> None:
    with pytest.raises(Usage, match=r"^The following arguments .*\nusage: repoman get "):
        parse(COMMANDS, ["get"])


def test_every_name_means_one_command() -> None:
    names = Counter(name for c in COMMANDS for name in (c.name, *c.aliases))
    assert [name for name, times in names.items() if times > 1] == []


def test_every_command_works_in_one_way() -> None:
    ways = {c.name: [c.work, c.local, c.alone].count(None) for c in COMMANDS}
    assert [name for name, without in ways.items() if without != 2] == []


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.name)
def test_every_command_has_help_and_its_examples_work(command: Any) -> None:
    assert command.name in command_parser(command).format_help()
    for example in command.examples:
        lexer = shlex.shlex(example, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        before, _, after = " ".join(map(shlex.quote, lexer)).partition("repoman ")
        assert before in ("", "sudo -E ", "gzip '<' disk.raw '|' ", "source '<(' ")
        words = shlex.split(re.split("'[|>)]'", after)[0])
        found, options = parse(COMMANDS, words)
        assert found is command
        assert not options.help


def test_plain_help_lists_the_commands_of_the_slides() -> None:
    listed = manual.overview(COMMANDS).partition("SUBCOMMANDS:\n")[2].split("\n\n")[0]
    names = [line.split()[0] for line in listed.splitlines()]
    assert names == ["get", "save", "rename", "delete", "list"]


def test_help_all_lists_every_name() -> None:
    text = manual.overview(COMMANDS, everything=True)
    assert all(name in text for c in COMMANDS for name in (c.name, *c.aliases))
