"""A compile resolves its commit in the hosted repository during the request, through the real git service."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask

from api.git.repositories import Repository
from tests.git_service import GitService, WorkTree, git_service, make_algorithm, make_key, url_with_key
from tests.service.api.invocation import Api


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitService]:
    with git_service(tmp_path_factory.mktemp("git"), build_on_push=False) as running:
        yield running


def test_commits_of_a_hosted_repository(service: GitService, any_app: Flask, tmp_path: Path) -> None:
    algorithm = make_algorithm("acme")
    api, path = Api(any_app, make_key("acme")), f"/v1/algorithms/{algorithm.path}"
    template = api.post(f"{path}/compile")["version_info"]["git_hash"]
    assert template == Repository(algorithm.id).template.commit()

    tree, url = WorkTree(tmp_path / "tree"), url_with_key(service, algorithm, api.key or "")
    tree.write("src/Hello.py")
    first = tree.commit()
    assert tree.push(url).returncode == 0
    assert api.post(f"{path}/compile")["version_info"]["git_hash"] == first
    assert api.post(f"{path}/compile", {"commitSha": first[:9]})["version_info"]["git_hash"] == first

    second = tree.commit()
    assert tree.push(url).returncode == 0
    assert api.post(f"{path}/compile", {})["version_info"]["git_hash"] == second
    for unknown in ("f" * 40, "f" * 7):
        api.expect_refusal(400, 2015, "POST", f"{path}/compile", {"commitSha": unknown})
    assert [row["commit_sha"] for row in api.get(f"{path}/builds")["results"]] == [second, first, template]

    repository = Repository(algorithm.id)
    assert repository.exists
    api.delete(path)
    assert not repository.exists
