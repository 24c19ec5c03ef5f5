"""Tokens in forms: that a form came from a page of ours, made for this user and this action."""

from __future__ import annotations

import hashlib
import hmac

from repoman.interfaces import Clock
from repoman.model import Caller
from repoman.policy import protected

LIFETIME = 12 * 3600
"""Seconds for which a form can be sent."""


class Tokens:
    """Issues tokens and checks them; nothing is kept.

    :param secret: known to the daemons of this repository alone.
    """

    def __init__(self, secret: bytes, clock: Clock) -> None:
        self._secret = secret
        self._clock = clock

    def issue(self, caller: Caller, action: str) -> str:
        """A token with which ``caller`` can do ``action``, the path that a form is sent to."""
        ends = str(int(self._clock().timestamp()) + LIFETIME)
        return f"{ends}.{self._seal(caller, action, ends)}"

    def check(self, caller: Caller, action: str, token: str) -> None:
        """Do nothing, if ``token`` was issued for this caller and action, and not long ago.

        :raises Protected: it was not.
        """
        ends, _, seal = token.partition(".")
        right = hmac.compare_digest(seal.encode(), self._seal(caller, action, ends).encode())
        if not right or int(ends) < self._clock().timestamp():
            raise protected("request.token")

    def _seal(self, caller: Caller, action: str, ends: str) -> str:
        who = caller.identity
        whose = (who.subject, who.issuer, who.anchor or "") if who else ("", "", "")
        parts = (*whose, action, ends)
        # None of the parts can hold a NUL, so no two lists are one text.
        text = "\0".join(parts).encode("utf-8", "surrogatepass")
        return hmac.new(self._secret, text, hashlib.sha256).hexdigest()
