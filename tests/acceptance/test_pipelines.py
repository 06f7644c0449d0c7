"""Algorithms call algorithms with the published client, in containers of the Docker engine."""

import http.client
import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.acceptance.system import System, repository
from tests.acceptance.test_executing import called

SOURCE = """\
import os

import Algorithmia
from Algorithmia import ADK

client = Algorithmia.client()


def apply(given):
    if given == "end":
        os._exit(3)
    if given == "fail":
        raise ValueError("no model")
    seen = given["seen"] + [sorted(os.listdir("/sys/class/net")) == ["lo"]]
    if not given["path"]:
        return seen
    following = {"path": given["path"][1:], "seen": seen}
    try:
        return client.algo(given["path"][0]).pipe(given.get("send", following)).result
    except Exception as error:
        return str(error)


ADK(apply).init("test")
"""


@pytest.fixture
def paths(system: System, tmp_path: Path, owner: str, owner_key: str, registry_id: str) -> list[str]:
    """Three private algorithms with the same source: the first and the last have no network."""
    made = []
    for name, network in (("First", "isolated"), ("Second", "full"), ("Third", "isolated")):
        body = {"name": name, "details": {"label": name}, "settings": {"network_access": network}}
        assert system.call("POST", f"/v1/algorithms/{owner}", body).status == 201
        repo = repository(system, tmp_path / name, f"{owner}/{name}", owner_key)
        repo.write({f"src/{name}.py": SOURCE})
        commit = repo.commit()
        repo.push()
        system.compile(f"{owner}/{name}", commit, pushes=[{"registry_id": registry_id}])
        made.append(f"{owner}/{name}/{commit}")
    return made


def test_a_pipeline_of_three_algorithms(system: System, paths: list[str], owner_key: str) -> None:
    first, second, third = paths
    given = {"path": [second, third], "seen": []}
    assert called(system, first, given, owner_key)["result"] == [True, False, True]
    assert called(system, first, given, system.admin_key)["result"] == [True, False, True]

    for send, message in (("fail", "no model"), ("end", "exit status 3")):
        told = {"path": [third], "seen": [], "send": send}
        assert message in called(system, first, told, owner_key)["result"]
    circle = called(system, first, {"path": [second, first], "seen": []}, owner_key)["result"]
    assert "503" in circle

    address = urlsplit(system.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port)
    connection.request(
        "POST", f"/v1/algo/{first}", json.dumps(given), {"Authorization": owner_key, "Content-Type": "application/json"}
    )
    connection.close()  # the call goes on, and disturbs no other
    assert called(system, first, given, owner_key)["result"] == [True, False, True]
