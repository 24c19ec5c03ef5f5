"""The forms with which owners change an image."""

from __future__ import annotations

from repoman.model import Image
from repoman.pages.markup import Content
from repoman.pages.tokens import Tokens
from repoman.repository import Repository
from repoman.resources.asking import Ask


async def owner_forms(ask: Ask, repository: Repository, tokens: Tokens, image: Image) -> Content:
    """Those that the caller may use."""
    return None
