"""Plots, as SVG in the page: no script, no picture to fetch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.web.template import Tag

from repoman.pages.markup import el

WIDTH, HEIGHT = 432, 90
"""Of the drawing of a day, in its own units."""


def day(title: str, values: Sequence[float], shown: Callable[[float], str]) -> Tag:
    """A bar for each span of the last day.

    :param shown: a value, for people.
    """
    most = max(values)
    step = WIDTH / len(values)
    bars = "".join(
        f"M{i * step:.4g} {HEIGHT}v-{value / most * (HEIGHT - 2):.3g}h{step * 0.8:.3g}V{HEIGHT}z"
        for i, value in enumerate(values)
        if value
    )
    words = f"most {shown(most)}" if most else "nothing"
    return el(
        "figure",
        el("figcaption", el("strong", title), " ", el("span", words, class_="quiet")),
        el("svg",
           el("path", d=f"M0 {HEIGHT}h{WIDTH}", class_="axis"),
           el("path", d=bars, class_="bar") if bars else None,
           viewBox=f"0 0 {WIDTH} {HEIGHT + 1}", preserveAspectRatio="none", role="img",
           aria_label=f"{title}, over the last day: {words}"),
        el("p", el("span", "24 h ago"), el("span", "12 h"), el("span", "now"), class_="hours",
           aria_hidden="true"),
    )  # fmt: skip


def shares(title: str, values: Sequence[tuple[str, float]], shown: Callable[[float], str]) -> Tag:
    """A bar across for each name, the longest one first."""
    most = max((value for _, value in values), default=0) or 1
    rows = [
        el("tr", el("th", name, scope="row"),
           el("td", el("svg",
                       el("rect", width=f"{value / most * 100:.3g}", height=10, class_="bar"),
                       viewBox="0 0 100 10", preserveAspectRatio="none", aria_hidden="true")),
           el("td", shown(value)))
        for name, value in values
    ]  # fmt: skip
    return el("table", el("caption", title), rows, class_="shares-of")
