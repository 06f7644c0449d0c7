"""Who may fetch and push, over git's own client."""

import base64
import os
from pathlib import Path

import pytest
import urllib3
from urllib3.response import BaseHTTPResponse

from api.proxy_headers import OWNER_HEADER, owner_tag
from shared.db.engine import database
from shared.db.models import Algorithm, KeyKind
from shared.git.hosted import git_token, internal_url
from shared.keys import authenticate_key, revoke_key
from tests.git_service import GitService, WorkTree, make_algorithm, make_key, url_with_key


def get(url: str, authorization: str | None = None, method: str = "GET") -> BaseHTTPResponse:
    headers = {} if authorization is None else {"Authorization": authorization}
    with urllib3.PoolManager(retries=False) as pool:
        return pool.request(method, url, headers=headers)


def refs(algorithm: Algorithm, service: str = "git-upload-pack") -> str:
    return f"{internal_url(algorithm)}/info/refs?service={service}"


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"x:{password}".encode()).decode()


def test_the_owner_pushes_and_clones(service: GitService, tree: WorkTree, tmp_path: Path) -> None:
    algorithm = make_algorithm()
    url = url_with_key(service, algorithm, make_key(algorithm.owner))
    pushed = tree.push(url)
    assert pushed.returncode == 0, pushed.stderr
    cloned = tree.git("clone", url, str(tmp_path / "clone"))
    assert "empty" not in cloned.stderr
    assert (tmp_path / "clone" / "src" / "Hello.py").read_text() == "x\n"
    assert tree.git("-C", str(tmp_path / "clone"), "rev-parse", "HEAD").stdout.strip() == tree.head


def test_a_large_push_is_chunked_and_arrives(service: GitService, tree: WorkTree) -> None:
    algorithm = make_algorithm()
    url = url_with_key(service, algorithm, make_key(algorithm.owner))
    tree.write("noise", os.urandom(1_500_000))
    tree.commit()
    pushed = tree.push(url)
    assert pushed.returncode == 0, pushed.stderr
    assert tree.git("ls-remote", url, "refs/heads/main").stdout.split()[0] == tree.head


@pytest.mark.parametrize("form", ["Simple {}", "Bearer {}", "{}", "basic"])
@pytest.mark.usefixtures("service")
def test_every_spelling_of_the_key_is_taken(form: str) -> None:
    algorithm = make_algorithm()
    key = make_key(algorithm.owner)
    answer = get(refs(algorithm), basic(key) if form == "basic" else form.format(key))
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/x-git-upload-pack-advertisement"


@pytest.mark.parametrize(
    "authorization", [None, "", "Basic", "Basic !!!", "Basic eA==", basic("wrong"), "Simple wrong"]
)
@pytest.mark.parametrize("known", [True, False])
def test_without_a_good_key_it_is_401_whether_or_not_there_is_a_repository(
    service: GitService, authorization: str | None, known: bool
) -> None:
    url = refs(make_algorithm()) if known else f"{service.url}/git/nobody/Nothing.git/info/refs?service=git-upload-pack"
    answer = get(url, authorization)
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"].startswith("Basic ")
    assert answer.headers["Content-Type"].startswith("text/plain")


def test_a_revoked_key_is_refused(service: GitService, tree: WorkTree) -> None:
    algorithm = make_algorithm()
    key = make_key(algorithm.owner)
    with database().writing() as session:
        caller = authenticate_key(session, key)
        assert caller is not None
        assert revoke_key(session, caller.key_id, algorithm.owner)
    pushed = tree.push(url_with_key(service, algorithm, key))
    assert pushed.returncode != 0
    assert "Authentication failed" in pushed.stderr
    assert key not in pushed.stderr.replace(url_with_key(service, algorithm, key), "")


def test_another_owners_key_learns_nothing(service: GitService) -> None:
    algorithm, stranger = make_algorithm(), make_key(make_algorithm().owner)
    missing = get(f"{service.url}/git/nobody/Nothing.git/info/refs?service=git-upload-pack", basic(stranger))
    for wanted in ("git-upload-pack", "git-receive-pack"):
        answer = get(refs(algorithm, wanted), basic(stranger))
        assert answer.status == missing.status == 404
        assert answer.data.replace(algorithm.path.encode(), b"") == missing.data.replace(b"nobody/Nothing", b"")


@pytest.mark.usefixtures("service")
def test_open_source_is_fetched_by_every_key_and_pushed_by_its_owner() -> None:
    algorithm, stranger = make_algorithm(settings={"source_visibility": "open"}), make_key(make_algorithm().owner)
    assert get(refs(algorithm), basic(stranger)).status == 200
    refused = get(refs(algorithm, "git-receive-pack"), basic(stranger))
    assert refused.status == 403
    assert b"may not manage" in refused.data
    assert get(refs(algorithm), None).status == 401


@pytest.mark.usefixtures("service")
def test_a_key_without_management_fetches_only() -> None:
    algorithm = make_algorithm()
    key = make_key(algorithm.owner, allow_algo_management=False)
    assert get(refs(algorithm), basic(key)).status == 200
    assert get(refs(algorithm, "git-receive-pack"), basic(key)).status == 403


@pytest.mark.usefixtures("service")
def test_the_gateway_is_told_whose_key_it_was() -> None:
    algorithm = make_algorithm()
    assert get(refs(algorithm), basic(make_key(algorithm.owner))).headers[OWNER_HEADER] == owner_tag(algorithm.owner)
    assert OWNER_HEADER not in get(refs(algorithm)).headers


def test_an_administrator_pushes_anywhere(service: GitService, tree: WorkTree) -> None:
    algorithm = make_algorithm()
    admin = make_key("root", KeyKind.ADMIN)
    assert tree.push(url_with_key(service, algorithm, admin)).returncode == 0


@pytest.mark.usefixtures("service")
def test_a_workers_token_fetches_its_own_algorithm_and_nothing_else() -> None:
    algorithm, other = make_algorithm(), make_algorithm()
    token = git_token("fetch", algorithm.id, 60)
    assert get(refs(algorithm), basic(token)).status == 200
    assert get(refs(algorithm, "git-receive-pack"), basic(token)).status == 401
    assert get(refs(other), basic(token)).status == 401
    assert get(refs(algorithm), basic(git_token("admin", algorithm.id, 60))).status == 401
    assert get(refs(algorithm), basic(git_token("fetch", algorithm.id, -1))).status == 401


@pytest.mark.usefixtures("service")
def test_a_repository_elsewhere_and_a_deleted_one_are_not_here() -> None:
    elsewhere = make_algorithm(repository_url="https://example.org/r")
    answer = get(refs(elsewhere), basic(make_key(elsewhere.owner)))
    assert (answer.status, b"elsewhere" in answer.data) == (404, True)
    deleted = make_algorithm(deleted_at=1)
    assert get(refs(deleted), basic(make_key(deleted.owner))).status == 404


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/HEAD", "GET", 404),
        ("/config", "GET", 404),
        ("/objects/info/packs", "GET", 404),
        ("/../../../../etc/passwd", "GET", 404),
        ("/info/refs", "GET", 403),
        ("/info/refs?service=git-upload-archive", "GET", 403),
        ("/info/refs?service=--help", "GET", 403),
        ("/info/refs?service=git-upload-pack", "HEAD", 405),
        ("/info/refs?service=git-upload-pack", "DELETE", 405),
        ("/git-upload-pack", "GET", 405),
        ("/git-upload-pack", "POST", 415),
        ("/git-upload-archive", "POST", 404),
    ],
)
@pytest.mark.usefixtures("service")
def test_only_the_smart_protocol_is_spoken(path: str, method: str, status: int) -> None:
    algorithm = make_algorithm()
    answer = get(internal_url(algorithm) + path, basic(make_key(algorithm.owner)), method)
    assert answer.status == status
    assert b"Traceback" not in answer.data
    assert b"<html" not in answer.data


def test_health_and_errors_elsewhere_are_json(service: GitService) -> None:
    assert get(f"{service.url}/healthz").json() == {"status": "ok"}
    assert get(f"{service.url}/readyz").json() == {"status": "ok"}
    answer = get(f"{service.url}/nothing")
    assert answer.status == 404
    assert answer.json()["error"]["code"] == 5004
    assert answer.json()["error"]["id"] == answer.headers["X-Request-Id"]
