"""Groups: their records, members and permissions."""

from __future__ import annotations

from attrs import frozen

from repoman.model import Group
from repoman.policy import authorize
from repoman.records import Listing
from repoman.repository import Repository
from repoman.resources.asking import Ask, Routes
from repoman.resources.forms import ABSENT, NO_WORDS, Words, given, read_form
from repoman.resources.listing import URLS, list_images, wants_full
from repoman.resources.long_lists import send_list
from repoman.resources.replies import Reply
from repoman.resources.users import list_users
from repoman.user_records import NewGroup
from repoman.wire import group_json

BATCH = 8
"""Groups that are read at one go, at most: each may have all users."""


@frozen(kw_only=True)
class CreateForm:
    """What a group is created with."""

    name: str
    users: Words = NO_WORDS
    permissions: Words = NO_WORDS


@frozen(kw_only=True)
class ChangeForm:
    """What can be changed of a group."""

    name: str = ABSENT


def add_routes(routes: Routes, repository: Repository) -> None:
    """``/api/groups`` and below."""
    groups = repository.groups
    one = "/api/groups/<group>"

    @routes.add("GET", "/api/groups")
    async def listing(ask: Ask) -> None:
        async def full(place: str | None, count: int) -> list[tuple[str, Group]]:
            found = await groups.listing(ask.caller, place or "", count)
            return [(group.name, group) for group in found]

        async def names(place: str | None, count: int) -> list[tuple[str, str]]:
            return [(n, n) for n in await groups.names(ask.caller, place or "", count)]

        if wants_full(ask):
            await send_list(ask.request, full, lambda g: group_json(g, ask.urls), most=BATCH)
        else:
            await send_list(ask.request, names, ask.urls.group, most=URLS)

    @routes.add("POST", "/api/groups")
    async def create(ask: Ask) -> Reply:
        authorize("group.create", ask.caller)
        form = await read_form(ask.request, CreateForm)
        new = NewGroup(form.name, form.users.words, form.permissions.words)
        return Reply(group_json(await groups.create(ask.caller, new), ask.urls))

    @routes.add("GET", one)
    async def describe(ask: Ask, group: str) -> Reply:
        return Reply(group_json(await groups.find(ask.caller, group), ask.urls))

    @routes.add("POST", one)
    async def change(ask: Ask, group: str) -> Reply:
        authorize("group.modify", ask.caller)
        changes = given(await read_form(ask.request, ChangeForm))
        renamed = await groups.rename(ask.caller, group, changes.get("name", group))
        return Reply(group_json(renamed, ask.urls))

    @routes.add("DELETE", one)
    async def delete(ask: Ask, group: str) -> Reply:
        await groups.delete(ask.caller, group)
        return Reply({})

    @routes.add("GET", f"{one}/shared")
    async def shared(ask: Ask, group: str) -> None:
        await groups.find(ask.caller, group)
        await list_images(ask, repository, Listing(shared_with_group=group))

    @routes.add("GET", f"{one}/users")
    async def members(ask: Ask, group: str) -> None:
        await groups.find(ask.caller, group)
        await list_users(ask, repository, group)

    @routes.add("GET", f"{one}/permissions")
    async def permissions(ask: Ask, group: str) -> Reply:
        return Reply(list((await groups.find(ask.caller, group)).permissions))

    @routes.add("POST", f"{one}/users/<user>")
    async def add_member(ask: Ask, group: str, user: str) -> Reply:
        await groups.add_member(ask.caller, group, user)
        return Reply({})

    @routes.add("DELETE", f"{one}/users/<user>")
    async def remove_member(ask: Ask, group: str, user: str) -> Reply:
        await groups.remove_member(ask.caller, group, user)
        return Reply({})

    @routes.add("POST", f"{one}/permissions/<permission>")
    async def permit(ask: Ask, group: str, permission: str) -> Reply:
        await groups.permit(ask.caller, group, permission)
        return Reply({})

    @routes.add("DELETE", f"{one}/permissions/<permission>")
    async def forbid(ask: Ask, group: str, permission: str) -> Reply:
        await groups.forbid(ask.caller, group, permission)
        return Reply({})
