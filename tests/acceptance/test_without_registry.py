"""What was built runs while no registry was ever recorded; from the first one on, only what was pushed runs."""

from pathlib import Path

from dev.services.registry import PrivateRegistry
from tests.acceptance.system import ECHO, longshore_up, repository


def test_what_was_built_runs_until_the_first_registry_and_again_once_it_was_pushed(
    tmp_path: Path, docker_host: str, base_image: str, registry: PrivateRegistry
) -> None:
    with longshore_up(
        tmp_path, DOCKER_HOST=docker_host, LONGSHORE_BASE_IMAGE=base_image, LONGSHORE_SERVING_NETWORK="host"
    ) as system:
        key = system.owner_key("first")
        system.create_algorithm("first", "Echo")
        clone = repository(system, tmp_path / "clone", "first/Echo", key)
        clone.write({"src/Echo.py": ECHO})
        version = f"/v1/algorithms/first/Echo/versions/{clone.commit()}"
        clone.push()
        system.compile("first/Echo")
        settings = {"algorithm_callability": "private"}
        body = {"settings": settings, "version_info": {"version_type": "minor"}}
        assert system.call("POST", "/v1/algorithms/first/Echo/versions", body, key=key, wait=60).status == 200

        answer = system.call("POST", "/v1/algo/first/Echo/", "hello", key=key)
        assert (answer.status, answer.json["result"]) == (200, {"echo": "hello"}), answer.text
        assert "the platform's own store" in system.call("GET", f"{version}/pull").json["reason"]

        recorded = system.call("POST", "/v1/registries", {"registry_url": registry.host}).json
        assert recorded["unpushed_versions"] == 1
        status, _code, message = system.call("POST", "/v1/algo/first/Echo/", "hello", key=key).error
        assert status == 409
        assert "/v1/registries/ID/adopt" in message

        credentials = {"registry_username": "pusher", "registry_password": registry.users["pusher"]}
        change = {"registry_url": registry.host, **credentials}
        assert system.call("PUT", f"/v1/registries/{recorded['id']}", change).status == 200
        pushed = system.call("POST", f"{version}/registry", {"registry_id": recorded["id"]}, wait=60)
        assert pushed.status == 204
        assert system.call("POST", "/v1/algo/first/Echo/0.1", 2, key=key).json["result"] == {"echo": 2}
