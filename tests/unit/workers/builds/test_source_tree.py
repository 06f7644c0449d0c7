"""A source can have anything that a caller can put into a tar; only harmless members are accepted."""

import contextlib
import io
import posixpath
import tarfile
from tarfile import TarInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import ErrorClass, WorkError
from tests.unit.workers.builds.sources import archive_of, entry
from workers.builds.source_tree import open_source_tree
from workers.images.archive import MOMENT, archived


def rewritten(archive: bytes) -> list[tarfile.TarInfo]:
    with open_source_tree(io.BytesIO(archive)) as tree:
        written = b"".join(archived(tree.entries("algorithm")))
    with tarfile.open(fileobj=io.BytesIO(written)) as tar:
        return tar.getmembers()


@pytest.mark.parametrize(
    "bad",
    [
        entry("/etc/cron.d/x"),
        entry("../x"),
        entry("src/../../x"),
        entry("src//x"),
        entry("src/./x"),
        entry("x", type=tarfile.LNKTYPE, linkname="/etc/shadow"),
        entry("x", type=tarfile.CHRTYPE),
        entry("x", type=tarfile.BLKTYPE),
        entry("x", type=tarfile.FIFOTYPE),
        entry("src/.wh.A.py"),
        entry(".wh..wh..opq"),
        entry("src/.wh.d/x"),
    ],
    ids=lambda bad: f"{bad.name} type {bad.type.decode()}",
)
def test_a_member_that_could_do_harm_is_refused(bad: TarInfo) -> None:
    with pytest.raises(WorkError) as caught:
        rewritten(archive_of({"src/A.py": b""}, entries=[bad]))
    assert caught.value.error_class is ErrorClass.INVALID
    assert repr(bad.name) in caught.value.message


def test_nothing_may_stand_below_a_link() -> None:
    with pytest.raises(WorkError, match="which is not a directory"):
        rewritten(archive_of({"out/passwd": b"x"}, links={"out": "/etc"}))


def test_nothing_may_stand_there_twice() -> None:
    with pytest.raises(WorkError, match="twice"):
        rewritten(archive_of({"a": b"1"}, entries=[entry("./a")]))


@pytest.mark.parametrize("garbage", [b"no tar at all" * 100, b"\x1f\x8b" + b"0" * 600])
def test_what_is_no_tar_is_refused(garbage: bytes) -> None:
    with pytest.raises(WorkError, match="not a readable tar"):
        rewritten(garbage)


def test_links_stay_links_and_modes_are_plain() -> None:
    archive = archive_of(
        {"src/A.py": b"x"},
        links={"data": "/etc/passwd", "src/up": "../../.."},
        entries=[entry("run.sh", mode=0o4777), entry("empty", type=tarfile.DIRTYPE, mode=0o0)],
    )
    found = {member.name: member for member in rewritten(archive)}
    assert {name: (member.type, member.mode, member.linkname) for name, member in found.items()} == {
        "algorithm": (tarfile.DIRTYPE, 0o755, ""),
        "algorithm/data": (tarfile.SYMTYPE, 0o777, "/etc/passwd"),
        "algorithm/empty": (tarfile.DIRTYPE, 0o755, ""),
        "algorithm/run.sh": (tarfile.REGTYPE, 0o755, ""),
        "algorithm/src": (tarfile.DIRTYPE, 0o755, ""),
        "algorithm/src/A.py": (tarfile.REGTYPE, 0o644, ""),
        "algorithm/src/up": (tarfile.SYMTYPE, 0o777, "../../.."),
    }
    assert {(member.uid, member.gid, member.uname, member.mtime) for member in found.values()} == {(0, 0, "", MOMENT)}


def test_equal_sources_give_equal_bytes() -> None:
    def context(names: list[str], moment: int) -> bytes:
        source = archive_of({}, entries=[entry(name, mtime=moment, uid=moment) for name in names])
        with open_source_tree(io.BytesIO(source)) as tree:
            return b"".join(archived(tree.entries("algorithm")))

    assert context(["b", "a", "a.d/é"], 5) == context(["a.d/é", "a", "b"], 7000)


def test_file_names_keep_their_bytes() -> None:
    _, member = rewritten(archive_of({}, entries=[entry("na\udcefve" + "x" * 300)]))
    assert member.name == "algorithm/na\udcefve" + "x" * 300


names = st.text(alphabet="ab./\\ \n-é", min_size=1, max_size=12)
types = st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])


@given(st.lists(st.builds(lambda name, kind: entry(name, type=kind, linkname="t"), names, types), max_size=6))
def test_whatever_is_let_through_stays_below_its_directory(members: list[tarfile.TarInfo]) -> None:
    found: list[tarfile.TarInfo] = []
    with contextlib.suppress(WorkError):
        found = rewritten(archive_of({}, entries=members))
    for member in found:
        assert posixpath.normpath(member.name) == member.name
        assert f"{member.name}/".startswith("algorithm/")
        assert member.isreg() or member.isdir() or member.issym()
