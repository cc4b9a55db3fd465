"""TFRecord files, without TensorFlow.

A record is its length (8 bytes, little-endian), a checksum of that, the bytes, and a checksum of them (4 bytes each).

Thread: any; a stream belongs to its caller.

Reference: tensorflow/core/lib/io/record_writer.h; `MaskedCRC` in tsl/lib/hash/crc32c.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_LENGTH, _CHECKSUM = struct.Struct("<Q"), struct.Struct("<I")
_MASK = 0xA282EAD8


class DamagedRecord(ValueError):
    """A record is cut short, or its checksum is another one."""


def write_record(stream: BinaryIO, record: bytes) -> None:
    """Append one record to a binary stream; raises OSError when it cannot be written."""
    length = _LENGTH.pack(len(record))
    stream.write(b"".join((length, _checksum(length), record, _checksum(record))))


def read_records(path: Path) -> Iterator[bytes]:
    """The records of a file, in order.

    Raises:
        DamagedRecord: at the first one that is damaged.
        OSError: if the file cannot be read.
    """
    with path.open("rb") as stream:
        while length := stream.read(_LENGTH.size):
            _check(length, stream.read(_CHECKSUM.size))
            record = stream.read(_LENGTH.unpack(length)[0])
            _check(record, stream.read(_CHECKSUM.size))
            yield record


def _check(content: bytes, found: bytes) -> None:
    """Compare checksums: a length that is cut short has another one, and so has a record."""
    if found != _checksum(content):
        raise DamagedRecord("a record is cut short, or is not what was written")


def _checksum(content: bytes) -> bytes:
    """The CRC-32C, masked: of bytes that hold checksums themselves it would tell little."""
    import google_crc32c

    value: int = google_crc32c.value(content)
    return _CHECKSUM.pack(((value >> 15 | value << 17) + _MASK) & 0xFFFFFFFF)
