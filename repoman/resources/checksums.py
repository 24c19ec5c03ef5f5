"""Checksums as ``sha256sum`` writes them, beside the bytes they are of: text in, text out.

``HEX  NAME`` is what ``sha256sum -c`` reads, and Ansible's ``get_url``, Packer and Ironic when they
are given the address of a checksum.  All of them hold ``NAME`` against the last part of the image's
own address.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from repoman.model import Image, ImageFile

ENDINGS: Mapping[str, str] = {".sha256": "sha256", ".sha512": "sha512", ".md5": "md5"}
"""What follows an image's name in the address of a checksum, and which one it is."""

SUMS = "SHA256SUMS"
"""The name of the list of all checksums of a user's public images."""


def split_name(name: str) -> tuple[str, str | None]:
    """The name of an image, and which checksum of it a name stands for; ``None``: for none."""
    for ending, algorithm in ENDINGS.items():
        if name.endswith(ending) and name != ending:
            return name.removesuffix(ending), algorithm
    return name, None


def line(digest: str, path: str) -> str:
    """A line of a list of checksums.

    :param path: of the file, seen from where the list is.
    """
    return f"{digest}  {path}\n"


def files_once(image: Image) -> Iterator[tuple[str, ImageFile]]:
    """Each file of an image that can be fetched, by its address seen from the owner's.

    The default file has the image's name; the others, those of further hypervisors, have the
    hypervisor before it.  So whoever fetches all that is listed has each file once.
    """
    for hypervisor in image.hypervisors:
        stored = image.files.get(hypervisor)
        if stored is None or stored.damaged:
            continue
        is_default = stored == image.default_file
        yield image.name if is_default else f"{hypervisor}/{image.name}", stored


def image_lines(image: Image) -> str:
    """The lines about an image in the list of all."""
    return "".join(line(stored.digests.sha256, path) for path, stored in files_once(image))
