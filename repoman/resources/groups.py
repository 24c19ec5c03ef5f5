"""Groups: their records, members and permissions."""

from __future__ import annotations

from attrs import frozen

from repoman.policy import authorize
from repoman.records import Listing, NewGroup
from repoman.repository import Repository
from repoman.resources.asking import Ask, Routes
from repoman.resources.forms import ABSENT, NO_WORDS, Words, given, read_form
from repoman.resources.listing import list_images, wants_full
from repoman.resources.replies import Reply
from repoman.resources.users import users_json
from repoman.wire import group_json


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
    async def listing(ask: Ask) -> Reply:
        found = await groups.listing(ask.caller)
        if wants_full(ask):
            return Reply([group_json(group, ask.urls) for group in found])
        return Reply([ask.urls.group(group.name) for group in found])

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
    async def shared(ask: Ask, group: str) -> Reply | None:
        await groups.find(ask.caller, group)
        return await list_images(ask, repository, Listing(shared_with_group=group))

    @routes.add("GET", f"{one}/users")
    async def members(ask: Ask, group: str) -> Reply:
        found = await groups.find(ask.caller, group)
        if wants_full(ask):
            return Reply(users_json(ask, await repository.users.profiles(ask.caller, group=group)))
        return Reply([ask.urls.user(name) for name in found.users])

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
