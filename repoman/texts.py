"""How long the texts may be that users store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from repoman.errors import Invalid

TEXT_LIMITS: Mapping[str, int] = {
    "description": 4096,
    "os_variant": 255,
    "os_type": 255,
    "os_arch": 255,
    "full_name": 255,
    "email": 320,  # RFC 3696 section 3, with its erratum: 64 before the @, 255 after it
}
"""The longest text of each field that is no name, in bytes of UTF-8."""


def check_texts(values: Mapping[str, Any], stored: object = None) -> None:
    """Do nothing, if no text among ``values`` is longer than its field allows.

    :param values: by the fields' names; those without a limit are passed over.
    :param stored: has what is stored now as attributes.  That may stay, however long it is:
        there were no limits once.
    :raises Invalid: with the field's name.
    """
    for name, limit in TEXT_LIMITS.items():
        value = values.get(name)
        if not isinstance(value, str) or value == getattr(stored, name, None):
            continue
        if (size := len(value.encode("utf-8", "surrogatepass"))) > limit:
            raise Invalid(
                f"{name}: at most {limit} bytes of UTF-8 are stored, and these are {size}; "
                "make it shorter.",
                field=name,
            )
