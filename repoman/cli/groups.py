"""Commands about groups, their members and their permissions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from repoman.cli import output
from repoman.cli.arguments import add_force, confirm_deletion, words_of
from repoman.cli.command import Arguments, Command, Session, Work
from repoman.cli.exits import Usage
from repoman.client.records import last_name

_ADDED = {"permission": "Adding permission: '{}' to group: '{}'",
          "user": "Adding user: `{}` to group: '{}'"}  # fmt: skip
_REMOVED = {"permission": "Removing permission: '{}' from group: '{}'",
            "user": "Removing user: `{}` from group: '{}'"}  # fmt: skip


def _list_arguments(parser: Arguments) -> None:
    parser.add_argument("group", nargs="?", metavar="GROUP", help="show one group in full")
    parser.add_argument("-s", "--short", action="store_true", help="only names")
    parser.add_argument("-l", "--long", action="store_true", help="a table (the default)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("-a", "--all", action="store_true", help="all groups, not only your own")
    which.add_argument("-u", "--user", help="the groups of USER")


async def list_groups(session: Session) -> None:
    """``list-groups``."""
    options, client = session.options, session.client
    if options.group:
        group = await client.group(options.group)
        session.out.show(group, output.as_lines(group))
        return
    groups = await client.groups(view="full")
    if not options.all:
        member = options.user or await session.me()
        groups = [g for g in groups if member in map(last_name, g["users"])]
    names = [g["name"] for g in groups]
    session.out.show(groups, names if options.short else output.groups_table(groups))


def _name(parser: Arguments) -> None:
    parser.add_argument("group", metavar="GROUP")


async def describe_group(session: Session) -> None:
    """``describe-group``: the dict of 2011."""
    group = await session.client.group(session.options.group)
    session.out.show(group, output.as_python(group))


def _content(parser: Arguments) -> None:
    parser.add_argument("-p", "--permissions", metavar="LIST", help="with commas between them")
    parser.add_argument("-u", "--users", metavar="LIST", help="with commas between them")


def _create_arguments(parser: Arguments) -> None:
    parser.add_argument("group", nargs="?", metavar="GROUP", help="the new group's name")
    parser.add_argument("--name", help="the same, as in 2011")
    _content(parser)


async def create_group(session: Session) -> None:
    """``create-group``: the group with all that belongs to it, or nothing."""
    options = session.options
    name = options.group or options.name
    if not name:
        raise Usage("Say the new group's name.")
    lists = {"permissions": options.permissions, "users": options.users}
    stated = {key: ",".join(words_of([text])) for key, text in lists.items() if text}
    group = await session.client.create_group({"name": name, **stated, **options.pairs})
    session.out.done(f"Creating new group: '{name}'", group=group)
    for kind in ("permission", "user"):
        for word in stated.get(f"{kind}s", "").split(","):
            if word:
                session.out.done(_ADDED[kind].format(word, name))


def _modify_arguments(parser: Arguments) -> None:
    _name(parser)
    _content(parser)
    parser.add_argument("-n", "--new_name", metavar="NAME", help="another name")


async def modify_group(session: Session) -> None:
    """``modify-group``: a new name, and exactly these permissions and users."""
    options, client = session.options, session.client
    if options.permissions is None and options.users is None:
        if not (options.new_name or options.pairs):
            raise Usage("Say what to change: -n NAME, -p LIST or -u LIST.")
    else:
        group = await client.group(options.group)
        if options.permissions is not None:
            await _exactly(session, "permission", options.permissions, group["permissions"])
        if options.users is not None:
            await _exactly(session, "user", options.users, map(last_name, group["users"]))
    fields = {**({"name": options.new_name} if options.new_name else {}), **options.pairs}
    if fields:
        await client.modify_group(options.group, fields)
    session.out.done("Modifying group.")


async def _exactly(session: Session, kind: str, text: str, present: Iterable[str]) -> None:
    wanted, there = {word for word in text.split(",") if word}, set(present)
    for add, words in ((True, wanted - there), (False, there - wanted)):
        for word in sorted(words):
            await _step(session, kind, add, word)


def _remove_arguments(parser: Arguments) -> None:
    _name(parser)
    add_force(parser)


async def remove_group(session: Session) -> None:
    """``remove-group``."""
    await session.client.delete_group(session.options.group)
    session.out.done(f"Removed group {session.options.group}.")


def _words(kind: str) -> Callable[[Arguments], None]:
    def arguments(parser: Arguments) -> None:
        _name(parser)
        parser.add_argument("words", nargs="*", metavar=kind.upper(), help="or with commas")
        parser.add_argument(f"-{kind[0]}", f"--{kind}s", nargs="+", dest="more",
                            metavar=kind.upper(), help="the same, as in 2011")  # fmt: skip

    return arguments


def _work(kind: str, add: bool) -> Work:
    async def work(session: Session) -> None:
        for word in words_of(session.options.words, session.options.more):
            await _step(session, kind, add, word)

    return work


async def _step(session: Session, kind: str, add: bool, word: str) -> None:
    client, group = session.client, session.options.group
    steps: dict[tuple[str, bool], Callable[[str, str], Awaitable[None]]] = {
        ("user", True): client.add_member,
        ("user", False): client.remove_member,
        ("permission", True): client.add_permission,
        ("permission", False): client.remove_permission,
    }
    await steps[kind, add](group, word)
    session.out.done((_ADDED if add else _REMOVED)[kind].format(word, group))


def _membership(name: str, kind: str, add: bool, aliases: tuple[str, ...], example: str) -> Command:
    verb, where = ("add", "to") if add else ("remove", "from")
    return Command(
        name,
        f"{verb} {kind}s {where} a group",
        "Changing group.",
        _work(kind, add),
        arguments=_words(kind),
        aliases=aliases,
        examples=(f"repoman {name} {example}",),
    )


COMMANDS = (
    Command(
        "list-groups",
        "list your groups, or all of them",
        "Listing groups.",
        list_groups,
        arguments=_list_arguments,
        aliases=("lg",),
        examples=("repoman list-groups --all", "repoman list-groups canfar"),
    ),
    Command(
        "describe-group",
        "print all that is known about a group",
        "Describing group.",
        describe_group,
        arguments=_name,
        aliases=("dg",),
        examples=("repoman describe-group canfar",),
    ),
    Command(
        "create-group",
        "create a group",
        "Creating group.",
        create_group,
        arguments=_create_arguments,
        aliases=("cg",),
        examples=("repoman create-group canfar -p image_create -u roger,kyle",),
        pairs=True,
    ),
    Command(
        "modify-group",
        "rename a group, or say exactly who and what is in it",
        "Modifying group.",
        modify_group,
        arguments=_modify_arguments,
        aliases=("mg",),
        examples=("repoman modify-group canfar -n astronomy",),
        pairs=True,
    ),
    Command(
        "remove-group",
        "remove a group",
        "Removing group.",
        remove_group,
        arguments=_remove_arguments,
        aliases=("rg",),
        examples=("repoman remove-group canfar",),
        first=confirm_deletion,
    ),
    _membership("add-permissions", "permission", True,
                ("ap", "add-permissions-to-group", "apg"), "canfar image_create,image_modify"),
    _membership("remove-permissions", "permission", False,
                ("rp", "remove-permissions-from-group", "rpg"), "canfar -p image_modify"),
    _membership("add-users-to-group", "user", True, ("autg", "aug"), "canfar roger kyle"),
    _membership("remove-users-from-group", "user", False, ("rufg", "rug"), "canfar -u kyle"),
)  # fmt: skip
"""The commands of this module."""
