"""Commands about images: what there is, what is said about it, who may see it go."""

from __future__ import annotations

from repoman.cli import output
from repoman.cli.arguments import (
    METADATA,
    add_force,
    add_image,
    add_metadata,
    add_owner,
    confirm_deletion,
    fields_of,
    image_ref,
    renamed,
)
from repoman.cli.command import Arguments, Command, Session
from repoman.cli.exits import Usage
from repoman.cli.files import into_account
from repoman.client.records import Record, owner_and_name
from repoman.model import ImageRef


def _list_arguments(parser: Arguments) -> None:
    parser.add_argument("-a", "--all", action="store_true", help="all that you may see")
    parser.add_argument("-l", "--long", action="store_true", help="with size, date and more")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--sharedwith", action="store_true", help="what is shared with you")
    which.add_argument("-u", "--user", help="images that USER owns")
    which.add_argument(
        "--public", action="store_true", help="public images of all; needs no credential"
    )
    which.add_argument("-g", "--group", help="images that are shared with GROUP")


async def list_names(session: Session) -> None:
    """``list``: ``owner/name`` per line."""
    options, client = session.options, session.client
    view = {"view": "full"} if options.long else {}
    if options.user:
        rows = await client.user_images(options.user, **view)
    elif options.group:
        rows = await client.shared_with_group(options.group, **view)
    elif options.sharedwith:
        rows = await client.shared_with_user(await session.me(), **view)
    elif options.all:
        rows = await client.images(**view)
    elif options.public:
        rows = await client.images(public="true", **view)
    else:
        mine = await client.whoami()
        rows = await client.images(owner=mine["user_name"], **view) if view else mine["images"]
    if options.long:
        session.out.show(rows, output.images_table(rows))
    else:
        names = [owner_and_name(url) for url in rows]
        session.out.show(names, names)


def _list_images_arguments(parser: Arguments) -> None:
    add_image(parser, optional=True)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("-s", "--short", action="store_true", help="only owner/name")
    form.add_argument("-U", "--url", action="store_true", help="only owner/name and file URL")
    form.add_argument("-l", "--long", action="store_true", help="the whole table (the default)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("-a", "--all", action="store_true", help="all that you may see")
    which.add_argument("-g", "--group", help="images that are shared with GROUP")
    which.add_argument("-u", "--user", help="images that are shared with USER")


async def list_images(session: Session) -> None:
    """``list-images``: a table, or one image in full."""
    options = session.options
    if options.image:
        image = await session.client.image(image_ref(options))
        session.out.show(image, output.as_lines(image))
        return
    images = await _chosen(session)
    text: str | list[str]
    if options.short:
        text = [_full_name(i) for i in images]
    elif options.url:
        text = [f"{_full_name(i)}  {i['file_url']}" for i in images]
    else:
        text = output.images_table(images)
    session.out.show(images, text)


async def _chosen(session: Session) -> list[Record]:
    options, client = session.options, session.client
    if options.group:
        return await client.shared_with_group(options.group, view="full")
    if options.user:
        return await client.shared_with_user(options.user, view="full")
    if options.all:
        return await client.images(view="full")
    return await client.images(owner=options.owner or await session.me(), view="full")


def _full_name(image: Record) -> str:
    return f"{image['owner_user_name']}/{image['name']}"


async def describe_image(session: Session) -> None:
    """``describe-image``: the dict of the slides."""
    image = await session.client.image(image_ref(session.options))
    session.out.show(image, output.as_python(image))


def _create_arguments(parser: Arguments) -> None:
    parser.add_argument("image", nargs="?", metavar="IMAGE", help="the new image's name")
    parser.add_argument("--name", help="the same, as in 2011")
    add_metadata(parser)
    add_owner(parser)


async def create_image(session: Session) -> None:
    """``create-image``."""
    options = session.options
    name = options.image or options.name
    if not name or (options.image and options.name):
        raise Usage("Say one name for the new image.")
    fields = renamed(fields_of(options, [*METADATA, "owner"]), owner="user_name")
    session.out.note(into_account(str(fields.get("user_name") or await session.me())))
    image = await session.client.create_image({"name": name, **fields})
    session.out.done(f"Created new image '{name}'", image=image)


def _modify_arguments(parser: Arguments) -> None:
    add_image(parser)
    add_metadata(parser)
    parser.add_argument("-n", "--new_name", metavar="NAME", help="another name")
    parser.add_argument("-N", "--new_owner", metavar="USER", help="another owner")


async def modify_image(session: Session) -> None:
    """``modify-image``."""
    fields = fields_of(session.options, [*METADATA, "new_name", "new_owner"])
    if not fields:
        raise Usage("Say what to change, for example --description TEXT.")
    changes = renamed(fields, new_name="name", new_owner="owner")
    image = await session.client.modify_image(image_ref(session.options), changes)
    session.out.done("Modifying image.", image=image)
    owner = changes.get("owner")
    if owner is not None and image.get("owner_user_name", owner) != owner:
        session.out.note(f"It is offered to {owner}, and yours until {owner} accepts it.")


def _rename_arguments(parser: Arguments) -> None:
    parser.add_argument("image", metavar="OLD", help="the image, as [OWNER/]IMAGE")
    parser.add_argument("new_name", metavar="NEW", help="its new name")
    add_owner(parser)


async def rename(session: Session) -> None:
    """``rename``."""
    ref, new_name = image_ref(session.options), session.options.new_name
    # As mv would have it: "rename me/old me/new" means the same owner.
    owner, _, name = new_name.rpartition("/")
    if owner and ImageRef(owner, ref.name) != ref:
        raise Usage("To give an image to somebody else, use: repoman offer IMAGE USER.")
    image = await session.client.modify_image(ref, {"name": name})
    session.out.done("Renaming image.", image=image)


def _delete_arguments(parser: Arguments) -> None:
    add_image(parser)
    add_force(parser)


async def delete(session: Session) -> None:
    """``delete``."""
    await session.client.delete_image(image_ref(session.options))
    session.out.done(f"Removed image {session.options.image}.")


COMMANDS = (
    Command(
        "rename",
        "rename an existing image from 'old' to 'new'",
        "Renaming image.",
        rename,
        arguments=_rename_arguments,
        aliases=("rn",),
        examples=("repoman rename base.img base-2011.img",),
        everyday=True,
    ),
    Command(
        "delete",
        "Delete an image from the repository",
        "Removing image.",
        delete,
        arguments=_delete_arguments,
        aliases=("del", "remove-image", "ri"),
        examples=("repoman delete base.img", "repoman delete --force impeyr/base.img"),
        first=confirm_deletion,
        everyday=True,
    ),
    Command(
        "list",
        "List a user's images stored in the repository",
        "Listing images.",
        list_names,
        arguments=_list_arguments,
        examples=(
            "repoman list",
            "repoman list --all --long",
            "repoman list --sharedwith",
            "repoman list --public",
        ),
        everyday=True,
    ),
    Command(
        "list-images",
        "list images in a table, or one image in full",
        "Listing images.",
        list_images,
        arguments=_list_images_arguments,
        aliases=("li",),
        examples=("repoman list-images -a", "repoman list-images base.img"),
    ),
    Command(
        "describe-image",
        "print all that is known about an image",
        "Describing image.",
        describe_image,
        arguments=add_image,
        aliases=("di",),
        examples=("repoman describe-image base.img", "repoman describe-image base.img --json"),
    ),
    Command(
        "create-image",
        "create an image, still without a file",
        "Creating image.",
        create_image,
        arguments=_create_arguments,
        aliases=("ci",),
        examples=(
            "repoman create-image base.img --description 'Scientific Linux' -h kvm",
            "repoman create-image --name base.img --os_arch x86_64",
        ),
        pairs=True,
        short_h=True,
    ),
    Command(
        "modify-image",
        "change what is said about an image",
        "Modifying image.",
        modify_image,
        arguments=_modify_arguments,
        aliases=("mi",),
        examples=(
            "repoman modify-image base.img --description 'Scientific Linux 6'",
            "repoman modify-image base.img --read_only true",
        ),
        pairs=True,
        short_h=True,
    ),
)
"""The commands of this module."""
