"""The command ``save``."""

from __future__ import annotations

import argparse
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from repoman.cli.arguments import METADATA, add_force, add_owner, fields_of, image_ref, renamed
from repoman.cli.command import Arguments, Command, Options, Session
from repoman.cli.exits import Usage
from repoman.cli.files import into_account, put, upload_memory
from repoman.cli.output import size as readable
from repoman.cli.snapshot.plan import (
    Plan,
    check_account,
    least_size,
    make_plan,
    read_mounts,
    remarks,
    sizes_at_peak,
)
from repoman.client.records import Record, has_file, hypervisors, owner_and_name
from repoman.errors import AlreadyExists, Missing, NoRoom, Protected, RepomanError, TooLarge
from repoman.model import ImageRef


def _megabytes(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ValueError(text)
    return int(text)


_megabytes.__name__ = "number of MB"  # argparse says it


def _arguments(parser: Arguments) -> None:
    parser.add_argument(
        "image", nargs="?", metavar="[OWNER/]NAME", help="the image, made if there is none"
    )
    parser.add_argument("--name", help="the same, as in 2011")
    add_force(parser, "replace the image's file, if it has one")
    parser.add_argument("--gzip", action="store_true", help="compress the image")
    parser.add_argument(
        "--resize",
        metavar="MB",
        type=_megabytes,
        help="the image's size (default: as before, or as the root's)",
    )
    parser.add_argument(
        "--clean", action="store_true", help="do not reuse the snapshot of an earlier save"
    )
    parser.add_argument("--verbose", action="store_true", help="show what is copied")
    parser.add_argument("--comment", metavar="TEXT", help="what the image is, as in 2011")
    parser.add_argument(
        "--root", metavar="DIRECTORY", default="/", help="the system to save (default: /)"
    )
    for name, (short, words) in METADATA.items():
        names = [short] if short and name != "hypervisor" else []
        parser.add_argument(*names, f"--{name}", help=words, default=argparse.SUPPRESS)
    add_owner(parser)


def _first(options: Options) -> None:
    if bool(options.image) == bool(options.name):
        raise Usage("Say one name for the image.")
    options.image = options.image or options.name
    check_account(os.geteuid())


async def save(session: Session) -> None:
    """``save``: snapshot, then upload; what is sure to fail is refused before the work."""
    # Imported here: they need Twisted, which --help has no use for.
    from repoman.cli.snapshot.programs import Programs
    from repoman.cli.snapshot.snapshot import Snapshot

    options, ref = session.options, image_ref(session.options)
    fields = fields_of(options, METADATA)
    if options.comment:
        fields.setdefault("description", options.comment)
    session.out.note(into_account(ref.owner or await session.me()))
    mounts = read_mounts(Path("/proc/self/mountinfo").read_text())
    root = Path(options.root)
    plan = make_plan(root, session.settings, mounts, options.resize, clean=options.clean)
    snapshot = Snapshot(plan, Programs(session.reactor, options.verbose), session.out.say)
    with snapshot.locked():
        snapshot.check()
        async with _image(session, ref, fields) as (image, is_new):
            chosen = hypervisors(Record({**image, **fields}))
            await _ask_for_room(session, ref, image, chosen, plan)
            if plan.keeps_size:
                session.out.say(
                    f"Keeping the size of the earlier snapshot, {readable(plan.size)}"
                    " (--resize MB: another, --clean: as the root's)."
                )
            await snapshot.measure()
            if fields and not is_new:
                image = await session.client.modify_image(ref, fields)
            for remark in remarks(plan, chosen, _is_partition(plan.device)):
                session.out.say(remark)
            facts = {"name": image["name"], "owner": image["owner_user_name"], **fields}
            path = await snapshot.take(facts, clean=options.clean)
            with _kept(session, path):
                if options.gzip:
                    path = await snapshot.compressed()
                try:
                    await _send(session, ref, path, chosen)
                finally:
                    if options.gzip:
                        path.unlink()


@asynccontextmanager
async def _image(
    session: Session, ref: ImageRef, fields: dict[str, object]
) -> AsyncIterator[tuple[Record, bool]]:
    """The image to save to, made if need be, and whether it was; gone again if nothing comes of it.

    Who may not have it, or names a field that does not exist, learns it before the work.

    :raises AlreadyExists: it has a file already, and nobody said ``--force``.
    :raises Protected: it is read-only.
    """
    try:
        image = await session.client.image(ref, view="full")
    except Missing:
        owner = renamed({"owner": ref.owner} if ref.owner else {}, owner="user_name")
        made = await session.client.create_image({"name": ref.name, **owner, **fields})
        try:
            yield made, True
        except BaseException:
            await _remove_if_empty(session, ref, made)
            raise
        return
    if image["read_only"]:
        raise Protected(f"Image {ref.name} is read-only.")
    if has_file(image) and not session.options.force:
        raise AlreadyExists(f"Image {ref.name} has a file already; say --force to replace it.")
    yield image, False


async def _remove_if_empty(session: Session, ref: ImageRef, made: Record) -> None:
    """Remove an image of ours, unless it has a file or an upload that can be gone on with."""
    client = session.client
    try:
        image, uploads = await client.image(ref, view="full"), await client.uploads()
        own = f"{made['owner_user_name']}/{made['name']}"
        begun = any(owner_and_name(upload["image"]) == own for upload in uploads)
        if image["uuid"] == made["uuid"] and not image["files"] and not begun:
            await client.delete_image(ref)
    except RepomanError as error:
        session.out.note(f"Image {ref.name}, which has no file, could not be removed: {error}")


async def _ask_for_room(
    session: Session, ref: ImageRef, image: Record, chosen: Sequence[str], plan: Plan
) -> None:
    """Let the server say now what it would say of the image's files after hours of work.

    :raises TooLarge: over a limit, or the owner's quota.
    :raises NoRoom: the server's disk has no room.
    :raises Refused: the caller may not write to the image.
    """
    client, gzip = session.client, session.options.gzip
    known = hypervisors(image)
    memory = upload_memory()
    for hypervisor in known if len(known) > 1 else [None]:
        # An earlier snapshot's: it is none of the new one's bytes, and has room reserved.
        await client.give_up_upload(ref, hypervisor, memory)
    files = image.get("files", Record())
    replaced = [files[name]["size"] if name in files else 0 for name in chosen]
    sizes = sizes_at_peak(least_size(plan.size, gzip=gzip), replaced)
    with _remedies(session, f"The image has {readable(plan.size)}{_times(chosen)}"):
        await client.try_file(ref, sizes, known[0] if len(known) > 1 else None)


async def _send(session: Session, ref: ImageRef, path: Path, chosen: Sequence[str]) -> None:
    what = f"The image's file has {readable(path.stat().st_size)}{_times(chosen)}"
    with _remedies(session, what):
        for hypervisor in chosen if len(chosen) > 1 else [None]:
            await put(session, ref, str(path), hypervisor)


def _times(chosen: Sequence[str]) -> str:
    return f", once for each of {' and '.join(chosen)}" if len(chosen) > 1 else ""


@contextmanager
def _remedies(session: Session, what: str) -> Iterator[None]:
    """Around the server's judgment of a size: say what makes an image smaller."""
    try:
        yield
    except (TooLarge, NoRoom) as error:
        ways = "--resize MB makes it smaller"
        if not session.options.gzip:
            ways += ", --gzip sends it compressed"
        raise type(error)(f"{error.message}\n{what}; {ways}.") from None


@contextmanager
def _kept(session: Session, path: Path) -> Iterator[None]:
    """Say, if it comes to nothing, that the work of the snapshot was not in vain."""
    try:
        yield
    except BaseException:
        session.out.note(
            f"The snapshot {path} is kept: the same command goes on from it"
            " (with --force, if a file of the image was sent already)."
        )
        raise


def _is_partition(device: str) -> bool:
    return Path("/sys/class/block", Path(device).name, "partition").exists() if device else False


COMMANDS = (
    Command(
        "save",
        "snapshot and upload current system",
        "Saving the system.",
        save,
        arguments=_arguments,
        aliases=("save-image", "si"),
        examples=(
            "sudo -E repoman save vm019.sao.nrc.ca",
            "sudo -E repoman save vm019.img.gz --gzip --comment 'with our software'",
            "sudo -E repoman save vm019.sao.nrc.ca --force --resize 4096",
        ),
        first=_first,
        pairs=True,
        everyday=True,
    ),
)
"""The command of this package."""
