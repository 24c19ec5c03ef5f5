"""Commands about users."""

from __future__ import annotations

from repoman.cli import output
from repoman.cli.arguments import add_force, confirm_deletion, fields_of, renamed
from repoman.cli.command import Arguments, Command, Session
from repoman.cli.exits import Usage
from repoman.client.records import Record, last_name

_FIELDS = ("email", "full_name")
_REST_NAMES = {"client_dn": "cert_dn", "new_name": "user_name", "name": "user_name"}


def _whoami_arguments(parser: Arguments) -> None:
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="all that the server knows about you"
    )


async def whoami(session: Session) -> None:
    """``whoami``: the user's name, or all that the server sees."""
    if not session.options.verbose:
        user = await session.client.whoami()
        session.out.show(user, user["user_name"])
        return
    user = await session.client.whoami(view="full")
    session.out.show(user, output.aligned(_facts(user)))


def _facts(user: Record) -> list[tuple[str, object]]:
    seen: Record = user.get("credential") or Record()
    used, quota = user.get("used"), user.get("quota")
    facts = [
        ("user", user["user_name"]),
        ("full name", user["full_name"]),
        ("e-mail", user["email"]),
        ("DN", seen.get("dn") or user["client_dn"]),
        ("issuer", seen.get("issuer")),
        ("proxies", seen.get("proxies")),
        ("limited proxy", "yes" if seen.get("limited") else "no" if seen else None),
        ("valid until", seen.get("valid_until") and f"{seen['valid_until']} UTC"),
        ("groups", ", ".join(map(last_name, user["groups"]))),
        ("permissions", ", ".join(user["permissions"])),
        ("images", len(user["images"])),
        ("space used", None if used is None else output.size(used)),
        ("quota", None if quota is None else output.size(quota)),
    ]
    return [(name, value) for name, value in facts if value not in (None, "")]


def _list_arguments(parser: Arguments) -> None:
    parser.add_argument("user", nargs="?", metavar="USER", help="show one user in full")
    parser.add_argument("-s", "--short", action="store_true", help="only names")
    parser.add_argument("-l", "--long", action="store_true", help="a table (the default)")
    parser.add_argument("-g", "--group", help="only members of GROUP")


async def list_users(session: Session) -> None:
    """``list-users``."""
    options, client = session.options, session.client
    if options.user:
        user = await client.user(options.user)
        session.out.show(user, output.as_lines(user))
        return
    if options.group:
        users = await client.group_users(options.group, view="full")
    else:
        users = await client.users(view="full")
    names = [u["user_name"] for u in users]
    session.out.show(users, names if options.short else output.users_table(users))


def _name(parser: Arguments) -> None:
    parser.add_argument("user", metavar="USER")


async def describe_user(session: Session) -> None:
    """``describe-user``: the dict of 2011."""
    user = await session.client.user(session.options.user)
    session.out.show(user, output.as_python(user))


def _details(parser: Arguments) -> None:
    parser.add_argument("-e", "--email", help="e-mail address")
    parser.add_argument("-f", "--full_name", help="full name")


def _create_arguments(parser: Arguments) -> None:
    parser.add_argument("user", nargs="?", metavar="USER", help="the new user's name")
    parser.add_argument("client_dn", nargs="?", metavar="CLIENT_DN", help="the certificate's DN")
    parser.add_argument("--name", help="the new user's name, as in 2011")
    _details(parser)


async def create_user(session: Session) -> None:
    """``create-user``."""
    options = session.options
    fields = renamed(fields_of(options, [*_FIELDS, "client_dn"]), **_REST_NAMES)
    name = options.user or options.name or fields.get("user_name")
    if not (name and fields.get("cert_dn")):
        raise Usage("Say the new user's name and the DN of the certificate.")
    user = await session.client.create_user({**fields, "user_name": name})
    session.out.done(f"Created new user {name}.", user=user)


def _modify_arguments(parser: Arguments) -> None:
    _name(parser)
    parser.add_argument("-c", "--client_dn", metavar="DN", help="the certificate's DN")
    _details(parser)
    parser.add_argument("-n", "--new_name", metavar="NAME", help="another user name")


async def modify_user(session: Session) -> None:
    """``modify-user``."""
    fields = fields_of(session.options, [*_FIELDS, "client_dn", "new_name"])
    if not fields:
        raise Usage("Say what to change, for example --email ADDRESS.")
    user = await session.client.modify_user(session.options.user, renamed(fields, **_REST_NAMES))
    session.out.done("Modifying user.", user=user)


def _remove_arguments(parser: Arguments) -> None:
    _name(parser)
    add_force(parser)


async def remove_user(session: Session) -> None:
    """``remove-user``."""
    await session.client.delete_user(session.options.user)
    session.out.done(f"Removed user {session.options.user}.")


COMMANDS = (
    Command(
        "whoami",
        "print your user name",
        "Asking who you are.",
        whoami,
        arguments=_whoami_arguments,
        examples=("repoman whoami", "repoman whoami -v"),
    ),
    Command(
        "list-users",
        "list users",
        "Listing users.",
        list_users,
        arguments=_list_arguments,
        aliases=("lu",),
        examples=("repoman list-users -s", "repoman list-users -g canfar"),
    ),
    Command(
        "describe-user",
        "print all that is known about a user",
        "Describing user.",
        describe_user,
        arguments=_name,
        aliases=("du",),
        examples=("repoman describe-user impeyr",),
    ),
    Command(
        "create-user",
        "register a user",
        "Creating user.",
        create_user,
        arguments=_create_arguments,
        aliases=("cu",),
        examples=("repoman create-user impeyr '/C=CA/O=Grid/CN=Roger Impey' -e r@example.org",),
        pairs=True,
    ),
    Command(
        "modify-user",
        "change what is known about a user",
        "Modifying user.",
        modify_user,
        arguments=_modify_arguments,
        aliases=("mu",),
        examples=("repoman modify-user impeyr --email roger@example.org",),
        pairs=True,
    ),
    Command(
        "remove-user",
        "remove a user with all images",
        "Removing user.",
        remove_user,
        arguments=_remove_arguments,
        aliases=("ru",),
        examples=("repoman remove-user impeyr",),
        first=confirm_deletion,
    ),
)
"""The commands of this module."""
