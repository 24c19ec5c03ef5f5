"""Forms that change something: whose browser sent them, from which page, for what."""

from __future__ import annotations

from collections.abc import Set
from typing import Any, TypeVar

from repoman.errors import Invalid
from repoman.pages.tokens import Tokens
from repoman.policy import identified, may_write
from repoman.resources.asking import Ask
from repoman.resources.forms import read_fields, structure
from repoman.resources.origin import check_origin

T = TypeVar("T")


async def read_post(ask: Ask, tokens: Tokens, kind: type[T], nullable: Set[str] = frozenset()) -> T:
    """The form that was sent, as a ``kind``, an attrs class.

    :raises Invalid: with the field's name.
    """
    return structure(await read_fields_of_post(ask, tokens, nullable), kind)


async def read_fields_of_post(
    ask: Ask, tokens: Tokens, nullable: Set[str] = frozenset()
) -> dict[str, Any]:
    """The fields of the form that was sent.

    :param nullable: those that are ``None`` when nothing was filled in.
    :raises Invalid: it is no form of texts.
    :raises Protected: it does not come from a page of ours that was made for this user and this.
    :raises NotIdentified: nobody in particular sent it.
    :raises NotPermitted: the credential may only read.
    """
    identified(ask.caller)
    check_origin(ask.request, by_browser=True)
    may_write(ask.caller)
    sent = await read_fields(ask.request)
    if odd := next((name for name, value in sent.items() if not isinstance(value, str)), None):
        raise Invalid(f"{odd}: a form of a page holds text only.", field=odd)  # it came as JSON
    # Browsers make a CRLF of every newline in a text (HTML section 4.10.21.4), changed or not.
    fields: dict[str, Any] = {name: text.replace("\r\n", "\n") for name, text in sent.items()}
    token = fields.pop("token", "")
    tokens.check(ask.caller, ask.request.path.decode("ascii"), token)
    for name in nullable & fields.keys():
        fields[name] = fields[name] or None
    return fields
