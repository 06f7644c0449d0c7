"""Archives are streamed, and have the same bytes on every machine."""

import io
import tarfile

import pytest

from workers.images.archive import (
    MOMENT,
    archived,
    content_of,
    directory_entry,
    file_entry,
    is_whiteout,
    members_of,
    parent_entries,
    plain_entry,
    streamed,
)


def in_pieces(content: bytes, size: int) -> list[bytes]:
    return [content[start : start + size] for start in range(0, len(content), size)]


@pytest.mark.parametrize("size", [1, 511, 512, 4096, 10_000_000])
def test_an_archive_is_read_however_it_is_cut(size: int) -> None:
    whole = b"".join(archived([file_entry("a", b"x" * 1000), directory_entry("d"), file_entry("d/b", b"")]))
    with streamed(in_pieces(whole, size)) as archive:
        members = [(member.name, b"".join(content_of(archive, member))) for member in archive]
    assert members == [("a", b"x" * 1000), ("d", b""), ("d/b", b"")]


def test_an_archive_that_breaks_off_is_an_error() -> None:
    whole = b"".join(archived([file_entry("a", b"x" * 5000)]))
    with streamed([whole[:3000]]) as archive:
        member = archive.next()
        assert member is not None
        with pytest.raises(tarfile.ReadError):
            list(content_of(archive, member))


@pytest.mark.parametrize("after", [b"", b'{"message": "read error"}', b"junk" * 128])
def test_an_archive_that_breaks_off_between_two_members_is_an_error(after: bytes) -> None:
    """tarfile accepts anything that is no header as the end, so a truncated archive would seem complete."""
    first = b"".join([*archived([file_entry("a", b"x" * 5000)])][:-1])
    with streamed([first, after]) as archive:
        member = archive.next()
        assert member is not None
        assert len(b"".join(content_of(archive, member))) == 5000
        with pytest.raises(tarfile.ReadError, match="breaks off"):
            archive.next()


def test_members_that_passed_are_not_kept() -> None:
    with streamed(archived(file_entry(str(number), b"") for number in range(1000))) as archive:
        assert sum(1 for _ in members_of(archive)) == 1000
        assert len(archive.members) <= 1  # type: ignore[attr-defined]


def test_names_of_any_length_and_any_bytes_are_kept() -> None:
    names = ["d/" * 80 + "deep", "x" * 300, "na\udcefve", "é"]
    whole = b"".join(archived(file_entry(name, name.encode("utf-8", "surrogateescape")) for name in names))
    with tarfile.open(fileobj=io.BytesIO(whole), encoding="utf-8", errors="surrogateescape") as archive:
        assert archive.getnames() == names
    assert b"na\xefve" in whole


def test_an_archive_tells_nothing_of_the_machine() -> None:
    entry = plain_entry("a")
    assert (entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname) == (MOMENT, 0, 0, "", "")


def test_the_directories_above_a_path_come_the_topmost_first() -> None:
    assert [entry.name for entry, _ in parent_entries("opt/longshore/env")] == ["opt", "opt/longshore"]
    assert [entry.name for entry, _ in parent_entries("opt/longshore/env", "opt/algorithm")] == ["opt", "opt/longshore"]
    assert list(parent_entries("opt")) == []


def test_a_whiteout_is_known_anywhere_in_a_path() -> None:
    assert is_whiteout(".wh.a")
    assert is_whiteout("a/.wh..wh..opq")
    assert is_whiteout("a/.wh.b/c")
    assert not is_whiteout("a.wh.b/wh.c")
