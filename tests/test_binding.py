"""To which CA a DN is bound, as a table: what was bound, who comes, is it the same CA."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from repoman.model import Binding, Identity

FAR = datetime(2100, 1, 1, tzinfo=timezone.utc)
CA, OTHER, A, B, R = "/CN=CA", "/CN=Other", "/CN=A", "/CN=B", "/CN=R"


def inside(issuer: str, anchor: str) -> Identity:
    """From a CA that lies in the directory, below another, or below none."""
    return outside(issuer, anchor, known=True)


def outside(issuer: str, anchor: str | None, *, known: bool = False) -> Identity:
    """From a CA that the client showed, and that hangs from one in the directory."""
    return Identity("/CN=x", issuer, False, 0, FAR, anchor, known)


@pytest.mark.parametrize(
    ("bound", "who", "admitted", "then"),
    [
        # nothing is bound: the first login decides
        (Binding(), inside(CA, A), True, Binding(CA, A)),
        (Binding(), outside(CA, A), True, Binding(CA, A)),
        (Binding(), inside(CA, CA), True, Binding(CA, CA)),
        (Binding(), outside(CA, None), True, Binding(CA, None)),
        # as it was bound, or as an administrator said
        (Binding(CA, A), inside(CA, A), True, Binding(CA, A)),
        (Binding(CA, A), outside(CA, A), True, Binding(CA, A)),
        (Binding(CA, CA), inside(CA, CA), True, Binding(CA, CA)),
        (Binding(None, A), outside(CA, A), True, Binding(CA, A)),
        (Binding(None, A), inside(A, A), True, Binding(A, A)),
        # another CA; the same name below another one, or where nobody has looked
        (Binding(CA, A), outside(OTHER, A), False, None),
        (Binding(CA, A), inside(OTHER, A), False, None),
        (Binding(CA, A), outside(CA, B), False, None),
        (Binding(CA, CA), outside(CA, B), False, None),
        (Binding(CA, A), outside(CA, None), False, None),
        (Binding(None, A), outside(CA, B), False, None),
        (Binding(None, A), inside(CA, B), False, None),
        # bound by a Repoman that knew no anchors
        (Binding(CA), inside(CA, A), True, Binding(CA, A)),
        (Binding(CA), outside(CA, A), True, Binding(CA, A)),
        (Binding(CA), outside(OTHER, A), False, None),
        (Binding(CA), inside(OTHER, OTHER), False, None),
        # the CA was put into the directory, even below another root; or was taken out again
        (Binding(CA, A), inside(CA, B), True, Binding(CA, A)),
        (Binding(CA, A), inside(CA, CA), True, Binding(CA, A)),
        (Binding(CA, CA), outside(CA, A), False, None),
        # one lies between that was not there, or is gone: it may be any that R is above
        (Binding(CA, R), outside(CA, A), False, None),
        (Binding(CA, A), outside(CA, R), False, None),
    ],
)
def test_a_binding_holds_for_one_authority(
    bound: Binding, who: Identity, admitted: bool, then: Binding | None
) -> None:
    assert bound.admits(who) is admitted
    if then is not None:
        assert bound.completed(who) == then
        assert then.completed(who) == then
        assert then.admits(who)
