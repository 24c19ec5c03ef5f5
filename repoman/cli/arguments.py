"""Arguments that several commands share, and how their words become values."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable

from repoman.cli.command import Arguments, Options
from repoman.cli.exits import Usage
from repoman.client.records import Fields
from repoman.model import ImageRef

METADATA = {
    "unauthenticated_access": ("-a", "true: anybody may fetch the image"),
    "description": ("-d", "what the image is"),
    "hypervisor": ("-h", "what it runs on: a word, or several with commas"),
    "os_arch": (None, "x86, x86_64, ..."),
    "os_type": (None, "linux, windows, ..."),
    "os_variant": (None, "the distribution"),
}
"""The options of 2012 for an image's metadata: short form and help."""


def add_image(parser: Arguments, *, optional: bool = False) -> None:
    """``[OWNER/]IMAGE`` and ``-o OWNER``."""
    parser.add_argument(
        "image",
        metavar="[OWNER/]IMAGE",
        nargs="?" if optional else None,
        help="your own image, or somebody's",
    )
    add_owner(parser)


def add_owner(parser: Arguments) -> None:
    """``-o OWNER``."""
    parser.add_argument("-o", "--owner", help="whose image it is, if not your own")


def add_metadata(parser: Arguments) -> None:
    """The metadata of an image."""
    for name, (short, words) in METADATA.items():
        # No default: what is not said is not changed.
        parser.add_argument(
            *([short] if short else []), f"--{name}", help=words, default=argparse.SUPPRESS
        )


def add_force(parser: Arguments, words: str = "do not ask") -> None:
    """``-f``."""
    parser.add_argument("-f", "--force", action="store_true", help=words)


def image_ref(options: Options) -> ImageRef:
    """The image that the words name.

    :raises Usage: they name two owners, or no image.
    """
    owner, slash, name = options.image.rpartition("/")
    if not name.strip("."):
        raise Usage(f"Which image? {options.image!r} names none.")
    if slash and options.owner and owner != options.owner:
        raise Usage(f"Is the owner {owner} or {options.owner}?")
    return ImageRef(owner or getattr(options, "owner", None), name)


def fields_of(options: Options, names: Iterable[str]) -> dict[str, object]:
    """The fields that the command line states, by options and by free pairs."""
    stated = {n: getattr(options, n) for n in names if getattr(options, n, None) is not None}
    return {**stated, **options.pairs}


def renamed(fields: Fields, **names: str) -> dict[str, object]:
    """``fields`` with the names that the interface has for them."""
    return {names.get(name, name): value for name, value in fields.items()}


def words_of(*lists: Iterable[str] | None) -> list[str]:
    """The words of several lists, each perhaps with commas in it.

    :raises Usage: there are none.
    """
    words = [w for each in lists for text in each or () for w in text.split(",") if w]
    if not words:
        raise Usage("Say at least one name.")
    return words


def confirm_deletion(options: Options) -> None:
    """Ask the person, unless ``--force`` is given.

    :raises Usage: there is nobody to ask, or the answer is not "yes".
    """
    if options.force:
        return
    if not sys.stdin.isatty():
        raise Usage("There is no terminal to ask for confirmation at: say --force.")
    print("Confirm deletion [yes]/[n]o: ", end="", file=sys.stderr, flush=True)
    answer = ""
    try:
        answer = sys.stdin.readline()
    finally:
        if not answer.endswith("\n"):  # Ctrl-C, or Ctrl-D
            print(file=sys.stderr)
    if answer.strip() != "yes":
        raise Usage("Nothing is deleted: the answer was not the whole word yes.")
