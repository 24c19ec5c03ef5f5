"""The command ``save``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from repoman.cli.arguments import METADATA, add_force, add_owner, fields_of, image_ref, renamed
from repoman.cli.command import Arguments, Command, Options, Session
from repoman.cli.exits import Usage
from repoman.cli.files import into_account, put
from repoman.cli.snapshot.plan import check_account, make_plan, read_mounts, remarks
from repoman.client.records import Record, has_file, hypervisors
from repoman.errors import AlreadyExists, Missing, Protected
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
        "--resize", metavar="MB", type=_megabytes, help="the image's size (default: as the root's)"
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
    """``save``: snapshot, then upload."""
    # Imported here: they need Twisted, which --help has no use for.
    from repoman.cli.snapshot.programs import Programs
    from repoman.cli.snapshot.snapshot import Snapshot

    options, ref = session.options, image_ref(session.options)
    fields = fields_of(options, METADATA)
    if options.comment:
        fields.setdefault("description", options.comment)
    session.out.note(into_account(ref.owner or await session.me()))
    mounts = read_mounts(Path("/proc/self/mountinfo").read_text())
    plan = make_plan(Path(options.root), session.settings, mounts, options.resize)
    snapshot = Snapshot(plan, Programs(session.reactor, options.verbose), session.out.say)
    with snapshot.locked():
        await snapshot.check()
        image = await _image(session, ref, fields)
        chosen = hypervisors(Record({**image, **fields}))
        for remark in remarks(plan, chosen, _is_partition(plan.device)):
            session.out.say(remark)
        facts = {"name": image["name"], "owner": image["owner_user_name"], **fields}
        path = await snapshot.take(facts, clean=options.clean)
        if options.gzip:
            path = await snapshot.compressed()
        try:
            for hypervisor in chosen if len(chosen) > 1 else [None]:
                await put(session, ref, str(path), hypervisor)
        finally:
            if options.gzip:
                path.unlink()


async def _image(session: Session, ref: ImageRef, fields: dict[str, object]) -> Record:
    """The image to save to, new if need be, with its fields set.

    Who may not have it, or names a field that does not exist, learns it before the work.

    :raises AlreadyExists: it has a file already, and nobody said ``--force``.
    """
    try:
        image = await session.client.image(ref, view="full")
    except Missing:
        owner = renamed({"owner": ref.owner} if ref.owner else {}, owner="user_name")
        return await session.client.create_image({"name": ref.name, **owner, **fields})
    if image["read_only"]:
        raise Protected(f"Image {ref.name} is read-only.")
    if has_file(image) and not session.options.force:
        raise AlreadyExists(f"Image {ref.name} has a file already; say --force to replace it.")
    return await session.client.modify_image(ref, fields) if fields else image


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
