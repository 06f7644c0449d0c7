"""Attacks of code in a build on the credentials of the operator's package index."""

import base64
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from shared.cancellation import CancelToken, Deadline
from shared.errors import ErrorClass, WorkError
from shared.net.address_rules import index_networks
from tests.directory_store import DirectoryStore
from tests.security import sources
from tests.security.builds.conftest import Built
from tests.security.scripted_index import scripted_server
from tests.service.workers.builds.package_index import PackageIndex as OperatorsIndex
from workers.builds.context import BuildContext, BuildLimits, BuildLog
from workers.builds.environment.container import build_container
from workers.builds.environment.index_relay import IndexRelay, index_relay
from workers.builds.environment.package_index import PackageIndex
from workers.builds.image import BuildRequest, build_image

RequestFor = Callable[..., BuildRequest]
SEARCH = """
import os, stat, sys
needles = [bytes.fromhex(text)[::-1] for text in {needles!r}]
looked = 0
def look(path, content):
    global looked
    looked += 1
    if any(needle in content for needle in needles):
        print("FOUND", path)
for top in ("/proc", "/etc", "/opt", "/root", "/home", "/tmp", "/run", "/var", "/dev/shm"):
    for directory, _, names in os.walk(top):
        if directory.startswith("/proc/") and directory.count("/") > 2:
            names = [name for name in names if name in ("environ", "cmdline", "mountinfo")]
        elif directory == "/proc":
            names = []
        for name in names:
            path = os.path.join(directory, name)
            try:
                if stat.S_ISREG(os.lstat(path).st_mode) and os.lstat(path).st_size < 1 << 20:
                    look(path, open(path, "rb").read(1 << 20))
            except OSError:
                pass
print("LOOKED AT", looked > 100, flush=True)
"""


@pytest.fixture
def failed(store: DirectoryStore) -> Callable[[BuildRequest], tuple[WorkError, str]]:
    """Build an image that cannot be built; return the error and the log."""

    def build(request: BuildRequest) -> tuple[WorkError, str]:
        lines: list[str] = []
        with pytest.raises(WorkError) as caught:
            build_image(request, store, lines.append, CancelToken())
        return caught.value, "\n".join(lines)

    return build


def test_setup_py_finds_no_credentials_in_variables_or_files(
    request_for: RequestFor,
    package_index: OperatorsIndex,
    failed: Callable[[BuildRequest], tuple[WorkError, str]],
) -> None:
    password = package_index.password.encode()
    pair = base64.b64encode(f"{package_index.user}:{package_index.password}".encode())
    search = SEARCH.format(needles=[secret[::-1].hex() for secret in (password, pair)])
    tree = sources.runs_as_backend(sources.tells_environment() + search + "sys.exit('seen')\n", name="Small")
    tree["requirements.txt"] = "small==1.0\n./part\n"
    _, log = failed(request_for(sources.encoded(tree), kit_requirement="algorithmia>=2,<3"))
    assert "LOOKED AT True" in log
    assert "PIP_INDEX_URL" in log, "it has seen the variables of pip"
    assert "FOUND" not in log
    for text in (package_index.password, package_index.user, pair.decode()):
        assert text not in log
        assert text[::-1] not in log


def test_setup_py_gets_nothing_but_packages_from_the_relay(
    request_for: RequestFor, failed: Callable[[BuildRequest], tuple[WorkError, str]], package_index: OperatorsIndex
) -> None:
    ask = """
import os, sys, urllib.error, urllib.request, urllib.parse
index = os.environ["PIP_INDEX_URL"]
top = index[:-len("simple/")]
parts = urllib.parse.urlsplit(index)
statuses = []
def status(url, method="GET"):
    try:
        return urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=60).status
    except urllib.error.HTTPError as error:
        return error.code
for url in ("", "simple/", "simple/../", "admin/", "files/AAAA/small.whl", "http://127.0.0.1:%d/simple/" % {port}):
    statuses.append(status(top + url))
statuses.append(status("http://" + parts.netloc + "/simple/small/"))
statuses.append(status("http://" + parts.netloc + "/another-token/simple/small/"))
print("refused:", set(statuses), "served:", status(index + "small/"), "posted:", status(index + "small/", "POST"))
sys.exit("asked")
"""
    port = int(package_index.url.rpartition(":")[2].partition("/")[0])
    tree = sources.runs_as_backend(ask.replace("{port}", str(port)), name="Small")
    _, log = failed(request_for(sources.encoded(tree)))
    assert "refused: {404} served: 200 posted: 501" in log


def test_a_build_without_network_installs_from_the_index_alone(request_for: RequestFor, built: Built) -> None:
    _, log = built(request_for({"requirements.txt": b"small==1.0\n"}, network="none"))
    assert "Successfully installed small-1.0" in log
    assert "package-index/" in log
    assert "127.0.0.1" not in log


def test_the_address_of_one_build_serves_no_other_and_ends_with_it(
    base_image: str, owner: str, package_index: OperatorsIndex, tmp_path: Path
) -> None:
    context = BuildContext(BuildLog(print, 0), CancelToken(), Deadline(120), tmp_path)

    def relay(stack: ExitStack) -> IndexRelay:
        limits = BuildLimits(1 << 28, 1.0, 64, 120, 1)
        container = stack.enter_context(build_container(base_image, owner, "host", limits, context))
        index = PackageIndex(package_index.url, None, index_networks(), 1 << 20, context.stop)
        return stack.enter_context(index_relay(container, index))

    with ExitStack() as stack:
        first, second = relay(stack), relay(stack)
        page = fetched(f"{first.url}small/")
        assert page[0] == 200
        path = page[1].decode().partition('href="../../')[2].partition('"')[0]
        assert fetched(first.url.replace("simple/", path))[0] == 200
        ours, theirs = first.url.split("/"), second.url.split("/")
        assert fetched("/".join([*theirs[:3], ours[3], "simple/small/"]))[0] == 404
        assert fetched(second.url.replace("simple/", path))[0] == 404
    with pytest.raises(OSError, match=r"refused|closed connection|reset"):
        fetched(f"{first.url}small/")


def fetched(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=60) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, b""


def test_an_index_that_fails_ends_the_installation_with_its_own_reason(
    request_for: RequestFor, failed: Callable[[BuildRequest], tuple[WorkError, str]]
) -> None:
    with scripted_server({"/simple/small/": (503, {}, b"")}) as server:
        url = f"http://user:secret@{server.host}/simple/"
        error, _ = failed(request_for({"requirements.txt": b"small==1.0\n"}, index_url=url))
    assert error.error_class is ErrorClass.TRANSIENT
    assert error.message == "requirements.txt line 1: the package index could not be reached: it answers 503."
