"""Algorithm images: equal parts give an equal digest, on every machine and at any time."""

import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.directory_store import DirectoryStore
from tests.unit.workers.builds.sources import archive_of, entry
from workers.builds.image import assemble_image
from workers.builds.source_tree import open_source_tree
from workers.images.archive import archived, file_entry
from workers.images.image import Image, Step, add_image, derived_image, named_image
from workers.images.layers import add_layer, fast_compressor

BASE = {
    "os": "linux",
    "architecture": "amd64",
    "created": "2024-05-06T07:08:09.1Z",
    "docker_version": "20.10.24",
    "container": "d" * 64,
    "config": {
        "Env": ["PATH=/usr/bin", "LANG=C.UTF-8"],
        "Cmd": ["python3"],
        "Labels": {"base": "yes"},
        "OnBuild": ["RUN anything"],
        "ExposedPorts": {"1/tcp": {}},
    },
    "rootfs": {"type": "layers", "diff_ids": []},
    "history": [],
}
LABELS = {"org.opencontainers.image.revision": "1" * 40}


def environment(store: DirectoryStore) -> Image:
    layer = add_layer(store, archived([file_entry("opt/a", b"a")]), fast_compressor)
    base = add_image(store, json.dumps(BASE).encode(), [])
    return derived_image(store, base, [Step(layer, "COPY env")], {"Cmd": None})


def image(store: DirectoryStore, source: bytes, name: str = "Small") -> Image:
    with open_source_tree(io.BytesIO(source)) as tree:
        return assemble_image(store, environment(store), name, LABELS, tree)


def members(store: DirectoryStore, of: Image, layer: int) -> dict[str, tarfile.TarInfo]:
    with store.open(of.manifest.layers[layer].digest) as blob:
        content = gzip.decompress(blob.read())
    with tarfile.open(fileobj=io.BytesIO(content), encoding="utf-8", errors="surrogateescape") as archive:
        return {member.name: member for member in archive}


SOURCE = archive_of({"src/Small.py": b"def apply(input): return input\n", "a": b"1"})


def test_an_image_says_how_it_is_started(tmp_path: Path) -> None:
    made = image(DirectoryStore(tmp_path), SOURCE)
    assert made.run_config == {
        "Env": [
            "PATH=/usr/bin",
            "LANG=C.UTF-8",
            "LONGSHORE_MODULE=Small",
            "LONGSHORE_PORT=8080",
            "PYTHONUNBUFFERED=1",
        ],
        "Labels": {"base": "yes", **LABELS},
        "ExposedPorts": {"1/tcp": {}, "8080/tcp": {}},
        "Entrypoint": ["/opt/longshore/env/bin/python", "-I", "-S", "/opt/longshore/runner"],
        "Healthcheck": {"Test": ["NONE"]},
        "User": "65532:65532",
        "WorkingDir": "/opt/algorithm",
    }
    assert made.platform == "linux/amd64"
    assert "container" not in made.configuration
    assert len(made.configuration["history"]) == len(made.configuration["rootfs"]["diff_ids"]) == 3


def test_equal_sources_give_one_digest_however_their_tars_were_made(tmp_path: Path) -> None:
    other = archive_of({}, entries=[entry("src", type=tarfile.DIRTYPE, mtime=7, uid=7)])
    other = archive_of({"a": b"1", "src/Small.py": b"def apply(input): return input\n"})
    one, two = (image(DirectoryStore(tmp_path / name), source) for name, source in (("1", SOURCE), ("2", other)))
    assert one.manifest.descriptor == two.manifest.descriptor


def test_the_surroundings_do_not_change_the_digest(tmp_path: Path) -> None:
    """Another umask, time zone and locale, in a process of its own."""
    code = (
        "import os, sys; from pathlib import Path; os.umask(0o077);"
        "from tests.directory_store import DirectoryStore;"
        "from tests.unit.workers.builds.test_image import SOURCE, image;"
        "print(image(DirectoryStore(Path(sys.argv[1])), SOURCE).manifest.descriptor.digest)"
    )
    surroundings = {"TZ": "Asia/Kathmandu", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONHASHSEED": "1"}
    printed = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "theirs")],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **surroundings},
    ).stdout.strip()
    assert printed == image(DirectoryStore(tmp_path / "ours"), SOURCE).manifest.descriptor.digest


def test_a_change_of_source_changes_one_small_layer(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    before, after = image(store, SOURCE), image(store, archive_of({"src/Small.py": b"# changed\n"}))
    *below, source = zip(before.manifest.layers, after.manifest.layers, strict=True)
    assert all(one == other for one, other in below)
    assert source[0] != source[1]
    documents = after.manifest.config.size + after.manifest.descriptor.size
    assert documents < 16 * 1024


@pytest.mark.parametrize("name", ["d/" * 80 + "deep.py", "na\udcefve.txt", "x" * 250])
def test_every_name_reaches_the_image(tmp_path: Path, name: str) -> None:
    store = DirectoryStore(tmp_path)
    made = image(store, archive_of({name: b"x"}, links={"link": "/etc/passwd"}))
    found = members(store, made, -1)
    assert found[f"opt/algorithm/{name}"].mode == 0o644
    assert found["opt/algorithm/link"].linkname == "/etc/passwd"
    assert found["opt/algorithm"].mode == found["opt"].mode == 0o755


def test_the_runner_is_in_the_image(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    found = members(store, image(store, SOURCE), -2)
    files = Path("workers/runner").resolve()
    runner = {f"opt/longshore/runner/{file.relative_to(files)}" for file in files.rglob("*.py")}
    assert {name for name, member in found.items() if member.isreg()} == runner


def test_a_named_image_is_read_as_it_was_written(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    assert named_image(store, "image/none") is None
    made = image(store, SOURCE)
    store.name("image/one", made.manifest.descriptor)
    found = named_image(store, "image/one")
    assert found is not None
    assert found.manifest.content == made.manifest.content
    assert found.size_bytes == sum(blob.size for blob in made.manifest.blobs)
