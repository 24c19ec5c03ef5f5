"""What administrators' forms do to users and groups."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from repoman import settings
from repoman.errors import Invalid
from repoman.pages.answer import Answer, see_other
from repoman.pages.changes import DeleteForm, check_typed
from repoman.pages.posting import read_fields_of_post, read_post
from repoman.pages.tokens import Tokens
from repoman.repository import Repository
from repoman.resources import users as forms
from repoman.resources.asking import Ask, Routes
from repoman.resources.forms import structure
from repoman.user_records import NewGroup

USER_TEXTS = frozenset({"full_name", "email"})
"""Fields of a user that are nothing rather than empty."""


@frozen(kw_only=True)
class NameForm:
    """A name."""

    name: str


@frozen(kw_only=True)
class MemberForm:
    """Who becomes a member, or is no longer one."""

    user: str
    end: bool = False


@frozen(kw_only=True)
class PermissionForm:
    """What a group permits, or no longer."""

    permission: str
    end: bool = False


def with_quota(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields with the quota in bytes.

    :raises Invalid: it is no size.
    """
    text = fields.get("quota")
    try:
        return fields if not text else {**fields, "quota": settings.size(text)}
    except ValueError as error:
        raise Invalid(f"quota: {error}.", field="quota") from None


def add_routes(routes: Routes, repository: Repository, tokens: Tokens) -> None:
    """What is posted to users and groups."""
    _add_users(routes, repository, tokens)
    _add_groups(routes, repository, tokens)
    _add_parts_of_groups(routes, repository, tokens)


def _add_users(routes: Routes, repository: Repository, tokens: Tokens) -> None:
    users = repository.users

    @routes.add("POST", "/users/new")
    async def create(ask: Ask) -> Answer:
        fields = with_quota(await read_fields_of_post(ask, tokens, USER_TEXTS))
        new = forms.new_user(structure(fields, forms.CreateForm))
        made = await users.create(ask.caller, new)
        return see_other(f"/user/{made.user.user_name}")

    @routes.add("POST", "/user/<name>/change")
    async def change(ask: Ask, name: str) -> Answer:
        fields = with_quota(await read_fields_of_post(ask, tokens, USER_TEXTS))
        changes = forms.user_changes(structure(fields, forms.ChangeForm))
        changed = await users.change(ask.caller, name, changes)
        return see_other(f"/user/{changed.user.user_name}")

    @routes.add("POST", "/user/<name>/delete")
    async def delete(ask: Ask, name: str) -> Answer:
        check_typed((await read_post(ask, tokens, DeleteForm)).typed, name)
        await users.delete(ask.caller, name)
        return see_other("/users")


def _add_groups(routes: Routes, repository: Repository, tokens: Tokens) -> None:
    groups = repository.groups

    @routes.add("POST", "/groups")
    async def create(ask: Ask) -> Answer:
        name = (await read_post(ask, tokens, NameForm)).name
        await groups.create(ask.caller, NewGroup(name))
        return see_other(f"/group/{name}")

    @routes.add("POST", "/group/<name>/change")
    async def rename(ask: Ask, name: str) -> Answer:
        new = (await read_post(ask, tokens, NameForm)).name
        await groups.rename(ask.caller, name, new)
        return see_other(f"/group/{new}")

    @routes.add("POST", "/group/<name>/delete")
    async def delete(ask: Ask, name: str) -> Answer:
        check_typed((await read_post(ask, tokens, DeleteForm)).typed, name)
        await groups.delete(ask.caller, name)
        return see_other("/groups")


def _add_parts_of_groups(routes: Routes, repository: Repository, tokens: Tokens) -> None:
    groups = repository.groups

    @routes.add("POST", "/group/<name>/members")
    async def member(ask: Ask, name: str) -> Answer:
        form = await read_post(ask, tokens, MemberForm)
        act = groups.remove_member if form.end else groups.add_member
        await act(ask.caller, name, form.user)
        return see_other(f"/group/{name}")

    @routes.add("POST", "/group/<name>/permissions")
    async def permission(ask: Ask, name: str) -> Answer:
        form = await read_post(ask, tokens, PermissionForm)
        act = groups.forbid if form.end else groups.permit
        await act(ask.caller, name, form.permission)
        return see_other(f"/group/{name}")
