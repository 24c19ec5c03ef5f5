"""Commands that give an image to somebody else, who agrees to it."""

from __future__ import annotations

from repoman.cli import output
from repoman.cli.arguments import add_image, add_owner, image_ref
from repoman.cli.command import Arguments, Command, Session
from repoman.cli.exits import Usage
from repoman.model import ImageRef


def _offer_arguments(parser: Arguments) -> None:
    add_image(parser)
    parser.add_argument("user", metavar="USER", help="who is to have it")


async def offer(session: Session) -> None:
    """``offer``."""
    ref, user = image_ref(session.options), session.options.user
    fields = {"name": ref.name, "recipient": user}
    made = await session.client.make_offer({**fields, "owner": ref.owner} if ref.owner else fields)
    session.out.done(f"Offered image: '{ref.name}' to user: '{user}'", offer=made)


async def list_offers(session: Session) -> None:
    """``offers``."""
    offers = await session.client.offers()
    session.out.show(offers, output.offers_table(offers) if offers else "")


def _theirs(parser: Arguments) -> None:
    parser.add_argument("image", metavar="OWNER/IMAGE", help="what is offered to you")
    add_owner(parser)


def _accept_arguments(parser: Arguments) -> None:
    _theirs(parser)
    parser.add_argument("-n", "--name", help="what it is to be called, when it is yours")
    parser.add_argument(
        "--seen", metavar="VERSION", help="the version that you saw: accept no other files"
    )


def _offered_ref(session: Session) -> ImageRef:
    ref = image_ref(session.options)
    if ref.owner is None:
        raise Usage(f"Whose image is it? Say OWNER/{ref.name}, as repoman offers does.")
    return ref


async def accept(session: Session) -> None:
    """``accept``."""
    ref, options = _offered_ref(session), session.options
    said = {"name": options.name, "version": options.seen}
    image = await session.client.accept_offer(ref, {k: v for k, v in said.items() if v is not None})
    name = options.name or ref.name
    session.out.done(f"Accepted image: '{ref.owner}/{ref.name}' as '{name}'", image=image)


async def decline(session: Session) -> None:
    """``decline``."""
    ref = _offered_ref(session)
    await session.client.end_offer(ref)
    session.out.done(f"Declined image: '{ref.owner}/{ref.name}'")


async def withdraw(session: Session) -> None:
    """``withdraw``."""
    ref = image_ref(session.options)
    owner = ref.owner or await session.me()
    await session.client.end_offer(ImageRef(owner, ref.name))
    session.out.done(f"Withdrew the offer of image: '{ref.name}'")


COMMANDS = (
    Command(
        "offer",
        "offer an image to another user, who becomes its owner by accepting it",
        "Offering image.",
        offer,
        arguments=_offer_arguments,
        aliases=("offer-image",),
        examples=("repoman offer base.img kyle",),
    ),
    Command(
        "offers",
        "list what you offer, and what you are offered",
        "Listing offers.",
        list_offers,
        aliases=("list-offers",),
        examples=("repoman offers", "repoman offers --json"),
    ),
    Command(
        "accept",
        "accept an image that is offered to you",
        "Accepting image.",
        accept,
        arguments=_accept_arguments,
        aliases=("accept-image",),
        examples=("repoman accept roger/base.img", "repoman accept roger/base.img --name sl6.img"),
    ),
    Command(
        "decline",
        "decline an image that is offered to you",
        "Declining image.",
        decline,
        arguments=_theirs,
        aliases=("decline-image",),
        examples=("repoman decline roger/base.img",),
    ),
    Command(
        "withdraw",
        "withdraw the offer of an image",
        "Withdrawing the offer.",
        withdraw,
        arguments=add_image,
        aliases=("withdraw-image",),
        examples=("repoman withdraw base.img",),
    ),
)
"""The commands of this module."""
