"""From a violated constraint to the error that a person understands: once, here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import psycopg2.errors

from repoman.errors import AlreadyExists, Conflict, Missing, RepomanError

MEANINGS: Mapping[str, Callable[[str], RepomanError]] = {
    "word_pkey": lambda name: AlreadyExists(
        f"The name {name} is taken by a user or a hypervisor, or is reserved.", field="user_name"
    ),
    "account_user_name_taken": lambda name: AlreadyExists(
        f"There is already a user {name}.", field="user_name"
    ),
    "account_email_taken": lambda name: AlreadyExists(
        "Another user has that e-mail address.", field="email"
    ),
    "login_pkey": lambda name: AlreadyExists("Another user has that DN.", field="cert_dn"),
    "user_group_name_taken": lambda name: AlreadyExists(
        f"There is already a group {name}.", field="name"
    ),
    "image_name_taken": lambda name: AlreadyExists(
        f"There is already an image {name}.", field="name"
    ),
    "image_hypervisor_word": lambda name: Conflict(
        "A hypervisor in the list has the name of a user, or a reserved one.", field="hypervisor"
    ),
}
"""What each constraint of the schema is there for."""


@contextmanager
def translated(name: str) -> Iterator[None]:
    """Raise what a violated constraint means for the thing called ``name``."""
    try:
        yield
    except psycopg2.errors.IntegrityError as error:
        constraint = error.diag.constraint_name or ""
        if constraint in MEANINGS:
            raise MEANINGS[constraint](name) from None
        if isinstance(error, psycopg2.errors.ForeignKeyViolation):
            raise Missing(f"{name}, or something it belongs to, is gone.") from None
        raise
