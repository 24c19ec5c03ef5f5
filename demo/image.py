"""A small disk image that really boots, written without any tool.

A PC's firmware loads its first sector; the program there greets and halts.
"""

from __future__ import annotations

import random
import struct
from pathlib import Path

SECTOR = 512
MIB = 1024 * 1024
GREETING = b"Hello from a Repoman demonstration image.\r\n\0"

# 16-bit code, loaded at 0x7c00: print the text behind it by the firmware, then halt.
PROGRAM = bytes.fromhex(
    "31c0"  # xor ax, ax
    "8ed8"  # mov ds, ax
    "be167c"  # mov si, 0x7c16: the greeting
    "fc"  # cld
    "ac"  # next: lodsb
    "84c0"  # test al, al
    "7408"  # jz halt
    "b40e"  # mov ah, 0x0e: teletype
    "31db"  # xor bx, bx
    "cd10"  # int 0x10
    "ebf3"  # jmp next
    "f4"  # halt: hlt
)  # fmt: skip


def write_disk_image(path: Path, size: int = 64 * MIB, seed: int = 2011) -> None:
    """Write a disk with a boot sector and one active partition full of bytes.

    :param size: in bytes, a multiple of 1 MiB.
    :param seed: the same seed makes the same image.
    """
    bytes_of = random.Random(seed)  # noqa: S311 # content, not secrets
    with path.open("xb") as disk:
        disk.write(_boot_sector(size // SECTOR).ljust(MIB, b"\0"))
        for _ in range(size // MIB - 1):
            disk.write(bytes_of.randbytes(MIB))


def _boot_sector(sectors: int) -> bytes:
    first = MIB // SECTOR
    # Active, addressed by block number only, no file system, from 1 MiB to the end.
    partition = struct.pack(
        "<B3sB3sII", 0x80, b"\xfe\xff\xff", 0xDA, b"\xfe\xff\xff", first, sectors - first
    )
    return (PROGRAM + GREETING).ljust(446, b"\0") + partition.ljust(64, b"\0") + b"\x55\xaa"
