"""The words of a policy file, and the statements that they make.

Globus reads words, wherever the lines end: a statement is a keyword and what
follows up to the next one.  Either kind of quotes makes one word of several; a
backslash before a quote takes it into the word; a ``#`` that begins a word
begins a comment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from attrs import field, frozen


@frozen
class Word:
    """A word.

    :ivar text: without the quotes around it, but with all backslashes.
    """

    text: str
    line: int
    quoted: bool


@frozen
class Statement:
    """A keyword, in small letters, with the words that follow it.

    :ivar place: where it stands, for messages.
    """

    keyword: str
    place: str
    words: list[Word] = field(factory=list)

    @property
    def values(self) -> list[str]:
        """The texts of its words."""
        return [word.text for word in self.words]

    def not_understood(self) -> ValueError:
        """What to raise if it makes no sense."""
        words = " ".join([self.keyword, *self.values])
        return ValueError(f"has a {self.place} that is not understood: {words}")


_WORD = re.compile(
    r"""'((?:\\.|[^'\\])*)' | "((?:\\.|[^"\\])*)" | ([^\s'"]\S*)""", re.VERBOSE | re.DOTALL
)


def words(text: str, first: int = 1) -> Iterator[Word]:
    """Divide a text into words.

    :param first: the number of its first line.
    :raises ValueError: with the line in which quotes do not match.
    """
    for number, line in enumerate(text.splitlines(), first):
        rest = line.strip()
        while rest and not rest.startswith("#"):
            match = _WORD.match(rest)
            if match is None:
                raise ValueError(f"has unbalanced quotes in line {number}")
            yield Word(match[match.lastindex or 0], number, match.lastindex != 3)
            rest = rest[match.end() :].lstrip()


def statements(text: str, keywords: re.Pattern[str], place: str) -> Iterator[Statement]:
    """Divide a text into statements.

    :param keywords: what begins one, in small letters.
    :param place: how to call a line of it in messages.
    :raises ValueError: with the line at fault.
    """
    found: Statement | None = None
    for word in words(text):
        keyword = word.text.lower()
        if not word.quoted and keywords.fullmatch(keyword):
            if found:
                yield found
            found = Statement(keyword, f"{place} {word.line}")
        elif found is None:
            raise Statement(word.text, f"{place} {word.line}").not_understood()
        elif word.quoted or word.text != "\\":  # a line that goes on, in the IGTF's format
            found.words.append(word)
    if found:
        yield found
