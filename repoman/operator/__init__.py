"""``repoman-server``: what an operator does beside running the daemon."""

from repoman.operator.commands import main

__all__ = ["main"]
