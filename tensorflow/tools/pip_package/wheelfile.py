"""Reads and writes wheels (zip files) without decompressing what stays the same.

The official wheel is 93 MB; copying its compressed members as they are makes repacking a matter of a second and leaves
their bytes beyond doubt. What is written depends on the members alone: they are sorted, and every time stamp is the
zip format's earliest.
"""

import base64
import csv
import hashlib
import io
import os
import struct
import zipfile
import zlib
from typing import NamedTuple

_LOCAL = struct.Struct("<4sHHHHHLLLHH")
_CENTRAL = struct.Struct("<4sHHHHHHLLLHHHHHLL")
_END = struct.Struct("<4sHHHHLLH")
_DOS_DATE = (1 << 5) | 1  # 1 January 1980
_VERSION = 20  # of the zip format: deflate
_UNIX = 3 << 8


class Member(NamedTuple):
    """One file in a wheel, compressed."""

    name: str
    mode: int  # Unix permission bits
    method: int  # zipfile.ZIP_STORED or zipfile.ZIP_DEFLATED
    crc: int
    size: int  # bytes before compression
    data: bytes  # as stored
    digest: str  # as in RECORD: "sha256=..."

    def content(self):
        """The file's bytes."""
        return self.data if self.method == zipfile.ZIP_STORED else zlib.decompress(self.data, -15)


def member(name, content, mode=0o644):
    """Compresses `content` into a Member."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = packer.compress(content) + packer.flush()
    return Member(
        name, mode, zipfile.ZIP_DEFLATED, zlib.crc32(content), len(content), data, digest(content)
    )


def digest(content):
    """The checksum of a file as RECORD writes it."""
    raw = hashlib.sha256(content).digest()
    return "sha256=" + base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def read(path):
    """Returns the wheel's members by name. Checksums are those of its RECORD, which has none for RECORD itself."""
    with zipfile.ZipFile(str(path)) as archive, open(str(path), "rb") as stream:
        infos = [info for info in archive.infolist() if not info.filename.endswith("/")]
        record = next(info for info in infos if info.filename.endswith(".dist-info/RECORD"))
        rows = csv.reader(io.StringIO(archive.read(record).decode()))
        digests = {row[0]: row[1] for row in rows if row}
        members = {}
        for info in infos:
            mode = (info.external_attr >> 16) & 0o777 or 0o644
            data = _stored_bytes(stream, info)
            checksum = digests.get(info.filename, "")
            members[info.filename] = Member(
                info.filename, mode, info.compress_type, info.CRC, info.file_size, data, checksum
            )
        return members


def _stored_bytes(stream, info):
    """The member's bytes as they are in the file; they start after a header of variable length."""
    stream.seek(info.header_offset)
    header = _LOCAL.unpack(stream.read(_LOCAL.size))
    name_size, extra_size = header[9], header[10]
    stream.seek(name_size + extra_size, os.SEEK_CUR)
    return stream.read(info.compress_size)


def record(members, name):
    """Makes the RECORD of a wheel, which lists every member and, without a checksum, itself."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    for each in sorted(members, key=_order):
        rows.writerow([each.name, each.digest, each.size])
    rows.writerow([name, "", ""])
    return member(name, text.getvalue().encode())


def write(path, members):
    """Writes the members as a wheel. The file appears at once and whole, or not at all."""
    partial = str(path) + ".partial"
    with open(partial, "wb") as stream:
        central = [_write_member(stream, each) for each in sorted(members, key=_order)]
        start = stream.tell()
        stream.write(b"".join(central))
        size = stream.tell() - start
        stream.write(_END.pack(b"PK\5\6", 0, 0, len(central), len(central), size, start, 0))
    os.replace(partial, str(path))


def _order(each):
    """Sorts by name, metadata last and RECORD after all, as the wheel format recommends."""
    return (".dist-info/" in each.name, each.name.endswith(".dist-info/RECORD"), each.name)


def _write_member(stream, each):
    """Writes one member and returns its entry for the central directory."""
    name = each.name.encode("ascii")
    offset = stream.tell()
    common = (0, each.method, 0, _DOS_DATE, each.crc, len(each.data), each.size, len(name), 0)
    stream.write(_LOCAL.pack(b"PK\3\4", _VERSION, *common) + name + each.data)
    attributes = (0o100000 | each.mode) << 16
    return (
        _CENTRAL.pack(b"PK\1\2", _UNIX | _VERSION, _VERSION, *common, 0, 0, 0, attributes, offset)
        + name
    )
