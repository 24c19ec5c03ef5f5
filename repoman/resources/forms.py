"""Small bodies in: forms and JSON, validated, every mistake with the field's name."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from attrs import fields, frozen
from cattrs import Converter
from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError, IterableValidationError

from repoman.errors import Invalid, UnsupportedMedia
from repoman.interfaces import IBody
from repoman.model import NAME_LIMIT
from repoman.resources.asking import check_text
from repoman.resources.media_types import check_not_encoded

LIMIT = 256 * 1024
"""The largest form, in bytes: so much can be read without a stall, whatever it is made of."""

MOST_WORDS = 10_000
"""The longest list in a form."""

MOST_FIELDS = 1000
"""How many fields a form has at most: far more than anything here knows."""

TRUE, FALSE = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}

T = TypeVar("T")

ABSENT: Any = object()
"""Stands for a field that the client did not send."""


@frozen
class Words:
    """A list of words, sent as a list or separated by commas."""

    words: tuple[str, ...]


@frozen
class Lines:
    """A list of texts that may hold commas, sent as a list or one per line."""

    lines: tuple[str, ...]


@frozen
class Moment:
    """A point in time, or none."""

    time: datetime | None


NO_WORDS, NO_LINES, NEVER = Words(()), Lines(()), Moment(None)
"""What a field is that the client left out."""

YEARS = range(1970, 10000)
"""Years that a time may lie in, in UTC: 9999 is how some people write "never"."""


def read_moment(text: str) -> datetime | None:
    """A time as people write it: ISO 8601, a date, or as we print it; UTC unless it says.

    :raises ValueError: it is none of these.
    """
    text = text.strip()
    if not text or text == "None":
        return None
    try:
        moment = datetime.fromisoformat(text.upper().replace("Z", "+00:00"))
    except ValueError:
        moment = datetime(*time.strptime(text)[:6], tzinfo=timezone.utc)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    moment = moment.astimezone(timezone.utc)
    if moment.year not in YEARS:
        raise ValueError("a year that nobody means")
    return moment


def _text(value: Any, _: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be text")
    return value


def read_flag(name: str, text: str) -> bool:
    """Whether a parameter of a query says yes.

    :raises Invalid: it says neither yes nor no.
    """
    try:
        return _flag(text, bool)
    except ValueError as error:
        raise Invalid(f"{name}: {error}.", field=name) from None


def _flag(value: Any, _: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).lower()
    if word not in TRUE | FALSE:
        raise ValueError("must be true or false")
    return word in TRUE


def _number(value: Any, _: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("must be a whole number")
    try:
        number = int(value)
    except ValueError:
        raise ValueError("must be a whole number") from None
    if not 0 <= number < 2**63:
        raise ValueError("must be between 0 and 2^63 - 1")
    return number


def _words(value: Any, _: Any) -> Words:
    parts = value.split(",", MOST_WORDS) if isinstance(value, str) else value
    if not (isinstance(parts, list) and all(isinstance(p, str) for p in parts)):
        raise ValueError("must be words separated by commas")
    if len(parts) > MOST_WORDS:
        raise ValueError(f"must be {MOST_WORDS} words at most")
    return Words(tuple(p.strip() for p in parts if p.strip()))


def _lines(value: Any, _: Any) -> Lines:
    parts = value.splitlines() if isinstance(value, str) else value
    if not (isinstance(parts, list) and all(isinstance(p, str) for p in parts)):
        raise ValueError("must be a list, or one in a line")
    return Lines(tuple(p.strip() for p in parts if p.strip()))


def _maybe_number(value: Any, _: Any) -> int | None:
    return None if value is None or value == "" else _number(value, int)


def _moment(value: Any, _: Any) -> Moment:
    if value is None:
        return Moment(None)
    try:
        return Moment(read_moment(_text(value, str)))
    except (ValueError, OverflowError):
        raise ValueError("must be a time such as 2026-12-31 or 2026-12-31T23:59:59Z") from None


_converter = Converter(forbid_extra_keys=True)
for _kind, _hook in (
    (str, _text), (bool, _flag), (int, _number), (Words, _words), (Lines, _lines),
    (Moment, _moment), (int | None, _maybe_number),
):  # fmt: skip
    _converter.register_structure_hook(_kind, _hook)


async def read_form(request: Any, kind: type[T], *, unknown: str = "There is no field {}.") -> T:
    """The body of ``request`` as a ``kind``, an attrs class.

    :param unknown: what to say of a field that ``kind`` does not have.
    :raises Invalid: with the field's name.
    :raises TooLarge: more than a form can be.
    :raises UnsupportedMedia: neither a form nor JSON.
    """
    return structure(await read_fields(request), kind, unknown=unknown)


async def read_fields(request: Any) -> Mapping[str, Any]:
    """The fields of a request's body, as they came.

    :raises Invalid: the body is broken, or has what is not text.
    :raises TooLarge: more than a form can be.
    :raises UnsupportedMedia: neither a form nor JSON, or encoded.
    """
    check_not_encoded(request, "send the form as it is.")
    body: IBody = request.body
    values = decode(await body.read(LIMIT), request.getHeader("content-type") or "")
    for name, value in values.items():
        if len(name) > NAME_LIMIT:
            raise Invalid(f"A field's name has at most {NAME_LIMIT} characters.")
        for text in (name, value) if isinstance(value, str) else (name,):
            check_text(name, text)
    return values


def structure(
    values: Mapping[str, Any], kind: type[T], *, unknown: str = "There is no field {}."
) -> T:
    """Fields as a ``kind``, an attrs class.

    :param unknown: what to say of a field that ``kind`` does not have.
    :raises Invalid: with the field's name.
    """
    try:
        return _converter.structure(values, kind)
    except ClassValidationError as error:
        raise _first_mistake(error, unknown) from None


def decode(data: bytes, content_type: str) -> Mapping[str, Any]:
    """The fields of a body.

    :raises Invalid: it is broken.
    :raises UnsupportedMedia: it is neither a form nor JSON.
    """
    media = content_type.partition(";")[0].strip().lower()
    try:
        text = data.decode("utf-8")
        if media == "application/json":
            fields_in = json.loads(text or "{}", object_pairs_hook=_once)
            if not isinstance(fields_in, dict):
                raise Invalid("The JSON body must be an object.")
            return fields_in
        if media in ("", "application/x-www-form-urlencoded"):
            return _once(
                parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS)
            )
    except (ValueError, RecursionError):
        raise Invalid("The body is not what its Content-Type says.") from None
    raise UnsupportedMedia(
        f"A body of {media} is not read here; send application/x-www-form-urlencoded or "
        "application/json."
    )


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The fields by name; of two with one name, no reader would know which one counts."""
    if len(pairs) > MOST_FIELDS:
        raise Invalid(f"An object has at most {MOST_FIELDS} fields here.")
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise Invalid(f"{name} is there twice.", field=name)
        found[name] = value
    return found


def _first_mistake(error: ClassValidationError, unknown: str) -> Invalid:
    for mistake in error.exceptions:
        if isinstance(mistake, ForbiddenExtraKeysError):
            name = sorted(map(str, mistake.extra_fields))[0]
            return Invalid(unknown.format(name), field=name)
    grouped, _ = error.group_exceptions()
    if not grouped:
        return Invalid("Something required is missing.")
    mistake, note = grouped[0]
    name = str(note.name)
    while isinstance(mistake, ClassValidationError | IterableValidationError):
        mistake = mistake.exceptions[0]
    if isinstance(mistake, KeyError):
        return Invalid(f"{name} is missing.", field=name)
    return Invalid(f"{name}: {mistake}.", field=name)


def given(form: Any) -> dict[str, Any]:
    """The fields of ``form`` that the client sent, lists and Moments unpacked."""
    values = {f.name: getattr(form, f.name) for f in fields(type(form))}
    return {name: _plain(v) for name, v in values.items() if v is not ABSENT}


def _plain(value: Any) -> Any:
    if isinstance(value, Words):
        return value.words
    if isinstance(value, Lines):
        return value.lines
    return value.time if isinstance(value, Moment) else value
