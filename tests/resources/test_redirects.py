"""Downloads that are answered by the address of their bytes in the store."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from repoman.model import Image
from repoman.policy import Redirect, may_redirect
from repoman.resources.headers import takes_redirect

NOW = datetime(2026, 11, 24, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("prefer", "takes"),
    [
        (None, None),
        ("", None),
        ("respond-async", None),
        ("redirect", True),
        ("Redirect", True),
        ("wait=10, redirect; quickly", True),
        ('redirect=""', True),  # RFC 7240 section 2: as if there were no value
        ("redirect=no", False),
        ('redirect = "no"', False),
        ("redirect=no, redirect", False),  # and the first one counts
        ("redirect=perhaps", None),
        ("no-redirect", None),
    ],
)
def test_what_a_client_says_of_redirects_is_read_as_rfc_7240_has_it(
    prefer: str | None, takes: bool | None
) -> None:
    assert takes_redirect(prefer) is takes


@pytest.mark.parametrize(
    ("redirect", "public", "who"),
    [
        ("no", True, set()),
        ("no", False, set()),
        ("public", True, {True, None}),
        ("public", False, set()),
        ("all", True, {True, None}),
        ("all", False, {True}),
    ],
)
def test_nobody_is_sent_to_the_store_who_did_not_agree_unless_the_image_is_public(
    redirect: Redirect, public: bool, who: set[bool | None]
) -> None:
    image = Image(1, "0" * 32, "image", 1, "alice", NOW, unauthenticated_access=public)
    assert {takes for takes in (True, False, None) if may_redirect(redirect, image, takes)} == who
