"""Images are built with real requirements by a real engine, and run by it."""

import contextlib
import dataclasses
import gzip
import io
import json
import re
import shutil
import ssl
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from typing_extensions import override

from shared.cancellation import CancelToken, Deadline
from shared.errors import ErrorClass, WorkCancelledError, WorkError
from tests.directory_store import DirectoryStore
from tests.service.workers.builds.package_index import PackageIndex, wheel_of
from tests.unit.workers.builds.sources import archive_of
from workers.builds.context import BuildContext, BuildLimits, BuildLog
from workers.builds.dockerfile import ALGORITHM, REVISION, remove_interrupted
from workers.builds.environment.container import BUILDER, build_container, name_prefix, remove_leftover_containers
from workers.builds.image import BuildRequest, BuiltImage, build_image
from workers.docker.connection import engine
from workers.docker.images import described_image, local_reference, name_image
from workers.images.engine_transfer import load_image
from workers.images.image import Image, image_name, named_image

ADDS_NUMBERS = b"""
import os
import numpy
from Algorithmia import ADK

def apply(input):
    return {"sum": float(numpy.array(input).sum()), "user": os.getuid(), "wrote": open("/tmp/x", "w").write("yes")}

ADK(apply).init()
"""


Built = Callable[..., tuple[BuiltImage, list[str]]]


@pytest.fixture
def built(store: DirectoryStore) -> Built:
    """Build an image; return it and the lines of the log."""

    def build(request: BuildRequest, use: DirectoryStore = store) -> tuple[BuiltImage, list[str]]:
        lines: list[str] = []
        return build_image(request, use, lines.append, CancelToken()), lines

    return build


@pytest.fixture
def failure(store: DirectoryStore) -> Callable[[BuildRequest], tuple[WorkError, list[str]]]:
    """Build an image that cannot be built; return the error and the lines of the log."""

    def build(request: BuildRequest) -> tuple[WorkError, list[str]]:
        lines: list[str] = []
        with pytest.raises(WorkError) as caught:
            build_image(request, store, lines.append, CancelToken())
        return caught.value, lines

    return build


def description(image: str) -> dict[str, Any]:
    found = described_image(image)
    assert found is not None
    return found


def stored(store: DirectoryStore, built: BuiltImage) -> Image:
    image = named_image(store, image_name(built.manifest_digest))
    assert image is not None
    return image


@pytest.fixture
def running(store: DirectoryStore) -> Callable[[BuiltImage], contextlib.AbstractContextManager[str]]:
    """Load an image into the engine and run it; remove both at the end."""

    @contextlib.contextmanager
    def run(image: BuiltImage) -> Iterator[str]:
        client = engine()
        image_id = load_image(store, stored(store, image), CancelToken())
        assert image_id == image.image_id
        host = client.create_host_config(network_mode="none", cap_drop=["ALL"])
        container = client.create_container(image_id, host_config=host, use_config_proxy=False)["Id"]
        try:
            client.start(container)
            yield container
        finally:
            client.remove_container(container, force=True, v=True)
            client.remove_image(image_id)

    return run


def printed_in(container: str, code: str) -> str:
    client = engine()
    command = client.exec_create(container, ["/opt/longshore/env/bin/python", "-c", code])["Id"]
    output = client.exec_start(command)
    assert client.exec_inspect(command)["ExitCode"] == 0, output
    return output.decode()


CALL = """
import time, urllib.error, urllib.request
call = urllib.request.Request("http://127.0.0.1:8080/", b"[1, 2, 3.5]", {"Content-Type": "application/json"})
for attempt in range(200):
    try:
        print(urllib.request.urlopen(call, timeout=60).read().decode())
        break
    except urllib.error.URLError as error:
        if not isinstance(error.reason, ConnectionRefusedError):
            raise
        time.sleep(0.05)
"""


def test_source_for_the_platform_is_built_runs_and_is_installed_once(
    request_for: Callable[..., BuildRequest],
    built: Built,
    running: Callable[[BuiltImage], contextlib.AbstractContextManager[str]],
) -> None:
    trusted = ssl.get_default_verify_paths().cafile
    real = {
        "index_url": None,
        "ca_bundle": Path(trusted).read_bytes() if trusted else None,
        "name": "Adder",
    }
    files = {"src/Adder.py": ADDS_NUMBERS, "requirements.txt": b"algorithmia>=2,<3\nnumpy==1.26.4\n"}
    first, lines = built(request_for(files, **real))
    assert any("Successfully installed" in line and "numpy-1.26.4" in line for line in lines)
    assert not first.environment_reused
    with running(first) as container:
        answer = json.loads(printed_in(container, CALL))
    assert answer["result"] == {"sum": 6.5, "user": 65532, "wrote": 3}

    changed = {"src/Adder.py": b"# another commit\n", "requirements.txt": b"# same\nalgorithmia>=2,<3\nnumpy==1.26.4"}
    second, lines = built(request_for(changed, **real))
    assert second.environment_reused
    assert second.environment_key == first.environment_key
    assert second.image_id != first.image_id
    assert f"The requirements are installed already: reusing environment {str(first.environment_key)[:12]}" in lines


def test_an_old_python_whose_pip_is_in_parts_installs_old_requirements_and_runs_them(
    python_base: Callable[[str], str],
    request_for: Callable[..., BuildRequest],
    built: Built,
    running: Callable[[BuiltImage], contextlib.AbstractContextManager[str]],
) -> None:
    trusted = ssl.get_default_verify_paths().cafile
    source = ADDS_NUMBERS.replace(b'"sum":', b'"python": __import__("platform").python_version(), "sum":')
    request = request_for(
        {"src/Adder.py": source, "requirements.txt": b"numpy==1.19.5\n"},
        name="Adder",
        index_url=None,
        ca_bundle=Path(trusted).read_bytes() if trusted else None,
        base_image=python_base("3.9"),
        kit_requirement="algorithmia>=2,<3",
    )
    image, lines = built(request)
    assert any("Successfully installed" in line for line in lines)
    with running(image) as container:
        answer = json.loads(printed_in(container, CALL))
    assert "error" not in answer, answer
    assert answer["result"]["python"].startswith("3.9.")
    assert answer["result"]["sum"] == 6.5


def test_the_configuration_of_an_image(
    request_for: Callable[..., BuildRequest],
    owner: str,
    store: DirectoryStore,
    built: Built,
    running: Callable[[BuiltImage], contextlib.AbstractContextManager[str]],
) -> None:
    request = request_for({".dockerignore": b"*\n", "Dockerfile": b"FROM scratch\n", "sub/Dockerfile": b"RUN false\n"})
    image, _ = built(request)
    found = stored(store, image)
    assert store.named(f"{owner}/small:{request.commit}") == found.manifest.descriptor
    assert image.size_bytes == found.size_bytes
    with running(image) as container:
        configuration = description(image.image_id)["Config"]
        assert configuration["User"] == "65532:65532"
        assert configuration["Entrypoint"][0] == "/opt/longshore/env/bin/python"
        assert configuration["WorkingDir"] == "/opt/algorithm"
        assert configuration["ExposedPorts"] == {"8080/tcp": {}}
        assert configuration["Healthcheck"] == {"Test": ["NONE"]}
        assert "LONGSHORE_MODULE=Small" in configuration["Env"]
        assert configuration["Labels"] == {
            "org.opencontainers.image.title": f"{owner}/Small",
            "org.opencontainers.image.revision": request.commit,
            "io.longshore.algorithm": f"{owner}/Small",
        }
        listing = "import os; print(sorted(os.listdir('/opt/algorithm')), sorted(os.listdir('/opt/longshore')))"
        assert printed_in(container, listing) == "['.dockerignore', 'Dockerfile', 'src', 'sub'] ['env', 'runner']\n"


def test_the_index_password_is_nowhere(
    request_for: Callable[..., BuildRequest], package_index: PackageIndex, store: DirectoryStore, built: Built
) -> None:
    request = request_for(
        {"requirements.txt": b"small==1.0\n"},
        kit_requirement="algorithmia>=2,<3",
        ca_bundle=b"-----BEGIN CERTIFICATE----- of nobody\n",
    )
    image, lines = built(request)
    assert any("Successfully installed small-1.0" in line for line in lines), "the password was needed, and used"
    assert "The requirements have no development kit: adding algorithmia>=2,<3" in lines
    assert any("successfully installed algorithmia-2.0.5" in line.lower() for line in lines)
    found = stored(store, image)
    environment = named_image(store, f"environment/{image.environment_key}")
    assert environment is not None
    kept = io.BytesIO("".join(lines).encode())
    for blob in (found.manifest.descriptor, environment.manifest.descriptor, environment.manifest.config):
        kept.write(unpacked(store, blob.digest))
    for blob in (found.manifest.config, *found.manifest.layers[-3:]):
        kept.write(unpacked(store, blob.digest))
    assert b"small.py" in kept.getvalue()
    assert package_index.password.encode() not in kept.getvalue()
    assert b"CERTIFICATE----- of nobody" not in kept.getvalue()


def unpacked(store: DirectoryStore, digest: str) -> bytes:
    with store.open(digest) as blob:
        content = blob.read()
    return gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content


def test_an_environment_is_kept_with_its_lock(
    request_for: Callable[..., BuildRequest], store: DirectoryStore, built: Built
) -> None:
    image, _ = built(request_for({"requirements.txt": b"small\n"}))
    environment = named_image(store, f"environment/{image.environment_key}")
    assert environment is not None
    lock = environment.manifest.annotations["io.longshore.requirements"].splitlines()
    assert len(lock) == 1
    assert re.fullmatch(r"small==1\.0 --hash=sha256:[0-9a-f]{64}", lock[0])


def test_requirements_that_resolve_to_the_same_share_an_environment(
    request_for: Callable[..., BuildRequest], built: Built
) -> None:
    first, _ = built(request_for({"requirements.txt": b"small\n"}))
    second, lines = built(request_for({"requirements.txt": b"small>=1\n"}))
    assert second.environment_key == first.environment_key
    assert second.environment_reused
    assert f"The same was installed before: reusing environment {str(first.environment_key)[:12]}" in lines


def test_a_refresh_resolves_again_and_later_builds_use_what_it_found(
    request_for: Callable[..., BuildRequest], package_index: PackageIndex, built: Built
) -> None:
    name = f"moving{uuid.uuid4().hex[:8]}"
    files = {"requirements.txt": f"{name}\n".encode()}
    package_index.add(name, "1.0", {f"{name}.py": "VALUE = 1\n"})
    first, _ = built(request_for(files))
    same, _ = built(request_for(files, refresh=True))
    assert (same.environment_key, same.environment_reused) == (first.environment_key, True)
    package_index.add(name, "2.0", {f"{name}.py": "VALUE = 2\n"})
    still, _ = built(request_for(files))
    assert still.environment_key == first.environment_key
    refreshed, _ = built(request_for(files, refresh=True))
    assert refreshed.environment_key != first.environment_key
    later, _ = built(request_for(files))
    assert (later.environment_key, later.environment_reused) == (refreshed.environment_key, True)
    as_it_was, _ = built(request_for(files, made_with=first.environment_key))
    assert (as_it_was.environment_key, as_it_was.environment_reused) == (first.environment_key, True)


def test_a_change_of_source_alone_needs_no_engine(
    request_for: Callable[..., BuildRequest], built: Built, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    files = {"requirements.txt": b"small==1.0\n"}
    first, _ = built(request_for(files))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    changed, _ = built(request_for({**files, "src/Small.py": b"# changed\n"}))
    assert changed.environment_reused
    assert changed.environment_key == first.environment_key
    assert changed.manifest_digest != first.manifest_digest
    again, _ = built(request_for(files))
    assert again.size_bytes == first.size_bytes


def test_an_engine_that_has_the_layers_below_is_sent_the_small_ones_alone(
    request_for: Callable[..., BuildRequest],
    store: DirectoryStore,
    built: Built,
    running: Callable[[BuiltImage], contextlib.AbstractContextManager[str]],
) -> None:
    first, _ = built(request_for({"requirements.txt": b"small==1.0\n"}))
    changed, _ = built(request_for({"requirements.txt": b"small==1.0\n", "src/Small.py": b"# changed\n"}))
    with running(first):
        reading = ReadingStore(store.directory)
        image_id = load_image(reading, stored(store, changed), CancelToken())
        engine().remove_image(image_id)
    read = [blob.size for blob in stored(store, changed).manifest.blobs if blob.digest in reading.read]
    assert max(read) < 64 * 1024 < max(layer.size for layer in stored(store, changed).manifest.layers)


class ReadingStore(DirectoryStore):
    """Records which blobs are read."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.read: set[str] = set()

    @override
    @contextmanager
    def open(self, digest: str, offset: int = 0) -> Iterator[BinaryIO]:
        self.read.add(digest)
        with super().open(digest, offset) as blob:
            yield blob


def test_one_environment_in_two_stores_gives_one_digest(
    request_for: Callable[..., BuildRequest],
    store: DirectoryStore,
    built: Built,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request = request_for({"requirements.txt": b"small==1.0\n"})
    first, _ = built(request)
    shutil.copytree(store.directory, tmp_path / "other")
    other = DirectoryStore(tmp_path / "other")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    second, _ = built(request, other)
    assert second == dataclasses.replace(first, environment_reused=True)


def test_what_is_installed_is_compiled_for_good(
    request_for: Callable[..., BuildRequest],
    built: Built,
    running: Callable[[BuiltImage], contextlib.AbstractContextManager[str]],
) -> None:
    """Nothing is compiled when it is imported, although all files have one time."""
    image, _ = built(request_for({"requirements.txt": b"small==1.0\n"}))
    code = (
        "import importlib.util, os, small; cached = importlib.util.cache_from_source(small.__file__);"
        "kept = open(cached, 'rb').read();"
        "print(int.from_bytes(kept[4:8], 'little'), int(os.stat(small.__file__).st_mtime), os.stat(cached).st_uid)"
    )
    with running(image) as container:
        assert printed_in(container, code) == "1 315619200 65531\n", "the flags of PEP 552: by hash, unchecked"
        code = "import sys; sys.flags; import small; print(small.__spec__.cached == small.__cached__)"
        assert printed_in(container, code) == "True\n"


def test_links_within_an_environment_stay_links(
    request_for: Callable[..., BuildRequest],
    built: Built,
    running: Callable[[BuiltImage], contextlib.AbstractContextManager[str]],
) -> None:
    image, _ = built(request_for({}))
    with running(image) as container:
        code = (
            "import os; print(os.readlink('/opt/longshore/env/lib64'), os.path.islink('/opt/longshore/env/bin/python'))"
        )
        assert printed_in(container, code) == "lib True\n"


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
def test_skopeo_reads_the_image(
    request_for: Callable[..., BuildRequest], store: DirectoryStore, built: Built, tmp_path: Path
) -> None:
    image, _ = built(request_for({}))
    manifest = stored(store, image).manifest
    layout = tmp_path / "layout"
    (layout / "blobs" / "sha256").mkdir(parents=True)
    for blob in (manifest.descriptor, *manifest.blobs):
        name = blob.digest.partition(":")[2]
        (layout / "blobs" / "sha256" / name).symlink_to(store.directory / "blobs" / "sha256" / name)
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    index = {"schemaVersion": 2, "manifests": [manifest.descriptor.document()]}
    (layout / "index.json").write_text(json.dumps(index))
    shown = subprocess.run(["skopeo", "inspect", f"oci:{layout}"], check=True, capture_output=True).stdout
    assert json.loads(shown)["Digest"] == image.manifest_digest
    subprocess.run(["skopeo", "copy", "-q", f"oci:{layout}", f"dir:{tmp_path}/copied"], check=True)


def test_a_dockerfile_of_the_source_is_built_where_that_is_allowed(
    request_for: Callable[..., BuildRequest],
    base_image: str,
    store: DirectoryStore,
    built: Built,
) -> None:
    recipe = f'FROM {base_image}\nRUN echo built > /made\nCOPY . /here\nENTRYPOINT ["python3", "-c", "input()"]\n'
    request = request_for({"Dockerfile": recipe.encode()}, allow_dockerfile=True)
    image, lines = built(request)
    assert image.environment_key is None
    assert any(line.startswith("Step 2/") for line in lines)
    assert stored(store, image).run_config["Labels"]["io.longshore.algorithm"] == f"{request.owner}/Small"
    assert described_image(image.image_id) is None, "the store has it, the engine keeps nothing"
    image_id = load_image(store, stored(store, image), CancelToken())
    try:
        assert description(image_id)["Config"]["Entrypoint"] == ["python3", "-c", "input()"]
    finally:
        engine().remove_image(image_id)


def test_a_dockerfile_that_fails_says_so(
    request_for: Callable[..., BuildRequest],
    base_image: str,
    failure: Callable[[BuildRequest], tuple[WorkError, list[str]]],
) -> None:
    recipe = f"FROM {base_image}\nRUN exit 3\n".encode()
    error, lines = failure(request_for({"Dockerfile": recipe}, allow_dockerfile=True))
    assert error.error_class is ErrorClass.INVALID
    assert error.message.startswith("The source's own Dockerfile cannot be built: ")
    assert lines[-1] == error.message


def test_a_requirement_that_does_not_exist_names_its_line(
    build_containers: Callable[[], list[str]],
    request_for: Callable[..., BuildRequest],
    failure: Callable[[BuildRequest], tuple[WorkError, list[str]]],
) -> None:
    error, lines = failure(request_for({"requirements.txt": b"# first\nsmall==1.0\nnosuchpackage==9\n"}))
    assert error.error_class is ErrorClass.INVALID
    assert error.message == "requirements.txt line 3: no matching distribution for nosuchpackage==9."
    assert lines[-1] == error.message
    assert build_containers() == []


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (
            {"requirements.txt": b"small\nno requirement at all\n"},
            "requirements.txt line 2: 'no requirement at all' cannot",
        ),
        ({"src/Small.py": b"", "name": "Other"}, "The source has no src/Other.py: in src there is: Small.py"),
    ],
)
def test_a_source_that_cannot_be_built_says_what_to_fix(
    request_for: Callable[..., BuildRequest],
    failure: Callable[[BuildRequest], tuple[WorkError, list[str]]],
    files: dict[str, Any],
    sentence: str,
) -> None:
    changes = {"name": files.pop("name")} if "name" in files else {}
    error, lines = failure(request_for(files, **changes))
    assert error.error_class is ErrorClass.INVALID
    assert error.message.startswith(sentence)
    assert lines == [error.message]


def test_a_source_without_src_says_so(
    request_for: Callable[..., BuildRequest], failure: Callable[[BuildRequest], tuple[WorkError, list[str]]]
) -> None:
    request = request_for({})
    assert isinstance(request.source, Path)
    request.source.write_bytes(archive_of({"README": b"", "Small.py": b""}))
    error, _ = failure(request)
    assert error.message == (
        "The source has no src/Small.py: there is no directory src (at the top there is: README, Small.py)."
    )


def test_requirements_that_name_the_source_are_built_with_it_and_not_shared(
    request_for: Callable[..., BuildRequest],
    built: Built,
    running: Callable[[BuiltImage], contextlib.AbstractContextManager[str]],
) -> None:
    wheel = wheel_of("own", "1", {"own.py": "VALUE = 7\n"})
    files = {"requirements.txt": b"./vendor/own-1-py3-none-any.whl\n", "vendor/own-1-py3-none-any.whl": wheel}
    image, lines = built(request_for(files))
    assert image.environment_key is None
    assert any("for this build only" in line for line in lines)
    with running(image) as container:
        assert printed_in(container, "import own; print(own.VALUE)") == "7\n"


SETUP_WITH_PIP = b"""
import os, subprocess, sys
import pip
from setuptools import setup

subprocess.check_call([sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", os.environ["TMPDIR"], "small"])
setup(name="old", version="1.0", py_modules=["old"], setup_requires=["small"])
"""


def test_a_requirement_that_uses_pip_while_it_is_built_is_installed(
    request_for: Callable[..., BuildRequest], built: Built
) -> None:
    files = {"requirements.txt": b"./vendor/old\n", "vendor/old/setup.py": SETUP_WITH_PIP, "vendor/old/old.py": b""}
    _image, lines = built(request_for(files))
    assert any(line.startswith("Successfully installed old-1.0") for line in lines)


@pytest.fixture
def base_with_packages(base_image: str) -> Iterator[str]:
    """A base image whose Python has packages of its own: two versions of what the index has, and one more."""
    write = (
        "import pathlib, site\n"
        "top = pathlib.Path(site.getsitepackages()[0])\n"
        "for name, version in (('small', '0.1'), ('fitted', '3')):\n"
        "    (top / f'{name}-{version}.dist-info').mkdir(parents=True)\n"
        "    (top / f'{name}-{version}.dist-info/METADATA').write_text(\n"
        "        f'Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n')\n"
        "    (top / f'{name}.py').write_text('VALUE = 3')\n"
    )
    recipe = f"FROM {base_image}\nENV LONGSHORE_BASE_PACKAGES=true\nRUN {json.dumps(['python3', '-c', write])}\n"
    name = f"base-with-packages:{uuid.uuid4().hex}"
    events = list(engine().build(fileobj=io.BytesIO(recipe.encode()), tag=name, network_mode="host", decode=True))
    assert not any("error" in event for event in events), events
    yield name
    engine().remove_image(name, force=True)


def test_base_packages_are_seen(
    base_with_packages: str,
    request_for: Callable[..., BuildRequest],
    built: Built,
    running: Callable[[BuiltImage], contextlib.AbstractContextManager[str]],
) -> None:
    request = request_for(
        {"requirements.txt": b"small==1.0\n"}, base_image=base_with_packages, kit_requirement="algorithmia>=2,<3"
    )
    image, _lines = built(request)
    with running(image) as container:
        assert printed_in(container, "import fitted, small; print(fitted.VALUE, small.VALUE)") == "3 41\n"


def cancel_when_held(stop: CancelToken, index: PackageIndex) -> threading.Thread:
    """Cancel the build as soon as it waits for the package that the index holds back."""

    def cancel() -> None:
        if index.asked_for_held.wait(60):
            stop.cancel("cancelled")

    index.asked_for_held.clear()
    thread = threading.Thread(target=cancel)
    thread.start()
    return thread


def test_a_stop_ends_a_build_in_the_middle_of_an_installation(
    build_containers: Callable[[], list[str]],
    request_for: Callable[..., BuildRequest],
    package_index: PackageIndex,
    store: DirectoryStore,
) -> None:
    stop = CancelToken()
    thread = cancel_when_held(stop, package_index)
    with pytest.raises(WorkCancelledError, match="cancelled"):
        build_image(request_for({"requirements.txt": b"held\n"}), store, lambda _: None, stop)
    thread.join()
    assert build_containers() == []


@pytest.mark.parametrize(
    "step",
    ["Compiling the installed packages", "Saving the environment in the image store", "Building the algorithm's image"],
)
def test_a_stop_ends_a_build_at_any_step(
    build_containers: Callable[[], list[str]],
    request_for: Callable[..., BuildRequest],
    owner: str,
    store: DirectoryStore,
    step: str,
) -> None:
    stop = CancelToken()
    request = request_for({"requirements.txt": b"small==1.0\n"} if step != "Building the algorithm's image" else {})
    with pytest.raises(WorkCancelledError, match="cancelled"):
        build_image(request, store, lambda line: stop.cancel("cancelled") if line == step else None, stop)
    assert build_containers() == []
    assert store.named(f"{owner}/small:{request.commit}") is None


def test_a_build_that_takes_too_long_is_ended(
    build_containers: Callable[[], list[str]],
    request_for: Callable[..., BuildRequest],
    built: Built,
    failure: Callable[[BuildRequest], tuple[WorkError, list[str]]],
) -> None:
    built(request_for({}))  # the base image is in the store
    error, lines = failure(request_for({"requirements.txt": b"held\n"}, seconds=1))
    assert error.error_class is ErrorClass.INVALID
    assert error.message == "The build took longer than its limit of 1 seconds and was ended."
    assert lines[-1] == error.message
    assert build_containers() == []


def test_equal_requirements_at_the_same_time_are_installed_once(
    request_for: Callable[..., BuildRequest], built: Built
) -> None:
    results: list[BuiltImage] = []
    requests = [request_for({"requirements.txt": b"small==1.0\n", "n": str(n).encode()}) for n in range(2)]
    threads = [threading.Thread(target=lambda one=one: results.append(built(one)[0])) for one in requests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(image.environment_reused for image in results) == [False, True]
    assert results[0].environment_key == results[1].environment_key


def test_what_is_missing_for_all_builds_makes_the_job_wait(
    build_containers: Callable[[], list[str]],
    request_for: Callable[..., BuildRequest],
    owner: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: Callable[[BuildRequest], tuple[WorkError, list[str]]],
) -> None:
    client = engine()
    error, _ = failure(request_for({}, base_image="127.0.0.1:1/no/base:1"))
    assert error.error_class is ErrorClass.UNAVAILABLE
    assert error.message.startswith(
        "The base image 127.0.0.1:1/no/base:1 (`longshore environments`) is not on the Docker"
    )
    empty = f"empty-{owner}"
    client.import_image_from_data(archive_of({"nothing": b""}), repository=empty)
    error, _ = failure(request_for({}, base_image=empty))
    client.remove_image(empty)
    assert (error.error_class, error.message) == (
        ErrorClass.UNAVAILABLE,
        "The base image (`longshore environments`) has no python3 on its path; the job waits.",
    )
    error, _ = failure(request_for({"requirements.txt": b"small"}, network="no-such-network"))
    assert error.error_class is ErrorClass.UNAVAILABLE
    assert "LONGSHORE_BUILD_NETWORK" in error.message
    assert build_containers() == []

    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    error, lines = failure(request_for({}, base_image="never-seen:1"))
    assert error.error_class is ErrorClass.UNAVAILABLE
    assert lines == [
        f"The Docker engine at unix://{tmp_path}/none.sock does not answer: No such file or directory; the job waits."
    ]


def test_steps_have_no_privileges_and_their_output_is_whole(
    build_containers: Callable[[], list[str]], base_image: str, owner: str, tmp_path: Path
) -> None:
    context = BuildContext(BuildLog(print, 0), CancelToken(), Deadline(60), tmp_path)
    with build_container(base_image, owner, "none", BuildLimits(1 << 28, 1.0, 64, 60, 1), context) as container:
        status: list[str] = []
        assert container.run(["cat", "/proc/self/status"], {}, "/", status.append) == 0
        printed: list[str] = []
        count = "import sys; print(*range(50000), sep=chr(10)); sys.exit(3)"
        assert container.run(["python3", "-c", count], {}, "/", printed.append) == 3
        assert printed == [str(number) for number in range(50000)]
        ours = name_prefix(owner, "")
        assert remove_leftover_containers(timedelta(hours=1), ours) == 0
        assert len(build_containers()) == 1
        assert remove_leftover_containers(timedelta(seconds=-60), ours) == 1
    fields = dict(line.split(":\t", 1) for line in status if ":\t" in line)
    assert fields["Uid"].split() == [str(BUILDER)] * 4
    assert {fields[name] for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {"0" * 16}
    assert fields["NoNewPrivs"] == "1"
    assert fields["Groups"].split() in ([], [str(BUILDER)])
    assert build_containers() == []


def test_what_an_interrupted_build_left_is_removed_and_nothing_else(
    request_for: Callable[..., BuildRequest], base_image: str, store: DirectoryStore, built: Built
) -> None:
    request = request_for({"Dockerfile": f"FROM {base_image}\n".encode()}, allow_dockerfile=True)
    image, _ = built(request)
    client = engine()
    load_image(store, stored(store, image), CancelToken())
    name_image(image.image_id, local_reference(request.owner, "Small", request.commit))
    step: dict[str, Any] = {"command": ["/bin/sh", "-c", '#(nop) ENV A="b"'], "entrypoint": []}
    other = client.create_container(image.image_id, labels={REVISION: "another"}, **step)["Id"]
    fork = client.create_container(image.image_id, labels={ALGORITHM: "another/Small"}, **step)["Id"]
    started = client.create_container(image.image_id)["Id"]
    left = client.create_container(image.image_id, **step)["Id"]
    nameless = client.commit(left)["Id"]
    kept = client.commit(other, conf={"Labels": {REVISION: request.commit}})["Id"]
    try:
        remove_interrupted(f"{request.owner}/{request.name}", request.commit, keep=[kept])
        found = {container["Id"] for container in client.containers(all=True)}
        assert {left, other, fork, started} & found == {other, fork, started}
        assert described_image(nameless) is None
        assert described_image(kept) is not None
        assert described_image(image.image_id) is not None
    finally:
        for container in (other, fork, started):
            client.remove_container(container)
        client.remove_image(kept)
        client.remove_image(local_reference(request.owner, "Small", request.commit))


def test_only_build_containers_are_ever_looked_at() -> None:
    with pytest.raises(ValueError, match="does not begin with"):
        remove_leftover_containers(timedelta(days=1), "")
