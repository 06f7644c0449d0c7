"""An execution pulls from the registry of the latest successful push, as the reference page says."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import docker
import pytest

from dev.services.registry import PrivateRegistry
from tests.acceptance.system import Repository, System, repository
from tests.acceptance.test_published_client import run_script
from tests.clients import published_client_python

SOURCE = """\
import os

from Algorithmia import ADK


def apply(given):
    if given == "end":
        os._exit(3)
    if given == "print":
        print("printed")
    if isinstance(given, (str, bytes, bytearray)) and given not in ("hello", "again"):
        return given
    return {"echo": given, "network": sorted(os.listdir("/sys/class/net"))}


ADK(apply).init("test")
"""


@pytest.fixture
def clone(system: System, tmp_path: Path, owner: str, owner_key: str) -> Repository:
    """The repository of a new algorithm, `Run`, which runs without network."""
    body = {"name": "Run", "details": {"label": "Run"}, "settings": {"network_access": "isolated"}}
    made = system.call("POST", f"/v1/algorithms/{owner}", body)
    assert made.status == 201, made.text
    repo = repository(system, tmp_path / "clone", f"{owner}/Run", owner_key)
    repo.write({"src/Run.py": SOURCE})
    return repo


@pytest.fixture
def sandbox_id(system: System, second_registry: PrivateRegistry) -> str:
    """Another registry, recorded for one test."""
    return system.record_registry(second_registry.host, "pusher", second_registry.users["pusher"])


def called(system: System, path: str, given: object, key: str) -> Any:
    """Return the response of a call."""
    answer = system.call("POST", f"/v1/algo/{path}", given, key=key)
    assert answer.status == 200, answer.text
    return answer.json


def running_images(docker_host: str, owner: str) -> list[str]:
    """Return the images of the owner's containers, newest first."""
    client = docker.DockerClient(base_url=docker_host)
    try:
        found = client.containers.list(filters={"label": f"longshore.owner={owner}"})
        return [container.attrs["Config"]["Image"] for container in found]
    finally:
        client.close()


def test_a_call_runs_what_the_latest_good_push_brought(
    system: System,
    clone: Repository,
    owner: str,
    owner_key: str,
    docker_host: str,
    registry: PrivateRegistry,
    registry_id: str,
    second_registry: PrivateRegistry,
    sandbox_id: str,
) -> None:
    commit = clone.commit()
    clone.push()
    version = f"/v1/algorithms/{owner}/Run/versions/{commit}"
    system.compile(f"{owner}/Run")
    refused = system.call("POST", f"/v1/algo/{owner}/Run/{commit}", "hello", key=owner_key)
    assert refused.status == 409
    assert "never pushed to a registry" in refused.text

    push = f"{version}/registry"
    assert system.call("POST", push, {"registry_id": registry_id}, wait=60).status == 204
    answer = called(system, f"{owner}/Run/{commit}", "hello", owner_key)
    assert answer["result"] == {"echo": "hello", "network": ["lo"]}
    assert answer["metadata"]["content_type"] == "json"
    assert running_images(docker_host, owner)[0].startswith(f"{registry.host}/")

    assert system.call("POST", push, {"registry_id": sandbox_id}, wait=60).status == 204
    assert called(system, f"{owner}/Run/{commit}", 2, owner_key)["result"]["echo"] == 2
    assert running_images(docker_host, owner)[0].startswith(f"{second_registry.host}/")
    seen = system.call("GET", f"{version}/pull").json
    assert seen["registry_id"] == sandbox_id
    assert seen["image"].endswith(f"@{seen['digest']}")

    assert system.call("PUT", f"{version}/pull", {"registry_id": registry_id}).status == 200
    assert called(system, f"{owner}/Run/{commit}", 3, owner_key)["result"]["echo"] == 3
    assert system.call("GET", f"{version}/pull").json["registry_id"] == registry_id
    assert any(image.startswith(f"{registry.host}/") for image in running_images(docker_host, owner))

    assert system.call("DELETE", f"{version}/pull").status == 204
    assert system.call("DELETE", f"/v1/registries/{sandbox_id}").status == 200
    fallen = system.call("GET", f"{version}/pull").json
    assert fallen["registry_id"] == registry_id
    assert "deleted" in json.dumps(fallen["considered"])
    assert "Falls back" in fallen["reason"]
    assert called(system, f"{owner}/Run/{commit}", 4, owner_key)["result"]["echo"] == 4


def test_fifty_callers_at_once_lose_no_call_and_a_dead_process_fails_alone(
    system: System, clone: Repository, owner: str, owner_key: str, registry_id: str
) -> None:
    commit = clone.commit()
    clone.push()
    system.compile(f"{owner}/Run", pushes=[{"registry_id": registry_id}])
    path = f"{owner}/Run/{commit}"
    with ThreadPoolExecutor(50) as callers:
        answers = list(callers.map(lambda number: called(system, path, number, owner_key), range(50)))
    assert [answer["result"]["echo"] for answer in answers] == list(range(50))
    assert "exit status 3" in called(system, path, "end", owner_key)["error"]["message"]
    assert called(system, path, "again", owner_key)["result"]["echo"] == "again"


def test_the_published_client_calls_in_every_form(
    system: System, clone: Repository, owner: str, owner_key: str, registry_id: str
) -> None:
    commit = clone.commit()
    clone.push()
    system.compile(f"{owner}/Run", pushes=[{"registry_id": registry_id}])
    given = {"API_ADDRESS": system.url, "API_KEY": owner_key, "ALGORITHM": f"{owner}/Run/{commit}"}
    output = run_script(published_client_python(), "call.py", **given)
    assert output["results"][0] == str({"echo": {"a": [1, None]}, "network": ["lo"]})
    assert output["results"][1:] == ["text", str(b"\x00\xff")]
    assert output["types"] == ["json", "text", "binary"]
    assert output["printed"] == "printed\n"
    assert output["raw"] == "bare"
    assert (output["later"]["state"], output["later"]["git_hash"]) == ("succeeded", commit)
