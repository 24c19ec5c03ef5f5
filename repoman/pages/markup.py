"""HTML out of values: elements, forms and fields.  Everything is escaped on its way out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timezone
from typing import Any

from twisted.python.failure import Failure
from twisted.web.template import Tag, flatten

Content = Any
"""What can stand in an element: text, elements, lists of these, nothing."""

UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")


def el(tag: str, *content: Content, **attributes: Any) -> Tag:
    """An element.

    :param attributes: ``for_`` is ``for`` and ``aria_label`` is ``aria-label``; ``True`` is an
        attribute without a value, ``None`` and ``False`` are none.
    """
    given: dict[Any, Any] = {
        name.rstrip("_").replace("_", "-"): "" if value is True else str(value)
        for name, value in attributes.items()
        if value is not None and value is not False
    }
    return Tag(tag, attributes=given, children=list(_present(content)))


def _present(content: Iterable[Content]) -> Iterator[Content]:
    """What there is, lists laid flat."""
    for one in content:
        if isinstance(one, list | tuple):
            yield from _present(one)
        elif one is not None:
            yield one


def rendered(tree: Tag) -> bytes:
    """An element as UTF-8."""
    parts: list[bytes] = []
    failures: list[Failure] = []
    # Nothing in it has to be waited for, so it is done when this returns.
    flatten(None, tree, parts.append).addErrback(failures.append)
    if failures:
        failures[0].raiseException()
    return b"".join(parts)


def size(count: int | None) -> str:
    """A number of bytes, for people."""
    if count is None:
        return "–"
    value, unit = float(count), 0
    while value >= 1024 and unit < len(UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{count} {UNITS[0]}" if unit == 0 else f"{value:.3g} {UNITS[unit]}".replace("e+03", "")


SHOWN = 300
"""Characters of a text that stands in a list."""


def shortened(text: str) -> str:
    """The beginning of a text, for a list: the whole is on a page of its own."""
    return text if len(text) <= SHOWN else text[:SHOWN].rstrip() + "…"


def moment(when: datetime | None, *, day: bool = False) -> Content:
    """A time in UTC; with ``day`` only the date is shown."""
    if when is None:
        return "–"
    when = when.astimezone(timezone.utc)
    full = f"{when:%Y-%m-%d %H:%M} UTC"
    shown = f"{when:%Y-%m-%d}" if day else full
    return el("time", shown, datetime=f"{when:%Y-%m-%dT%H:%M:%SZ}", title=full if day else None)


def link(target: str, *content: Content, **attributes: Any) -> Tag:
    """A link."""
    return el("a", *content, href=target, **attributes)


def badge(text: str, kind: str = "") -> Tag:
    """A word that marks a thing."""
    return el("span", text, class_=f"badge {kind}".strip())


def notice(*content: Content, kind: str = "") -> Tag:
    """Something to be read first."""
    role = "alert" if kind == "bad" else "status"
    return el("div", *content, class_=f"notice {kind}".strip(), role=role)


def facts(rows: Iterable[tuple[str, Content]]) -> Tag:
    """A list of terms and what they are."""
    return el("dl", [el("div", el("dt", name), el("dd", value)) for name, value in rows])


def copied(text: str, what: str) -> Tag:
    """A line to be taken along, with a button that does so where there is a script."""
    return el(
        "div", el("code", text, tabindex="0"),
        el("button", "Copy", type="button", class_="copy", hidden=True, aria_label=f"Copy {what}"),
        class_="line",
    )  # fmt: skip


TOKEN = b'name="token"'
"""What a page has in it that has a token: a text could not, which has no such quotes there."""


def form(action: str, token: str, *content: Content, button: str, kind: str = "") -> Tag:
    """A form that changes something.

    :param token: that :class:`~repoman.pages.tokens.Tokens` issued for this very action.
    """
    return el(
        "form", *content, el("input", type="hidden", name="token", value=token),
        el("p", el("button", button, class_=kind or None), class_="send"),
        method="post", action=action,
    )  # fmt: skip


def field(name: str, label: str, value: Any = "", *, hint: str = "", **attributes: Any) -> Tag:
    """A labelled line of text.

    :param hint: what to know before one fills it in.
    """
    key = attributes.pop("id", name)
    return el(
        "p", el("label", label, for_=key),
        el("small", hint, id=f"{key}-hint") if hint else None,
        el("input", id=key, name=name, value="" if value is None else value,
           aria_describedby=f"{key}-hint" if hint else None, **attributes),
        class_="field",
    )  # fmt: skip


def area(name: str, label: str, value: str | None, *, hint: str = "", key: str = "") -> Tag:
    """A labelled text of several lines."""
    key = key or name
    return el(
        "p", el("label", label, for_=key), el("small", hint, id=f"{key}-hint") if hint else None,
        # A newline right after the tag is dropped by browsers (HTML section 13.1.2.5).
        el("textarea", "\n" + (value or ""), id=key, name=name, rows=3,
           aria_describedby=f"{key}-hint" if hint else None),
        class_="field wide",
    )  # fmt: skip


def choice(name: str, label: str, options: Sequence[tuple[str, str]], value: str | None) -> Tag:
    """One of several values, each given with what is shown for it."""
    return el(
        "p", el("label", label, for_=name),
        el("select", [el("option", shown, value=v, selected=v == value) for v, shown in options],
           id=name, name=name),
        class_="field",
    )  # fmt: skip


def names_list(key: str, names: Iterable[str]) -> Tag:
    """Names that a browser completes a field with whose ``list`` is ``key``."""
    return el("datalist", [el("option", value=name) for name in names], id=key)
