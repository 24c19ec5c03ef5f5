"""Who may do what: rules as data.

Each rule is one row: the action's name, a predicate over loaded values, and
the sentence that is both the text of the 403 and the row in
``docs/security.md``.  Members of ``admins`` pass every rule; what nobody may
do is in :data:`PROTECTIONS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from attrs import frozen

from repoman.errors import Conflict, Missing, NotIdentified, NotPermitted, Protected
from repoman.model import Caller, Group, Image, User

Predicate = Callable[[User, Any], bool]


def _never(thing: Any) -> bool:
    return False


@frozen
class Rule:
    """One action.

    :ivar allows: whether a user may do it to a thing (a model value or None).
    :ivar sentence: who may, for people.
    :ivar writes: it changes something, so a read-only credential may not.
    :ivar is_open: whether everybody may do it to a thing, nobody in particular included.
    """

    action: str
    allows: Predicate
    sentence: str
    writes: bool = True
    is_open: Callable[[Any], bool] = _never


Redirect = Literal["no", "public", "all"]
"""Whose downloads may go to the store: nobody's, those of public images, everybody's."""


def may_redirect(redirect: Redirect, image: Image, takes: bool | None) -> bool:
    """Whether a download that is permitted may be sent to the store for its bytes.

    :param takes: the client has said that it follows; that it does not; ``None``: neither.
    """
    if image.unauthenticated_access:
        return redirect != "no" and takes is not False
    return redirect == "all" and takes is True


def _anyone(user: User, thing: Any) -> bool:
    return True


def _holds(permission: str) -> Predicate:
    return lambda user, thing: permission in user.permissions


def _owner(user: User, image: Image) -> bool:
    return image.owner_id == user.id


def _shared(user: User, image: Image) -> bool:
    return user.user_name in image.shared_users or bool(set(user.groups) & set(image.shared_groups))


def _through_group(permission: str) -> Predicate:
    def allows(user: User, image: Image) -> bool:
        return any(
            permission in m.permissions and m.group in image.owner_groups for m in user.memberships
        )

    return allows


def _self_with_permission(user: User, target: User) -> bool:
    return user.id == target.id and "user_modify_self" in user.permissions


def _member(user: User, group: Group) -> bool:
    return group.name in user.groups


def _is_self(user: User, target: User) -> bool:
    return user.id == target.id


def _is_public(image: Image) -> bool:
    return image.unauthenticated_access


def _creates_privately(user: User, new: Any) -> bool:
    return "image_modify" in user.permissions and not new.unauthenticated_access


def _either(*predicates: Predicate) -> Predicate:
    return lambda user, thing: any(p(user, thing) for p in predicates)


def _row(
    action: str,
    sentence: str,
    *predicates: Predicate,
    writes: bool = True,
    is_open: Callable[[Any], bool] = _never,
) -> Rule:
    return Rule(action, _either(*predicates), sentence, writes, is_open)


RULES: Mapping[str, Rule] = {
    rule.action: rule
    for rule in (
        _row(
            "repository.read",
            "Any user who is not suspended may see users, groups and their own images.",
            _anyone,
            writes=False,
        ),
        _row("user.create", "Needs the permission user_create.", _holds("user_create")),
        _row("user.modify", "Needs the permission user_modify.", _holds("user_modify")),
        _row(
            "user.modify_self",
            "One's own full name and e-mail address need user_modify_self; "
            "anything else needs user_modify.",
            _self_with_permission,
            _holds("user_modify"),
        ),
        _row("user.delete", "Needs the permission user_delete.", _holds("user_delete")),
        _row(
            "user.see_private",
            "Only the user and holders of user_modify may see the e-mail address, the DNs, the "
            "quota and the names of all images.",
            _is_self,
            _holds("user_modify"),
            writes=False,
        ),
        _row(
            "user.see_shares",
            "Only the user and administrators may see what is shared with and by the user.",
            _is_self,
            writes=False,
        ),
        _row("group.create", "Needs the permission group_create.", _holds("group_create")),
        _row("group.modify", "Needs the permission group_modify.", _holds("group_modify")),
        _row("group.delete", "Needs the permission group_delete.", _holds("group_delete")),
        _row(
            "group.modify_membership",
            "Needs the permission group_modify_membership.",
            _holds("group_modify_membership"),
        ),
        _row(
            "group.modify_permissions",
            "Needs the permission group_modify_permissions.",
            _holds("group_modify_permissions"),
        ),
        _row("image.create", "Needs the permission image_create.", _holds("image_create")),
        _row(
            "image.create_for_another",
            "An image for another owner needs the permission image_modify, and only "
            "administrators may make it public.",
            _creates_privately,
        ),
        _row(
            "image.see",
            "Only the owner, those it is shared with, and holders of image_modify may see it.",
            _owner,
            _shared,
            _holds("image_modify"),
            writes=False,
        ),
        _row(
            "image.look",
            "Everybody may look at a public image's page and record; only those who may see it, at "
            "another's.",
            _owner,
            _shared,
            _holds("image_modify"),
            writes=False,
            is_open=_is_public,
        ),
        _row(
            "image.read_bytes",
            "Only the owner and those it is shared with may fetch an image that is not public.",
            _owner,
            _shared,
            writes=False,
            is_open=_is_public,
        ),
        _row("image.write_bytes", "Only the owner may upload to an image.", _owner),
        _row(
            "image.modify",
            "Only the owner and holders of image_modify, or of image_modify_group through "
            "a group of the owner, may change an image.",
            _owner,
            _holds("image_modify"),
            _through_group("image_modify_group"),
        ),
        _row("image.publish", "Only the owner may make an image public, or end that.", _owner),
        _row(
            "image.arrange_files",
            "Only the owner may change the list of hypervisors, which files and addresses hang on.",
            _owner,
        ),
        _row(
            "image.delete",
            "Only the owner and holders of image_delete, or of image_delete_group through "
            "a group of the owner, may delete an image.",
            _owner,
            _holds("image_delete"),
            _through_group("image_delete_group"),
        ),
        _row(
            "image.give",
            "Needs the permission image_modify; an owner without it offers the image to the new "
            "owner, who accepts it.",
            _holds("image_modify"),
        ),
        _row(
            "image.offer",
            "Only the owner may offer an image to another user, or withdraw the offer.",
            _owner,
        ),
        _row(
            "offer.accept",
            "To accept an image that is offered needs the permission image_create.",
            _holds("image_create"),
        ),
        _row("offer.decline", "Any user may decline what is offered to them.", _anyone),
        _row("image.share", "Only the owner may share an image or end its sharing.", _owner),
        _row(
            "image.share_with_group",
            "An owner may share an image only with groups they are a member of.",
            _member,
        ),
        _row(
            "activity.read",
            "Only administrators may see what the server has had to do.",
            writes=False,
        ),
        _row("transfers.read", "Only administrators may see what is on its way.", writes=False),
        _row("audit.read", "Only administrators may read who changed what.", writes=False),
    )
}
"""Every rule by its action."""

CHANGES: Mapping[str, str] = {
    "unauthenticated_access": "image.publish",
    "hypervisors": "image.arrange_files",
}
"""The fields of an image whose change needs more than ``image.modify``, and what."""

PROTECTIONS: Mapping[str, str] = {
    "credential.limited": "A limited proxy may read but not change anything; "
    "make a full one with grid-proxy-init.",
    "image.read_only": "The image is read-only; set its read_only to false first.",
    "offer.read_only": "The image has been made read-only since it was offered; its owner has to "
    "end that before you can accept it.",
    "offer.not_yours": "Only the user to whom an image is offered can accept it.",
    "group.protected": "The groups admins and users cannot be renamed or deleted.",
    "admins.permissions": "The group admins permits everything; nothing can be taken from it.",
    "admins.last": "This is the last administrator, and there must be one; make another one first.",
    "user.delete_self": "Nobody can delete themselves.",
    "request.elsewhere": "A page of another site made your browser ask for this, so it was not "
    "done; open the repository's own pages for it.",
    "request.token": "The form is too old, or was not made for you and this; go back, reload the "
    "page and send it again.",
}
"""What nobody may do, administrators included, by the rule's name."""


def protected(rule: str) -> Protected:
    """The refusal of something that nobody may do."""
    return Protected(PROTECTIONS[rule], rule=rule)


def identified(caller: Caller) -> User:
    """The user who asks.

    :raises NotIdentified: nobody in particular does; with the reason.
    """
    if caller.user is None:
        raise NotIdentified(caller.reason)
    return caller.user


def may_write(caller: Caller) -> User:
    """The user who asks, with a credential that may change things.

    :raises NotIdentified: nobody in particular does.
    :raises NotPermitted: the credential may only read.
    """
    user = identified(caller)
    if caller.reads_only:
        raise NotPermitted(PROTECTIONS["credential.limited"], rule="credential.limited")
    return user


def may(action: str, caller: Caller, thing: Any = None) -> bool:
    """Whether the caller may do it; nobody in particular may only what is open to all."""
    rule = RULES[action]
    user = caller.user
    if rule.is_open(thing):
        return True
    if user is None or (rule.writes and caller.reads_only):
        return False
    return user.is_admin or rule.allows(user, thing)


def authorize(action: str, caller: Caller, thing: Any = None) -> User:
    """Return the user if they may do it.

    :raises NotIdentified: nobody in particular asks.
    :raises NotPermitted: with the rule's name and sentence.
    """
    user = identified(caller)
    if may(action, caller, thing):
        return user
    rule = RULES[action]
    if rule.writes and caller.reads_only:
        raise NotPermitted(PROTECTIONS["credential.limited"], rule="credential.limited")
    raise NotPermitted(rule.sentence, rule=action)


def authorize_image(action: str, caller: Caller, image: Image) -> User:
    """The same for an image, whose existence is no stranger's business.

    :raises Missing: the caller may not even see it.
    """
    user = identified(caller)
    if may(action, caller, image):
        return user
    if not may("image.see", caller, image) and not _would(action, user, image):
        raise missing_image(image.owner, image.name)
    return authorize(action, caller, image)


def _would(action: str, user: User, image: Image) -> bool:
    # A limited proxy of somebody who may: say that it is the proxy.
    return RULES[action].allows(user, image)


def authorize_changes(caller: Caller, image: Image, changes: Mapping[str, Any]) -> None:
    """Ask for what ``image.modify`` alone does not permit, field by field.

    A value that is there already changes nothing, for those who may see it: others would
    learn it from the difference.

    :raises NotPermitted: with the first rule that does not hold.
    """
    sees = may("image.see", caller, image)
    for name, action in CHANGES.items():
        if name in changes and not (sees and changes[name] == getattr(image, name)):
            authorize(action, caller, image)


def missing_image(owner: str, name: str) -> Missing:
    """The one answer for images that do not exist and for those not to be seen."""
    return Missing(f"There is no image {owner}/{name}, or you may not see it.")


def missing_offer(owner: str, name: str) -> Missing:
    """The one refusal for offers that do not stand and for those between others."""
    return Missing(f"There is no offer of {owner}/{name} to you or by you, or none any more.")


def check_still_permitted(uploader: User | None, image: Image) -> None:
    """Ask when an upload ends what was asked at its beginning: hours may lie between.

    :param uploader: as they are now; ``None``: gone.
    :param image: as it is now.
    :raises NotIdentified: the uploader was suspended or deleted meanwhile.
    :raises NotPermitted: they may no longer upload to the image.
    :raises Conflict: the image became read-only.
    """
    if uploader is None or uploader.suspended:
        raise NotIdentified("Who uploads this was suspended or deleted meanwhile.")
    rule = RULES["image.write_bytes"]
    if not may(rule.action, Caller(uploader), image):
        ended = "The right to upload this ended meanwhile, and nothing was stored."
        raise NotPermitted(f"{rule.sentence} {ended}", rule=rule.action)
    if image.read_only:
        raise Conflict("The image became read-only during the upload.")


def forbid_changes_to_read_only(image: Image) -> None:
    """Keep a read-only image as it is.

    :raises Protected: it is read-only.
    """
    if image.read_only:
        raise protected("image.read_only")
