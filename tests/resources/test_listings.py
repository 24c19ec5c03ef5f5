"""Lists over HTTPS: pages, filters, order, and Link."""

from __future__ import annotations

import base64
import json
import re
from itertools import chain
from urllib.parse import urlencode

import pytest

from tests.postgres import on_server
from tests.server import Answer, Daemon, Person


@pytest.fixture(scope="module")
def me(daemon: Daemon) -> Person:
    me = daemon.newcomer()
    for number in range(7):
        form = {
            "name": f"image{number}", "description": f"number {number}",
            "os_type": "linux" if number % 2 else "bsd", "os_arch": "x86_64",
            "hypervisor": "kvm" if number < 3 else "xen,kvm",
        }  # fmt: skip
        assert me.ask("POST", "/api/images", form=form).status == 201
        if number in (1, 4):
            path = f"/api/images/raw/{me.name}/kvm/image{number}"
            assert me.ask("PUT", path, body=b"x" * (10 - number)).status == 200
    return me


def names(answer: Answer) -> list[str]:
    assert answer.status == 200, answer
    return [url.rsplit("/", 1)[1] if isinstance(url, str) else url["name"] for url in answer.json]


def pages(me: Person, target: str) -> list[list[str]]:
    found = []
    while target:
        answer = me.ask("GET", target)
        found.append(names(answer))
        link = re.fullmatch('<(.*)>; rel="next"', answer.headers.get("Link", ""))
        target = link[1] if link else ""
    return found


@pytest.mark.parametrize("place", ["/api/images?owner={me}", "/api/users/{me}/images?"])
@pytest.mark.parametrize("view", ["", "&view=full"])
@pytest.mark.parametrize("sort", ["name", "-name", "modified", "-modified", "size", "-size"])
def test_the_pages_behind_link_are_the_whole(me: Person, place: str, view: str, sort: str) -> None:
    target = f"{place.format(me=me.name)}&sort={sort}{view}"
    whole = names(me.ask("GET", target))
    assert sorted(whole) == [f"image{n}" for n in range(7)]
    for limit in (1, 3, 7, 1000):
        found = pages(me, f"{target}&limit={limit}")
        assert [*chain(*found)] == whole
        assert len(found) == -(-7 // limit)


def test_the_order_is_the_one_asked_for(me: Person) -> None:
    base = f"/api/users/{me.name}/images?sort="
    ordered = [f"image{n}" for n in range(7)]
    assert names(me.ask("GET", base + "name")) == ordered
    assert names(me.ask("GET", base + "-name")) == ordered[::-1]
    assert names(me.ask("GET", base + "-size"))[:2] == ["image1", "image4"]
    assert names(me.ask("GET", base + "size"))[-2:] == ["image4", "image1"]
    assert names(me.ask("GET", base + "-modified"))[0] == "image6"


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ("os_type=linux", [1, 3, 5]),
        ("os_type=linux&os_arch=x86_64&limit=2", [1, 3]),
        ("os_type=Linux", []),
        ("os_variant=sl5", []),
        ("hypervisor=xen", [3, 4, 5, 6]),
        ("hypervisor=lxc", []),
        ("q=NUMBER+3", [3]),
        ("q=AGE5", [5]),
        ("q=%25", []),
        ("owner=impeyr", []),
        ("shared_with=impeyr", []),
    ],
)
def test_filters(me: Person, query: str, numbers: list[int]) -> None:
    expected = [f"image{n}" for n in numbers]
    assert names(me.ask("GET", f"/api/images?{query}")) == expected
    assert names(me.ask("GET", f"/api/images?{query}&view=full")) == expected


def test_a_narrower_place_wins_over_the_query(me: Person) -> None:
    assert len(names(me.ask("GET", f"/api/users/{me.name}/images?owner=impeyr"))) == 7


def test_full_records_are_those_of_the_images_themselves(me: Person) -> None:
    listed = me.ask("GET", "/api/images?view=full").json
    assert listed[1] == me.ask("GET", "/api/images/image1?view=full").json


def test_a_list_of_any_length_comes_whole(daemon: Daemon) -> None:
    many, count = daemon.newcomer(), 5001
    on_server(
        daemon.dsn,
        f"""
        INSERT INTO image (owner_id, name) SELECT account_id, 'image' || to_char(n, 'FM0000')
          FROM account, generate_series(1, {count}) n WHERE user_name = '{many.name}';
        INSERT INTO image_hypervisor (image_id, position, hypervisor)
        SELECT image_id, 1, 'xen' FROM image JOIN account ON owner_id = account_id
         WHERE user_name = '{many.name}'
        """,
    )
    whole = [f"image{number:04}" for number in range(1, count + 1)]
    for query, expected in (
        ("", whole), ("?view=full", whole), ("?view=full&sort=-name", whole[::-1]),
        ("?view=full&q=image4", whole[3999:4999]), ("?view=full&q=nothing", []),
    ):  # fmt: skip
        answer = many.ask("GET", f"/api/images{query}")
        assert names(answer) == expected
        assert "Link" not in answer.headers
        # It was not made at one go, unless it is short.
        assert ("Content-Length" in answer.headers) is (expected == [])
    assert daemon.admin.ask("DELETE", f"/api/users/{many.name}").status == 200


def after(place: object) -> str:
    token = base64.urlsafe_b64encode(json.dumps(place).encode()).decode()
    return urlencode({"after": token})


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("sort=colour", "sort"), ("limit=0", "limit"), ("limit=1001", "limit"),
        ("limit=ten", "limit"), ("limit=" + "9" * 5000, "limit"), ("limit=%F0%9D%9F%9E", "limit"),
        ("after=x", "after"), (after([]), "after"), (after(["a", "b"]), "after"),
        ("sort=size&" + after(["a", 1]), "after"), ("sort=size&" + after([True, 1]), "after"),
        ("sort=modified&" + after(["a", 1]), "after"), ("sort=modified&" + after([1, 1]), "after"),
        (after(["a\0", 1]), "after"), (after(["a", 10**20]), "after"),
        (after(["a", True]), "after"),
        ("q=a%00b", "q"), ("owner=%00", "owner"),
    ],
)  # fmt: skip
def test_a_query_that_means_nothing_is_refused(me: Person, query: str, field: str) -> None:
    refused = me.ask("GET", f"/api/images?{query}", headers={"Accept": "application/json"})
    assert (refused.status, refused.json["field"]) == (400, field)
