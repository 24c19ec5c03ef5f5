"""Images that are offered to other users."""

from __future__ import annotations

from attrs import frozen

from repoman.model import ImageRef, Offer
from repoman.policy import authorize, may_write
from repoman.records import OfferPlace
from repoman.repository import Repository
from repoman.resources.asking import Ask, Routes
from repoman.resources.forms import ABSENT, given, read_form
from repoman.resources.long_lists import send_list
from repoman.resources.replies import Reply
from repoman.wire import image_json, offer_json

BATCH = 50
"""Offers that are read at one go, at most: each image may be shared with very many."""


@frozen(kw_only=True)
class OfferForm:
    """What to offer to whom: an image, by default the caller's own."""

    name: str
    recipient: str
    owner: str = ""


@frozen(kw_only=True)
class AcceptForm:
    """How an image is accepted, and what was seen of it."""

    name: str = ABSENT
    uuid: str = ABSENT
    version: int = ABSENT


def add_routes(routes: Routes, repository: Repository) -> None:
    """``/api/offers`` and below."""
    offers = repository.offers
    one = "/api/offers/<user>/<image>"

    @routes.add("GET", "/api/offers")
    async def listing(ask: Ask) -> None:
        async def following(place: OfferPlace | None, count: int) -> list[tuple[OfferPlace, Offer]]:
            found = await offers.listing(ask.caller, count, place)
            return [((offer.made, offer.image.id), offer) for offer in found]

        await send_list(ask.request, following, lambda o: offer_json(o, ask.urls), most=BATCH)

    @routes.add("POST", "/api/offers")
    async def make(ask: Ask) -> Reply:
        owner = may_write(ask.caller).user_name
        form = await read_form(ask.request, OfferForm)
        ref = ImageRef(form.owner or owner, form.name)
        await offers.make(ask.caller, ref, form.recipient)
        body = offer_json(await offers.find(ask.caller, ref), ask.urls)
        return Reply(body, 201, {"Location": body["url"]})

    @routes.add("GET", one)
    async def describe(ask: Ask, user: str, image: str) -> Reply:
        return Reply(offer_json(await offers.find(ask.caller, ImageRef(user, image)), ask.urls))

    @routes.add("POST", one)
    async def accept(ask: Ask, user: str, image: str) -> Reply:
        authorize("offer.accept", ask.caller)
        form = await read_form(ask.request, AcceptForm)
        taken = await offers.accept(ask.caller, ImageRef(user, image), **given(form))
        return Reply(image_json(taken, ask.urls))

    @routes.add("DELETE", one)
    async def end(ask: Ask, user: str, image: str) -> Reply:
        await offers.end(ask.caller, ImageRef(user, image))
        return Reply({})
