"""Users: their records, and what hangs on them."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from repoman.gsi.dn import parse_dn
from repoman.model import Profile
from repoman.policy import authorize, may
from repoman.records import Listing
from repoman.repository import Repository
from repoman.resources.asking import Ask, Routes
from repoman.resources.forms import ABSENT, NO_LINES, NO_WORDS, Lines, Words, given, read_form
from repoman.resources.listing import URLS, list_images, wants_full
from repoman.resources.long_lists import send_list
from repoman.resources.replies import Reply
from repoman.user_records import NewUser
from repoman.wire import user_json

BATCH = 100
"""Users that are read at one go, at most: each may have many images."""


@frozen(kw_only=True)
class CreateForm:
    """What a user is created with."""

    user_name: str
    cert_dn: str
    issuer_dn: str | None = None
    anchor_dn: str | None = None
    client_dns: Lines = NO_LINES
    full_name: str | None = None
    email: str | None = None
    groups: Words = NO_WORDS
    suspended: bool = False
    quota: int | None = None


@frozen(kw_only=True)
class ChangeForm:
    """What can be changed of a user."""

    user_name: str = ABSENT
    cert_dn: str = ABSENT
    issuer_dn: str | None = ABSENT
    anchor_dn: str | None = ABSENT
    client_dns: Lines = ABSENT
    full_name: str | None = ABSENT
    email: str | None = ABSENT
    suspended: bool = ABSENT
    quota: int | None = ABSENT


def add_routes(routes: Routes, repository: Repository) -> None:
    """``/api/users`` and below."""
    users = repository.users
    one = "/api/users/<user>"

    @routes.add("GET", "/api/users")
    async def listing(ask: Ask) -> None:
        await list_users(ask, repository)

    @routes.add("POST", "/api/users")
    async def create(ask: Ask) -> Reply:
        authorize("user.create", ask.caller)
        form = await read_form(ask.request, CreateForm)
        return _reply(ask, await users.create(ask.caller, new_user(form)))

    @routes.add("GET", one)
    async def describe(ask: Ask, user: str) -> Reply:
        return _reply(ask, await users.profile(ask.caller, user))

    @routes.add("POST", one)
    async def change(ask: Ask, user: str) -> Reply:
        await users.authorize_change(ask.caller, user)
        changes = user_changes(await read_form(ask.request, ChangeForm))
        return _reply(ask, await users.change(ask.caller, user, changes))

    @routes.add("DELETE", one)
    async def delete(ask: Ask, user: str) -> Reply:
        await users.delete(ask.caller, user)
        return Reply({})

    @routes.add("GET", f"{one}/images")
    async def images(ask: Ask, user: str) -> None:
        await users.find(ask.caller, user)
        await list_images(ask, repository, Listing(owner=user))

    @routes.add("GET", f"{one}/groups")
    async def groups(ask: Ask, user: str) -> Reply:
        found = await users.find(ask.caller, user)
        return Reply([ask.urls.group(name) for name in found.groups])

    @routes.add("GET", f"{one}/permissions")
    async def permissions(ask: Ask, user: str) -> Reply:
        return Reply(sorted((await users.find(ask.caller, user)).permissions))

    @routes.add("GET", f"{one}/shared")
    async def shared(ask: Ask, user: str) -> None:
        await users.authorize_shares(ask.caller, user)
        await list_images(ask, repository, Listing(shared_with_user=user))

    @routes.add("GET", f"{one}/sharing")
    async def sharing(ask: Ask, user: str) -> None:
        await users.authorize_shares(ask.caller, user)
        await list_images(ask, repository, Listing(owner=user, shared_out=True))


async def list_users(ask: Ask, repository: Repository, group: str | None = None) -> None:
    """All users, or a group's members: in full, if asked for, as far as the caller may see."""
    users = repository.users

    async def full(place: str | None, count: int) -> list[tuple[str, Profile]]:
        found = await users.profiles(ask.caller, place or "", count, group=group)
        return [(profile.user.user_name, profile) for profile in found]

    async def names(place: str | None, count: int) -> list[tuple[str, str]]:
        found = await users.names(ask.caller, place or "", count, group=group)
        return [(name, name) for name in found]

    if wants_full(ask):
        await send_list(ask.request, full, lambda p: _json(ask, p, full=True), most=BATCH)
    else:
        await send_list(ask.request, names, ask.urls.user, most=URLS)


def _json(ask: Ask, profile: Profile, *, full: bool) -> dict[str, Any]:
    private = may("user.see_private", ask.caller, profile.user)
    return user_json(profile, ask.urls, private=private, full=full)


def _reply(ask: Ask, profile: Profile) -> Reply:
    return Reply(_json(ask, profile, full=wants_full(ask)))


def new_user(form: CreateForm) -> NewUser:
    """The user that a form describes."""
    first = parse_dn(form.cert_dn, "cert_dn")
    others = (parse_dn(dn, "client_dns") for dn in form.client_dns.lines)
    return NewUser(
        user_name=form.user_name,
        client_dns=tuple(dict.fromkeys((first, *others))),
        issuer_dn=_dn_or_none(form.issuer_dn, "issuer_dn"),
        anchor_dn=_dn_or_none(form.anchor_dn, "anchor_dn"),
        full_name=form.full_name,
        email=form.email or None,
        groups=form.groups.words,
        suspended=form.suspended,
        quota=form.quota,
    )


def _dn_or_none(text: str | None, named: str) -> str | None:
    return parse_dn(text, named) if text else None


def user_changes(form: ChangeForm) -> dict[str, Any]:
    """What a form changes, by the names that the repository knows."""
    changes = given(form)
    if "email" in changes:
        changes["email"] = changes["email"] or None
    if "cert_dn" in changes:
        changes["cert_dn"] = parse_dn(changes["cert_dn"], "cert_dn")
    for name in changes.keys() & {"issuer_dn", "anchor_dn"}:
        changes[name] = _dn_or_none(changes[name], name)
    if "client_dns" in changes:
        parsed = (parse_dn(dn, "client_dns") for dn in changes["client_dns"])
        changes["client_dns"] = tuple(dict.fromkeys(parsed))
    return changes
