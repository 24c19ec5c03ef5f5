"""Commands that move an image's file."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repoman.cli.arguments import add_force, add_image, add_owner, image_ref
from repoman.cli.bar import Bar
from repoman.cli.command import Arguments, Command, Session
from repoman.cli.exits import Usage
from repoman.client.records import has_file, hypervisors, stored_sha256
from repoman.client.settings import expanded, state_directory
from repoman.errors import AlreadyExists, DigestMismatch
from repoman.model import ImageRef

if TYPE_CHECKING:
    # Only for the types: these import Twisted, which --help has no use for.
    from repoman.client.partfile import ISink
    from repoman.client.source import ISource

PIPE = "-"
"""In place of a file's name: standard input or output."""

MOST_STREAMS = 16
"""Over how many connections a file is fetched at most."""


def _streams(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MOST_STREAMS):
        raise ValueError(text)
    return int(text)


_streams.__name__ = f"number from 1 to {MOST_STREAMS}"  # argparse says it


def _get_arguments(parser: Arguments) -> None:
    add_image(parser)
    parser.add_argument(
        "-d", "--dest", "-p", "--path",
        dest="target",
        metavar="PATH",
        help="where to put it: a file, a directory, or - for standard output (default: ./IMAGE)",
    )  # fmt: skip
    parser.add_argument("--hypervisor", help="which of the image's files, if it has several")
    parser.add_argument(
        "-j", "--streams", metavar="N", type=_streams, default=1,
        help=f"fetch over N connections at once, up to {MOST_STREAMS}",
    )  # fmt: skip


async def get(session: Session) -> None:
    """``get``."""
    options, ref = session.options, image_ref(session.options)
    bar = Bar(ref.name, as_json=options.json)
    target = _target(session, ref.name)
    file = await session.client.get_file(ref, target, options.hypervisor, bar, options.streams)
    if isinstance(target, Path):
        facts = {"path": str(target), "size": file.size, "sha256": file.sha256}
        session.out.show(facts, "")


def _target(session: Session, name: str) -> Path | ISink:
    if session.options.target == PIPE:
        if sys.__stdout__ is None:
            raise Usage("Standard output is closed.")
        if sys.stdout.isatty():
            raise Usage("An image is not for a terminal: send standard output elsewhere.")
        from repoman.cli.pipes import Outlet

        return Outlet(session.reactor, sys.stdout.fileno())
    stated = session.options.target or name
    target = expanded(stated)
    if target.is_dir() or stated.endswith("/"):
        target /= name
    if target.exists() and not target.is_file():
        # A device or a pipe: never to be replaced by a file of its name.
        from repoman.cli.pipes import Outlet
        from repoman.client.shared import open_for_writing

        file = open_for_writing(target, 0)
        return Outlet(session.reactor, file, str(target))
    return target


def _upload_arguments(parser: Arguments) -> None:
    add_image(parser)
    parser.add_argument("--file", required=True, help="the file to send, or - for standard input")
    parser.add_argument("--hypervisor", help="which of the image's files, if it has several")


async def upload_image(session: Session) -> None:
    """``upload-image``: replaces the image's file, if it has one."""
    options = session.options
    await put(session, image_ref(options), options.file, options.hypervisor)


def _put_arguments(parser: Arguments) -> None:
    parser.add_argument("file", help="the file to send, or - for standard input")
    parser.add_argument("image", metavar="[OWNER/]IMAGE", help="the image, which must exist")
    add_force(parser, "replace the image's file, if it has one")
    parser.add_argument("-h", "--hypervisor", help="which of the image's files, if it has several")
    add_owner(parser)


async def put_image(session: Session) -> None:
    """``put-image``: leaves an image that has a file alone, unless forced."""
    options, ref = session.options, image_ref(session.options)
    if not options.force:
        image = await session.client.image(ref, view="full")
        if has_file(image, options.hypervisor):
            raise AlreadyExists(f"Image {ref.name} has a file already; say --force to replace it.")
    await put(session, ref, options.file, options.hypervisor)


async def put(session: Session, ref: ImageRef, file: str, hypervisor: str | None) -> None:
    """Send a file, and make sure that it arrived."""
    source, name = _source(session, file)
    image = await session.client.image(ref, view="full")
    known = hypervisors(image)
    if not hypervisor and len(known) > 1:
        raise Usage(f"Image {ref.name} is for {' and '.join(known)}: say --hypervisor with one.")
    session.out.note(into_account(image["owner_user_name"]))
    what = f"image '{ref.name}', hypervisor {hypervisor or known[0]}"
    session.out.say(f"Uploading {name} to {what} ...")
    bar = Bar(Path(name).name, as_json=session.options.json)
    sent = await session.client.put_file(ref, source, hypervisor, bar, upload_memory())
    stored = stored_sha256(await session.client.image(ref, view="full"), hypervisor)
    if stored != sent:
        raise DigestMismatch(
            f"We sent bytes with the SHA-256 {sent}, the server has {stored}; upload again."
        )
    session.out.done(f"{name} uploaded to {what}", sha256=sent)


def upload_memory() -> Path:
    """Where uploads that were cut off are remembered."""
    return state_directory(os.environ) / "uploads"


def into_account(user_name: str) -> str:
    """Where bytes and images go; a credential can be somebody else's than one thinks."""
    return f"Into the account of {user_name}."


def _source(session: Session, file: str) -> tuple[Path | ISource, str]:
    """What to send, and its name for messages."""
    if file != PIPE:
        path = expanded(file)
        return path, str(path)
    if sys.__stdin__ is None:
        raise Usage("Standard input is closed.")
    number = sys.stdin.fileno()
    if os.isatty(number):
        raise Usage("There is a terminal at standard input: send a file or a pipe there.")
    if _is_whole_file(number):
        # As good as its name: it can be read twice.
        return Path("/dev/stdin"), "standard input"
    from repoman.cli.pipes import Inlet
    from repoman.client.source import StreamSource

    inlet: Any = Inlet(session.reactor, number)
    return StreamSource(inlet.pull, "standard input"), "standard input"


def _is_whole_file(number: int) -> bool:
    regular = stat.S_ISREG(os.fstat(number).st_mode)
    return regular and os.lseek(number, 0, os.SEEK_CUR) == 0


COMMANDS = (
    Command(
        "get",
        "Download the specified image file",
        "Downloading image.",
        get,
        arguments=_get_arguments,
        aliases=("download-image", "down", "get-image", "gi"),
        examples=(
            "repoman get base.img",
            "repoman get impeyr/base.img --dest /var/lib/images",
            "repoman get base.img -j 4",
            "repoman get base.img.gz -d - | gunzip > base.img",
        ),
        anonymous=True,
        everyday=True,
    ),
    Command(
        "upload-image",
        "send a file to an image that exists",
        "Uploading image.",
        upload_image,
        arguments=_upload_arguments,
        aliases=("up",),
        examples=(
            "repoman upload-image base.img --file disk.qcow2",
            "gzip < disk.raw | repoman upload-image base.img.gz --file -",
        ),
    ),
    Command(
        "put-image",
        "send a file to an image that exists and has none yet",
        "Uploading image.",
        put_image,
        arguments=_put_arguments,
        aliases=("pi", "put"),
        examples=("repoman put-image disk.qcow2 base.img", "repoman put -f -h kvm disk base.img"),
        short_h=True,
    ),
)
"""The commands of this module."""
