"""What is offered to and by who looks, and the forms with which an offer ends."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen
from twisted.web.template import Tag

from repoman.model import Caller, ImageRef, Offer
from repoman.pages.answer import Answer, see_other
from repoman.pages.markup import Content, el, facts, field, form, link, moment, size
from repoman.pages.posting import read_post
from repoman.pages.tokens import Tokens
from repoman.policy import may
from repoman.repository import Repository
from repoman.repository.offers import Offers
from repoman.resources.asking import Ask, Routes
from repoman.resources.forms import given
from repoman.resources.offers import AcceptForm

SHOWN = 20
"""How many offers are on one page."""

NAME_PATTERN = "[A-Za-z0-9_.\\-]+"
"""What an image may be called, as browsers check it."""


@frozen(kw_only=True)
class EndForm:
    """Nothing needs to be said to decline or to withdraw."""


def add_routes(routes: Routes, repository: Repository, tokens: Tokens) -> None:
    """What is posted below ``/offer/OWNER/NAME``."""
    offers = repository.offers

    @routes.add("POST", "/offer/<owner>/<name>/accept")
    async def accept(ask: Ask, owner: str, name: str) -> Answer:
        sent = await read_post(ask, tokens, AcceptForm)
        image = await offers.accept(ask.caller, ImageRef(owner, name), **given(sent))
        return see_other(f"/image/{image.owner}/{image.name}")

    @routes.add("POST", "/offer/<owner>/<name>/end")
    async def end(ask: Ask, owner: str, name: str) -> Answer:
        await read_post(ask, tokens, EndForm)
        await offers.end(ask.caller, ImageRef(owner, name))
        return see_other("/")


async def open_offers(caller: Caller, tokens: Tokens, offers: Offers) -> list[Content]:
    """What is offered to the caller, and what they offer, the newest first."""
    found = await offers.listing(caller, 2 * (SHOWN + 1), each=SHOWN + 1)
    me = caller.user and caller.user.user_name
    got = [offer for offer in found if offer.recipient == me]
    made = [offer for offer in found if offer.recipient != me]
    return [
        _section(
            "Offered to you",
            "Until you accept it, an image is its owner's. Then it is yours: shared with nobody, "
            "not public, and counted on your quota.",
            [_offer(caller, tokens, offer) for offer in got[:SHOWN]],
            len(got) > SHOWN,
        ),
        _section(
            "Offered by you",
            "Until it is accepted, an image is yours and counts on your quota.",
            [_own_offer(caller, tokens, offer) for offer in made[:SHOWN]],
            len(made) > SHOWN,
        ),
    ]


def _section(title: str, about: str, shown: Sequence[Tag], more: bool) -> Tag | None:
    if not shown:
        return None
    told = "And more, when some of these have ended."
    return el(
        "section", el("h2", title), el("p", about), el("ul", shown, class_="files"),
        el("p", told, class_="quiet") if more else None,
    )  # fmt: skip


def _own_offer(caller: Caller, tokens: Tokens, offer: Offer) -> Tag:
    image = offer.image
    return el(
        "li",
        el("p", link(f"/image/{image.owner}/{image.name}", image.name), ", to ",
           el("strong", offer.recipient), ", until ", moment(offer.ends, day=True), "."),
        _ending(caller, tokens, offer, "Withdraw"),
    )  # fmt: skip


def _offer(caller: Caller, tokens: Tokens, offer: Offer) -> Tag:
    image, path = offer.image, f"/offer/{offer.image.owner}/{offer.image.name}"
    digests = [(name, el("code", f.digests.sha256)) for name, f in image.files.items()]
    system = " ".join(filter(None, (image.os_type, image.os_variant, image.os_arch)))
    return el(
        "li",
        el("div", el("strong", f"{image.owner}/{image.name}"),
           el("span", ", ".join(image.hypervisors)), el("span", system) if system else None,
           el("span", size(offer.size) if image.files else "no file yet"), class_="file"),
        el("p", image.description) if image.description else None,
        el("p", "Offered until ", moment(offer.ends, day=True),
           [", expires ", moment(image.expires, day=True)] if image.expires else None, ".",
           class_="quiet"),
        el("details", el("summary", "SHA-256"), facts(digests)) if digests else None,
        _accepting(caller, tokens, offer, f"{path}/accept"),
        _ending(caller, tokens, offer, "Decline"),
    )  # fmt: skip


def _accepting(caller: Caller, tokens: Tokens, offer: Offer, action: str) -> Content:
    if not may("offer.accept", caller):
        return None
    image = offer.image
    name = field(
        "name", "Its name, when it is yours", image.name, required=True, pattern=NAME_PATTERN,
        maxlength=100, id=f"name-{image.id}",
    )  # fmt: skip
    # What the page shows, and nothing that came into its place since.
    seen = [el("input", type="hidden", name=key, value=value)
            for key, value in (("uuid", image.uuid), ("version", image.version))]  # fmt: skip
    return form(action, tokens.issue(caller, action), name, seen, button="Accept")


def _ending(caller: Caller, tokens: Tokens, offer: Offer, button: str) -> Content:
    """The form that declines or withdraws an offer."""
    if not may("offer.decline", caller):
        return None
    action = f"/offer/{offer.image.owner}/{offer.image.name}/end"
    return form(action, tokens.issue(caller, action), button=button, kind="quiet")
