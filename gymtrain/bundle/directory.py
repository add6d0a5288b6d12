"""The directory of a zip file, accepted in exactly the form in which bundles are written.

`zipfile` reads files that other programs read differently: overlapping members, two members of one name, headers that
contradict each other, bytes before, between and after. Here everything that could have two meanings is refused before a
byte of content is read. The numbers are those of https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT.
"""

from __future__ import annotations

import re
import stat
import struct
from typing import Final, NamedTuple

from gymtrain.bundle import format as bundle_format
from gymtrain.bundle.source import Source
from gymtrain.errors import BundleError

LOCAL: Final = struct.Struct("<4s5H3I2H")
CENTRAL: Final = struct.Struct("<4s6H3I5H2I")
END: Final = struct.Struct("<4s4H2IH")
END64: Final = struct.Struct("<4sQ2H2I4Q")
LOCATOR64: Final = struct.Struct("<4sIQI")

STORED: Final = 0
DEFLATED: Final = 8
DATE_TIME: Final = (1980, 1, 1, 0, 0, 0)
ATTRIBUTES: Final = (stat.S_IFREG | 0o644) << 16
ZIP64_FIELD: Final = 0x0001
ALIGNMENT_FIELD: Final = 0xD935

_TIME, _DATE = 0, 1 << 5 | 1  # DATE_TIME as the format writes it
_VERSIONS = (20, 45)  # the format's: with and without ZIP64
_ENCRYPTED = 1 << 0 | 1 << 6 | 1 << 13
_ALL_ONES = 0xFFFFFFFF
_NAME = re.compile(rb"\w[\w.-]*(/\w[\w.-]*)*/?")
_MAX_NAME = 100


class Entry(NamedTuple):
    """A member: where its bytes are, and what they are when they are read."""

    name: str
    deflated: bool
    offset: int
    stored_size: int
    size: int
    crc: int


class _Common(NamedTuple):
    """What the local and the central header of a member both say, ZIP64 resolved."""

    name: bytes
    flags: int
    method: int
    time: int
    date: int
    crc: int
    stored_size: int
    size: int
    alignment: bytes


class _Header(NamedTuple):
    """A central header."""

    common: _Common
    made_by: int
    version: int
    disk: int
    internal: int
    external: int
    comment: bytes
    offset: int


def read_directory(source: Source) -> dict[str, Entry]:
    """Read and check the directory of a bundle.

    Returns:
        The members by name, in the order in which they lie in the file.

    Raises:
        BundleError: With any of the reasons for containers in docs/bundle-format.md.
    """
    count, start, end = _find_directory(source)
    headers = _central_headers(source, count, start, end)
    _check_names(source.name, [header.common.name for header in headers])
    for header in headers:
        _check_form(source.name, header)
    return _locate(source, headers, start)


def _find_directory(source: Source) -> tuple[int, int, int]:
    """Return the number of members, and where the central directory begins and ends."""
    head = source.read(0, min(4, source.size))
    tail = source.read(max(0, source.size - END.size - 65535), min(source.size, END.size + 65535))
    at_end = tail[-END.size :]
    if head != b"PK\3\4":
        if at_end[:4] == b"PK\5\6" and source.size > END.size:
            raise BundleError(f"{source.name}: there are bytes before the first member", reason="polyglot")
        raise BundleError(f"{source.name} is not a zip file with members", reason="not_a_bundle")
    if len(at_end) < END.size or at_end[:4] != b"PK\5\6" or at_end[-2:] != b"\0\0":
        if _ends_earlier(tail, source.size):
            raise BundleError(f"{source.name}: there are bytes or a comment after the archive", reason="polyglot")
        raise BundleError(f"{source.name}: the end is missing; copy or save it again", reason="truncated")
    _, disk, start_disk, count_here, count, length, start, _ = END.unpack(at_end)
    end = source.size - END.size
    if end >= LOCATOR64.size and tail[-END.size - LOCATOR64.size :][:4] == b"PK\6\7":
        end, count, length, start = _find_directory64(source, (count, length, start))
    elif disk or start_disk or count_here != count:
        raise BundleError(f"{source.name}: the archive claims to be split", reason="header_mismatch")
    if count > bundle_format.MAX_MEMBERS:
        message = f"{source.name}: {count} members, more than the {bundle_format.MAX_MEMBERS} that are allowed"
        raise BundleError(message, reason="too_many_members")
    if start + length != end:
        message = f"{source.name}: the directory is not where the end of the archive says"
        raise BundleError(message, reason="header_mismatch")
    if length > bundle_format.MAX_DIRECTORY_BYTES:
        raise BundleError(f"{source.name}: a directory of {length} bytes", reason="too_large")
    return count, start, end


def _ends_earlier(tail: bytes, size: int) -> bool:
    """Whether a whole archive ends before the end of the file."""
    position = tail.rfind(b"PK\5\6")
    while position >= 0:
        if position + END.size <= len(tail):
            *_, length, start, _ = END.unpack_from(tail, position)
            if start + length == size - len(tail) + position:
                return True
        position = tail.rfind(b"PK\5\6", 0, position)
    return False


def _find_directory64(source: Source, narrow: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Return where the central directory ends, the number of members, its length and where it begins, by ZIP64."""
    end = source.size - END.size - LOCATOR64.size - END64.size
    if end < 0:
        raise BundleError(f"{source.name}: the ZIP64 record is missing", reason="header_mismatch")
    record = END64.unpack(source.read(end, END64.size))
    locator = LOCATOR64.unpack(source.read(end + END64.size, LOCATOR64.size))
    signature, length, *versions, disk, start_disk, count_here, count, size, start = record
    split = END.unpack(source.read(source.size - END.size, END.size))[1:4]
    agree = all(
        small in (large, ones)
        for small, large, ones in zip(narrow, (count, size, start), (0xFFFF, _ALL_ONES, _ALL_ONES), strict=True)
    )
    whole = (
        (signature, length, versions, disk, start_disk) == (b"PK\6\6", END64.size - 12, [45, 45], 0, 0)
        and locator[1:] == (0, end, 1)
        and count_here == count
        and split == (0, 0, narrow[0])
    )
    if not (agree and whole):
        message = f"{source.name}: the ZIP64 record contradicts the end of the archive"
        raise BundleError(message, reason="header_mismatch")
    return end, count, size, start


def _central_headers(source: Source, count: int, start: int, end: int) -> list[_Header]:
    directory = source.read(start, end - start)
    headers = []
    position = 0
    for _ in range(count):
        fixed = directory[position : position + CENTRAL.size]
        if len(fixed) < CENTRAL.size or fixed[:4] != b"PK\1\2":
            raise BundleError(f"{source.name}: the directory has fewer members than it says", reason="header_mismatch")
        _, made_by, version, flags, method, time, date, crc, stored_size, size, *rest = CENTRAL.unpack(fixed)
        name_length, extra_length, comment_length, disk, internal, external, offset = rest
        name_at = position + CENTRAL.size
        extra_at = name_at + name_length
        comment_at = extra_at + extra_length
        position = comment_at + comment_length
        extra = directory[extra_at:comment_at]
        (size, stored_size, offset), alignment = _resolve_extra(source.name, extra, size, stored_size, offset)
        common = _Common(directory[name_at:extra_at], flags, method, time, date, crc, stored_size, size, alignment)
        comment = directory[comment_at:position]
        headers.append(_Header(common, made_by, version, disk, internal, external, comment, offset))
    if position != len(directory):
        raise BundleError(f"{source.name}: the directory has more in it than its members", reason="header_mismatch")
    return headers


def _local_header(source: Source, offset: int) -> tuple[_Common, int, int]:
    """Return what the header before the content says, the version it needs, and where the content begins."""
    fixed = source.read(offset, LOCAL.size)
    signature, version, flags, method, time, date, crc, stored_size, size, name_length, extra_length = LOCAL.unpack(
        fixed
    )
    if signature != b"PK\3\4":
        raise BundleError(f"{source.name}: no member at byte {offset}", reason="header_mismatch")
    rest = source.read(offset + LOCAL.size, name_length + extra_length)
    (size, stored_size), alignment = _resolve_extra(source.name, rest[name_length:], size, stored_size)
    common = _Common(rest[:name_length], flags, method, time, date, crc, stored_size, size, alignment)
    return common, version, offset + LOCAL.size + len(rest)


def _resolve_extra(where: str, extra: bytes, *narrow: int) -> tuple[list[int], bytes]:
    """Replace each number that is all ones by its ZIP64 value; return the numbers and the alignment field's content."""
    fields: dict[int, bytes] = {}
    position = 0
    while position < len(extra):
        kind, length = int.from_bytes(extra[position : position + 2], "little"), extra[position + 2 : position + 4]
        content = extra[position + 4 : position + 4 + int.from_bytes(length, "little")]
        position += 4 + int.from_bytes(length, "little")
        if position > len(extra) or kind not in (ZIP64_FIELD, ALIGNMENT_FIELD) or kind in fields:
            raise BundleError(f"{where}: an extra field that bundles do not have", reason="header_mismatch")
        fields[kind] = content
    wide, count = fields.get(ZIP64_FIELD, b""), narrow.count(_ALL_ONES)
    if len(wide) != 8 * count or (ZIP64_FIELD in fields) != (count > 0):
        raise BundleError(f"{where}: a ZIP64 field that contradicts its header", reason="header_mismatch")
    values = iter(struct.unpack(f"<{count}Q", wide))
    numbers = [next(values) if number == _ALL_ONES else number for number in narrow]
    return numbers, fields.get(ALIGNMENT_FIELD, b"")


def _check_names(where: str, names: list[bytes]) -> None:
    if bundle_format.MANIFEST.encode() not in names and bundle_format.SPEC.encode() not in names:
        raise BundleError(f"{where} is a zip file but not a bundle: it has no manifest.json", reason="not_a_bundle")
    exact: set[bytes] = set()
    folded: set[bytes] = set()
    for name in names:
        shown = repr(name[:_MAX_NAME])[1:]
        if len(name) > _MAX_NAME or _NAME.fullmatch(name) is None:
            message = f"{where}: the member name {shown} is not letters, digits and _ . - between single slashes"
            raise BundleError(message, reason="member_name")
        if name in exact:
            raise BundleError(f"{where}: two members are named {shown}", reason="member_duplicate")
        if name.lower() in folded:
            raise BundleError(f"{where}: two members are named {shown} but for case", reason="member_name")
        exact.add(name)
        folded.add(name.lower())
    for name in names:
        text = name.decode("ascii")
        if text.endswith("/"):
            raise BundleError(f"{where}: {text!r} is a directory; bundles have only files", reason="member_type")
        if not bundle_format.is_member(text):
            raise BundleError(f"{where}: unexpected member {text!r}", reason="member_unexpected")


def _check_form(path: str, header: _Header) -> None:
    """Check one member against the one form in which it may be written."""
    common = header.common
    name = common.name.decode("ascii")
    where = f"{path}: {name}"
    if common.flags & _ENCRYPTED:
        raise BundleError(f"{where} is encrypted", reason="member_encrypted")
    if header.external != ATTRIBUTES:
        message = f"{where} has attributes {header.external:#x}, expected a regular file's {ATTRIBUTES:#x}"
        raise BundleError(message, reason="member_type")
    if common.method not in (STORED, DEFLATED) or (common.method == DEFLATED and bundle_format.is_mapped(name)):
        message = (
            f"{where} has compression method {common.method}; expected stored, or deflated where it has no weights"
        )
        raise BundleError(message, reason="member_compressed")
    if common.method == DEFLATED and common.size > common.stored_size * bundle_format.MAX_RATIO:
        message = (
            f"{where} grows from {common.stored_size} to {common.size} bytes, more than {bundle_format.MAX_RATIO}-fold"
        )
        raise BundleError(message, reason="member_compressed")
    limit = bundle_format.max_bytes(name)
    if limit is not None and common.size > limit:
        message = f"{where}: {common.size} bytes, more than the {limit} that are allowed"
        raise BundleError(message, reason="too_large")
    plain = (
        header.made_by in (3 << 8 | version for version in _VERSIONS)
        and header.version in _VERSIONS
        and (header.disk, header.internal, header.comment) == (0, 0, b"")
        and (common.flags, common.time, common.date) == (0, _TIME, _DATE)
        and (common.method == DEFLATED or common.size == common.stored_size)
        and (not common.alignment or common.alignment == alignment_content(len(common.alignment)))
    )
    if not plain:
        raise BundleError(f"{where} has a header that bundles are not written with", reason="header_mismatch")


def alignment_content(length: int) -> bytes:
    r"""Return the content of an alignment field of this many bytes: what it aligns to, and zeros.

    Example:
        >>> alignment_content(4)
        b'@\x00\x00\x00'
    """
    return bundle_format.ALIGNMENT.to_bytes(2, "little").ljust(length, b"\0")


def _locate(source: Source, headers: list[_Header], end: int) -> dict[str, Entry]:
    """Compare local with central headers and check that the members fill the file up to its directory."""
    if len({header.offset for header in headers}) < len(headers):
        raise BundleError(f"{source.name}: two members share one place in the file", reason="member_overlap")
    entries: dict[str, Entry] = {}
    position = 0
    for header in headers:
        name = header.common.name.decode("ascii")
        where = f"{source.name}: {name}"
        _check_position(where, header.offset, position)
        common, version, start = _local_header(source, header.offset)
        if common != header.common or version not in _VERSIONS:
            raise BundleError(f"{where}: the header before it contradicts the directory", reason="header_mismatch")
        if bundle_format.is_tensors(name) and start % bundle_format.ALIGNMENT:
            message = f"{where}: begins at byte {start}, expected a multiple of {bundle_format.ALIGNMENT}"
            raise BundleError(message, reason="header_mismatch")
        position = start + common.stored_size
        entries[name] = Entry(name, common.method == DEFLATED, start, common.stored_size, common.size, common.crc)
    _check_position(f"{source.name}: the directory", end, position)
    return entries


def _check_position(where: str, got: int, expected: int) -> None:
    if got < expected:
        raise BundleError(f"{where} begins before the end of what comes before it", reason="member_overlap")
    if got > expected:
        raise BundleError(f"{where} leaves a gap after what comes before it", reason="header_mismatch")
