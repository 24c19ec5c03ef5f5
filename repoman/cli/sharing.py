"""Commands that let others read an image, and take that back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from repoman.cli.arguments import add_image, image_ref, words_of
from repoman.cli.command import Arguments, Command, Session, Work
from repoman.model import ImageRef

if TYPE_CHECKING:
    from repoman.client.repository import RepositoryClient


def _one(parser: Arguments) -> None:
    add_image(parser)
    whom = parser.add_mutually_exclusive_group(required=True)
    whom.add_argument("-u", "--user", help="a user, or several with commas")
    whom.add_argument("-g", "--group", help="a group, or several with commas")


def _many(kind: str) -> Callable[[Arguments], None]:
    def arguments(parser: Arguments) -> None:
        add_image(parser)
        parser.add_argument(kind, metavar=kind.upper() + "S", help="one or several with commas")

    return arguments


def _work(share: bool) -> Work:
    async def work(session: Session) -> None:
        options, ref = session.options, image_ref(session.options)
        user, group = getattr(options, "user", None), getattr(options, "group", None)
        kind = "user" if user else "group"
        for name in words_of([user or group or ""]):
            await _step(session.client, share, kind)(ref, name)
            words = "Shared image: '{}' with" if share else "Unshared image: '{}' with"
            session.out.done(f"{words.format(ref.name)} {kind}: '{name}'")

    return work


def _step(
    client: RepositoryClient, share: bool, kind: str
) -> Callable[[ImageRef, str], Awaitable[None]]:
    if kind == "user":
        return client.share_with_user if share else client.unshare_with_user
    return client.share_with_group if share else client.unshare_with_group


def _commands(verb: str, share: bool, aliases: tuple[str, ...], short: str) -> tuple[Command, ...]:
    what = f"{verb} an image with"
    doing = "Sharing image." if share else "Unsharing image."
    work = _work(share)
    return (
        Command(
            f"{verb}-image",
            f"{what} a user or a group",
            doing,
            work,
            arguments=_one,
            aliases=aliases,
            examples=(f"repoman {verb}-image base.img -g canfar",),
        ),
        Command(
            f"{verb}-image-with-groups",
            f"{what} groups",
            doing,
            work,
            arguments=_many("group"),
            aliases=(f"{short}g",),
            examples=(f"repoman {verb}-image-with-groups base.img canfar,hep",),
        ),
        Command(
            f"{verb}-image-with-users",
            f"{what} users",
            doing,
            work,
            arguments=_many("user"),
            aliases=(f"{short}u",),
            examples=(f"repoman {verb}-image-with-users base.img roger,kyle",),
        ),
    )


COMMANDS = (
    # "si", with -u or -g, too: see the options.
    *_commands("share", True, (), "si"),
    *_commands("unshare", False, ("ui",), "ui"),
)
"""The commands of this module."""
