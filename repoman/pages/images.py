"""Lists of images: mine, shared with me, public, all."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from urllib.parse import urlencode

from attrs import evolve
from twisted.web.template import Tag

from repoman.interfaces import Clock
from repoman.model import KNOWN_HYPERVISORS, Image
from repoman.pages.answer import Answer, page
from repoman.pages.identity import refusal
from repoman.pages.markup import Content, badge, choice, el, field, link, moment, shortened, size
from repoman.pages.offers import open_offers
from repoman.pages.tokens import Tokens
from repoman.policy import identified, may
from repoman.records import Listing
from repoman.repository import Repository
from repoman.resources.asking import Ask, Routes
from repoman.resources.listing import place_of, query_after, refined

PAGE = 50
"""Images on one page."""

FILTERS = ("q", "owner", "os_type", "os_arch", "os_variant", "hypervisor")
"""What a list can be narrowed by."""

SORTS = (("name", "Name"), ("-modified", "Newest"), ("modified", "Oldest"), ("-size", "Largest"),
         ("size", "Smallest"), ("-name", "Name, from Z"))  # fmt: skip


def add_routes(routes: Routes, repository: Repository, tokens: Tokens, clock: Clock) -> None:
    """``/``, ``/shared``, ``/public`` and ``/all``."""
    programs = link(directory_path(), "For programs")

    @routes.add("GET", "/")
    async def home(ask: Ask) -> Answer:
        user = ask.caller.user
        if user is None:
            way = el("p", link("/certificate", "How to show a certificate in the browser"))
            why = refusal(ask.caller, way)
            return await listed(ask, "Public images", Listing(public=True), why, programs)
        new = None
        if may("image.create", ask.caller):
            new = link("/new", "New image", class_="button")
        offers = await open_offers(ask.caller, tokens, repository.offers)
        return await listed(ask, "My images", Listing(owner=user.user_name), offers, beside=new)

    @routes.add("GET", "/shared")
    async def shared(ask: Ask) -> Answer:
        name = identified(ask.caller).user_name
        return await listed(ask, "Shared with me", Listing(shared_with_user=name))

    @routes.add("GET", "/public")
    async def public(ask: Ask) -> Answer:
        return await listed(ask, "Public images", Listing(public=True), None, programs)

    @routes.add("GET", "/all")
    async def everything(ask: Ask) -> Answer:
        identified(ask.caller)
        return await listed(ask, "All images that I may see", Listing())

    async def listed(
        ask: Ask, title: str, scope: Listing, above: Content = None, beside: Content = None
    ) -> Answer:
        # A form sends what is not filled in as empty, which here means "any".  What no form has
        # is no filter here: of a public image, nobody learns whom it is shared with.
        args = ask.request.args
        known = (*FILTERS, "sort", "after")
        ask.request.args = {n: v for n, v in args.items() if n in known and v[-1]}
        wanted = evolve(refined(ask, scope), limit=PAGE + 1)
        if scope.public:
            found = await repository.images.public(wanted)
        else:
            found = await repository.images.listing(ask.caller, wanted)
        content = _list(ask, evolve(wanted, limit=PAGE), scope, found, clock())
        return page(ask, title, above, content, beside=beside)


def _list(
    ask: Ask, wanted: Listing, scope: Listing, found: list[Image], now: datetime
) -> list[Content]:
    path, shown = ask.request.path.decode("ascii"), found[:PAGE]
    narrowed = any(ask.query(name) for name in FILTERS)
    if shown:
        content: Content = el("ul", [_row(i, scope, now) for i in shown], class_="images")
    else:
        content = el("p", _nothing(narrowed, scope), class_="empty")
    return [_search(ask, scope, path, narrowed), content, _pages(ask, wanted, found, path)]


def _nothing(narrowed: bool, scope: Listing) -> str:
    if narrowed:
        return "No image is like that."
    if scope.owner:
        return "You have no images yet."
    return "There are none."


def _row(image: Image, scope: Listing, now: datetime) -> Tag:
    stored, badges = image.default_file, marks(image, now)
    if scope.owner and (image.shared_users or image.shared_groups):
        badges.append(badge("shared"))
    owner = None if scope.owner else el("span", image.owner, "/", class_="owner")
    return el(
        "li",
        el("div", link(image_path(image), owner, image.name, class_="name"), badges),
        el("p", shortened(image.description), class_="about") if image.description else None,
        el("p", el("span", ", ".join(image.hypervisors)),
           el("span", size(stored.size) if stored else "no file yet"),
           moment(image.modified, day=True), class_="meta"),
    )  # fmt: skip


def marks(image: Image, now: datetime) -> list[Tag]:
    """What is special about an image."""
    return [
        badge(word, kind)
        for word, kind, holds in (
            ("public", "", image.unauthenticated_access),
            ("read-only", "", image.read_only),
            ("expired", "bad", image.has_expired(now)),
            ("damaged", "bad", any(f.damaged for f in image.files.values())),
        )
        if holds
    ]


def image_path(image: Image) -> str:
    """Where an image's page is."""
    return f"/image/{image.owner}/{image.name}"


def directory_path(owner: str = "") -> str:
    """Where the directory of all public images is for programs, or that of one owner's."""
    return f"/api/images/raw/{owner}/" if owner else "/api/images/raw/"


def _search(ask: Ask, scope: Listing, path: str, narrowed: bool) -> Tag:
    exact = [("os_type", "System"), ("os_variant", "Variant"), ("os_arch", "Architecture")]
    if not scope.owner:
        exact.insert(0, ("owner", "Owner"))
    more = [field(name, label, ask.query(name)) for name, label in exact]
    known = [("", "any"), *((word, word) for word in _hypervisors(ask))]
    more.append(choice("hypervisor", "Hypervisor", known, ask.query("hypervisor")))
    opened = any(ask.query(name) for name in FILTERS[1:])
    return el(
        "form",
        el("p", el("label", "Search", for_="q", class_="unseen"),
           el("input", id="q", name="q", type="search", value=ask.query("q") or "",
              placeholder="Name or description"),
           el("label", "Order", for_="sort", class_="unseen"),
           el("select", [el("option", shown, value=v, selected=v == (ask.query("sort") or "name"))
                         for v, shown in SORTS], id="sort", name="sort"),
           el("button", "Search", class_="quiet"), class_="bar"),
        el("details", el("summary", "Filters"), el("div", more, class_="fields"), open=opened),
        el("p", link(path, "Show all again")) if narrowed else None,
        action=path, role="search", class_="search",
    )  # fmt: skip


def _hypervisors(ask: Ask) -> tuple[str, ...]:
    asked = ask.query("hypervisor")
    return KNOWN_HYPERVISORS if asked in (None, *KNOWN_HYPERVISORS) else (*KNOWN_HYPERVISORS, asked)


def _pages(ask: Ask, wanted: Listing, found: list[Image], path: str) -> Tag | None:
    links = []
    if wanted.after is not None:
        links.append(link(_with(path, _query(ask)), "First page"))
    if len(found) > PAGE:
        query = query_after(ask, place_of(found[PAGE - 1], wanted))
        links.append(link(_with(path, query), "Next page", rel="next"))
    return el("nav", links, class_="pages", aria_label="Pages") if links else None


def _query(ask: Ask) -> dict[str, str]:
    return {name: values[-1] for name, values in ask.request.args.items() if name != "after"}


def _with(path: str, query: Mapping[str, str]) -> str:
    return f"{path}?{urlencode(query)}" if query else path
