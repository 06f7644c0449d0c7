"""Attacks of a build on the engine's disk."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from shared.cancellation import CancelToken, Deadline
from shared.errors import ErrorClass, WorkError
from tests.directory_store import DirectoryStore
from tests.security import sources, wheels
from tests.service.workers.builds.package_index import PackageIndex
from workers.builds.context import BuildContext, BuildLimits, BuildLog
from workers.builds.environment.container import WORK, build_container
from workers.builds.image import BuildRequest, build_image

MEBIBYTE = 1024 * 1024
TAKES_OVER_THE_MEASURING = """
import os, signal, sys
held = [open(f'/tmp/{number}', 'w+b') for number in range(8)]
for file in held:
    os.unlink(file.name)
seen = filled = 0
while True:
    for process in filter(str.isdecimal, os.listdir('/proc')):
        try:
            if b'size_of_' + b'deleted' in open(f'/proc/{process}/cmdline', 'rb').read():
                seen += 1
                if sys.argv[1] == 'stops it':
                    os.kill(int(process), signal.SIGSTOP)
                else:
                    output = open(f'/proc/{process}/fd/1', 'wb', 0)
                    os.kill(int(process), signal.SIGSTOP)
                    output.write(b'0 0\\n')
                    os.kill(int(process), signal.SIGKILL)
        except OSError:
            pass
    if seen and not filled:
        filled = True
        for file in held:
            file.write(bytes(8 << 20))
            file.flush()
"""
LIMITS = BuildLimits(256 * MEBIBYTE, 2.0, 64, 240, MEBIBYTE, disk_bytes=24 * MEBIBYTE, files=2000)
FOREVER = "import time\ntime.sleep(600)\n"
MANY_LARGE = "for number in range(64):\n    open(f'{0}/large{{number}}', 'wb').write(bytes(1 << 20))\n"


@pytest.mark.parametrize(
    ("code", "setting"),
    [
        (MANY_LARGE.format("/tmp"), "LONGSHORE_BUILD_MAX_BYTES"),
        (MANY_LARGE.format(f"{WORK}/scratch"), "LONGSHORE_BUILD_MAX_BYTES"),
        (
            "held = [open(f'/tmp/{number}', 'w+b') for number in range(8)]\n"
            "import os\n"
            "for file in held:\n    os.unlink(file.name)\n    file.write(bytes(8 << 20))\n    file.flush()\n",
            "LONGSHORE_BUILD_MAX_BYTES",
        ),
        (
            "import os\nos.makedirs('/tmp/hidden/below')\n"
            + MANY_LARGE.format("/tmp/hidden/below")
            + "os.chmod('/tmp/hidden/below', 0)\nos.chmod('/tmp/hidden', 0)\n",
            "LONGSHORE_BUILD_MAX_BYTES",
        ),
        (sources.makes_files("/tmp", 4000), "LONGSHORE_BUILD_MAX_FILES"),
    ],
    ids=["tmp", "work", "deleted", "unreadable", "files"],
)
def test_a_build_that_fills_the_disk_is_ended_and_its_files_are_removed(
    base_image: str, owner: str, tmp_path: Path, build_containers: Callable[[], list[str]], code: str, setting: str
) -> None:
    context = BuildContext(BuildLog(print, 0), CancelToken(), Deadline(240), tmp_path)
    with (
        pytest.raises(WorkError, match=setting) as caught,
        build_container(base_image, owner, "none", LIMITS, context) as container,
    ):
        container.run(["python3", "-c", code + FOREVER], {}, "/", print)
    assert caught.value.error_class is ErrorClass.INVALID
    assert build_containers() == []


@pytest.mark.parametrize("way", ["answers for it", "stops it"])
def test_a_build_neither_answers_for_the_step_that_measures_it_nor_holds_it(
    base_image: str, owner: str, tmp_path: Path, way: str
) -> None:
    """Code of the build looks for that step all the time, and keeps deleted files open meanwhile."""
    context = BuildContext(BuildLog(print, 0), CancelToken(), Deadline(60), tmp_path)
    with (
        pytest.raises(WorkError, match="LONGSHORE_BUILD_MAX_BYTES"),
        build_container(base_image, owner, "none", LIMITS, context) as container,
    ):
        container.run(["python3", "-c", TAKES_OVER_THE_MEASURING, way], {}, "/", print)


def test_a_path_that_is_too_long_to_be_looked_at_hides_nothing(base_image: str, owner: str, tmp_path: Path) -> None:
    context = BuildContext(BuildLog(print, 0), CancelToken(), Deadline(240), tmp_path)
    dig = "import os\nos.chdir('/tmp')\nfor _ in range(30):\n    os.mkdir('d' * 200)\n    os.chdir('d' * 200)\n"
    with (
        pytest.raises(WorkError, match="cannot be counted"),
        build_container(base_image, owner, "none", LIMITS, context) as container,
    ):
        container.run(["python3", "-c", dig + FOREVER], {}, "/", print)


def test_no_file_is_larger_than_a_build_may_be(base_image: str, owner: str, tmp_path: Path) -> None:
    context = BuildContext(BuildLog(print, 0), CancelToken(), Deadline(240), tmp_path)
    with build_container(base_image, owner, "none", LIMITS, context) as container:
        lines: list[str] = []
        container.run(["python3", "-c", "open('/tmp/x', 'w').truncate(1 << 40)"], {}, "/", lines.append)
    assert lines[-1] == "OSError: [Errno 27] File too large"


def test_a_small_wheel_that_is_large_when_unpacked_is_refused(
    request_for: Callable[..., BuildRequest],
    package_index: PackageIndex,
    store: DirectoryStore,
    build_containers: Callable[[], list[str]],
) -> None:
    line = wheels.add_to(package_index, "bomb", wheels.bomb("bomb", 100))
    request = request_for({"requirements.txt": line.encode()})
    request = replace(request, limits=replace(request.limits, disk_bytes=64 * MEBIBYTE))
    lines: list[str] = []
    with pytest.raises(WorkError) as caught:
        build_image(request, store, lines.append, CancelToken())
    assert caught.value.error_class is ErrorClass.INVALID
    assert build_containers() == []
