"""Commands that move an image's file."""

from __future__ import annotations

from pathlib import Path

from repoman.cli.arguments import add_force, add_image, add_owner, image_ref
from repoman.cli.bar import Bar
from repoman.cli.command import Arguments, Command, Session
from repoman.client.records import has_file, hypervisors, stored_sha256
from repoman.errors import AlreadyExists, DigestMismatch
from repoman.model import ImageRef


def _get_arguments(parser: Arguments) -> None:
    add_image(parser)
    parser.add_argument(
        "-d", "--dest", "-p", "--path",
        dest="target",
        metavar="PATH",
        help="where to put it: a file or a directory (default: ./IMAGE)",
    )  # fmt: skip
    parser.add_argument("--hypervisor", help="which of the image's files, if it has several")


async def get(session: Session) -> None:
    """``get``."""
    options, ref = session.options, image_ref(session.options)
    target = Path(options.target or ref.name).expanduser()
    if target.is_dir():
        target /= ref.name
    bar = Bar(ref.name, as_json=options.json)
    file = await session.client.get_file(ref, target, options.hypervisor, bar)
    session.out.show({"path": str(target), "size": file.size, "sha256": file.sha256}, "")


def _upload_arguments(parser: Arguments) -> None:
    add_image(parser)
    parser.add_argument("--file", required=True, help="the file to send")
    parser.add_argument("--hypervisor", help="which of the image's files, if it has several")


async def upload_image(session: Session) -> None:
    """``upload-image``: replaces the image's file, if it has one."""
    options = session.options
    await _put(session, image_ref(options), Path(options.file), options.hypervisor)


def _put_arguments(parser: Arguments) -> None:
    parser.add_argument("file", help="the file to send")
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
    await _put(session, ref, Path(options.file), options.hypervisor)


async def _put(session: Session, ref: ImageRef, source: Path, hypervisor: str | None) -> None:
    source = source.expanduser()
    image = await session.client.image(ref, view="full")
    what = f"image '{ref.name}', hypervisor {hypervisor or hypervisors(image)[0]}"
    session.out.say(f"Uploading {source} to {what} ...")
    bar = Bar(source.name, as_json=session.options.json)
    sent = await session.client.put_file(ref, source, hypervisor, bar)
    stored = stored_sha256(await session.client.image(ref, view="full"), hypervisor)
    if stored != sent:
        raise DigestMismatch(
            f"We sent bytes with the SHA-256 {sent}, the server has {stored}; upload again."
        )
    session.out.done(f"{source} uploaded to {what}", sha256=sent)


COMMANDS = (
    Command(
        "get",
        "Download the specified image file",
        "Downloading image.",
        get,
        arguments=_get_arguments,
        aliases=("download-image", "down", "get-image", "gi"),
        examples=("repoman get base.img", "repoman get impeyr/base.img --dest /var/lib/images"),
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
        examples=("repoman upload-image base.img --file disk.qcow2",),
    ),
    Command(
        "put-image",
        "send a file to an image that exists and has none yet",
        "Uploading image.",
        put_image,
        arguments=_put_arguments,
        aliases=("pi",),
        examples=("repoman put-image disk.qcow2 base.img", "repoman pi -f -h kvm disk base.img"),
        short_h=True,
    ),
)
"""The commands of this module."""
