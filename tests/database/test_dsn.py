"""What libpq is told, and what is never told to anybody."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg2.extensions import make_dsn

from repoman.database.dsn import connection_parameters
from repoman.errors import Misconfigured

SECRET = "hunter2"


def parameters(dsn: str) -> dict[str, str]:
    return connection_parameters(dsn, application_name="repoman", statement_timeout=30)


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://u:hunter2/x@host/db",
        "postgresql://u:hunter2@x@host/db",
        "postgresql://u:%hunter2@host/db",
        "postgresql://u:%80hunter2@host/db",
        "host=h password=x hunter2",
        "host=h password='hunter2",
        "hunter2",
    ],
)
def test_a_dsn_that_cannot_be_read_is_not_quoted(dsn: str) -> None:
    with pytest.raises(Misconfigured, match="dsn") as caught:
        parameters(dsn)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


@given(st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=8))
def test_no_part_of_a_url_with_an_unescaped_password_can_reach_a_message(noise: str) -> None:
    """Either it is refused, or the secret is the password and nothing else."""
    try:
        parts = parameters(f"postgresql://user:{noise}{SECRET}{noise}@host/db")
    except Misconfigured as error:
        parts = {"password": SECRET, "message": str(error)}
    assert [name for name, value in parts.items() if SECRET in value] == ["password"]


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")))
def test_a_password_in_a_key_value_string_is_kept_as_it_is(password: str) -> None:
    assert parameters(make_dsn(host="h", password=password)).get("password", "") == password


def test_the_administrators_own_parameters_win() -> None:
    parts = parameters(
        "host=h application_name=mine keepalives_idle=60 options='-c statement_timeout=5'"
    )
    assert parts["application_name"] == "mine"
    assert parts["keepalives_idle"] == "60"
    # The server takes the last one.
    assert parts["options"].endswith("-c statement_timeout=5")
    assert "-c statement_timeout=30000" in parts["options"]


def test_the_encoding_is_ours() -> None:
    assert parameters("host=h client_encoding=LATIN1")["client_encoding"] == "UTF8"
