"""The entries of a layer equal the installed files, except what differs between installations."""

import io
import tarfile

import pytest

from shared.errors import ErrorClass, WorkError
from tests.unit.workers.builds.sources import archive_of, entry
from workers.images.archive import MOMENT, archived
from workers.images.layers import installed_entries


def layer_of(archive: bytes) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(b"".join(archived(installed_entries([archive], "opt/longshore")))))


def test_only_what_is_installed_counts() -> None:
    attributes = {"mtime": 1_700_000_000.5, "uid": 65531, "gid": 65531, "uname": "somebody", "mode": 0o2755}
    member = entry("env/a", type=tarfile.DIRTYPE, pax_headers={"SCHILY.xattr.user.a": "b"}, **attributes)
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(member)
    with layer_of(target.getvalue()) as layer:
        (member,) = layer.getmembers()
    assert (member.name, member.mode, member.uid, member.gid) == ("opt/longshore/env/a", 0o2755, 65531, 65531)
    assert (member.mtime, member.uname, member.pax_headers) == (MOMENT, "", {})


def test_hard_links_lead_within_the_layer_and_symbolic_ones_where_they_did() -> None:
    links = [
        entry("env/hard", type=tarfile.LNKTYPE, linkname="env/a"),
        entry("env/soft", type=tarfile.SYMTYPE, linkname="a"),
        entry("env/out", type=tarfile.SYMTYPE, linkname="/usr/bin/python3"),
    ]
    with layer_of(archive_of({"env/a": b"content"}, entries=links)) as layer:
        hard = layer.extractfile("opt/longshore/env/hard")
        assert hard is not None
        assert hard.read() == b"content"
        assert layer.getmember("opt/longshore/env/soft").linkname == "a"
        assert layer.getmember("opt/longshore/env/out").linkname == "/usr/bin/python3"


def test_a_name_that_would_delete_files_is_refused() -> None:
    with pytest.raises(WorkError, match="A requirement installs 'env") as caught:
        layer_of(archive_of({"env/.wh.a": b""}))
    assert caught.value.error_class is ErrorClass.INVALID
