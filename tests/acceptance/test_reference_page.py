"""Every request of the page that describes the feature, sent with curl as it is printed there.

Two of its examples have an unbalanced quote or brace, which are mended here.
"""

import json
import subprocess
from pathlib import Path

from dev.services.registry import PrivateRegistry
from tests.acceptance.system import ECHO, System, repository

RECORD = """curl https://YOUR-SERVER-NAME.com/v1/registries \\
    -X POST \\
    -H "Authorization: Simple CLUSTER_ADMIN_API_KEY" \\
    -H "Content-Type: application/json" \\
    -d '{
      "registry_url": "REGISTRY_URL",
      "registry_username": "REGISTRY_USERNAME",
      "registry_password": "REGISTRY_PASSWORD",
      "name": "REGISTRY_NAME"
    }'"""
MODIFY = """curl https://YOUR-SERVER-NAME.com/v1/registries/REGISTRY_ID \\
    -X PUT \\
    -H "Authorization: Simple CLUSTER_ADMIN_API_KEY" \\
    -H "Content-Type: application/json" \\
    -d '{
      "registry_url": "REGISTRY_URL",
      "registry_username": "REGISTRY_USERNAME",
      "registry_password": "REGISTRY_PASSWORD",
      "name": "REGISTRY_NAME"
    }'"""
COMPILE = """curl https://YOUR-SERVER-NAME.com/v1/algorithms/ALGO_ID/compile \\
    -X POST \\
    -H "Authorization: Simple STD_API_KEY" \\
    -H "Content-Type: application/json" \\
    -d '{
      "registry_push_credentials": {
        "registry_username": "REGISTRY_USERNAME",
        "registry_password": "REGISTRY_PASSWORD",
        "registry_id": "REGISTRY_ID"
      }
}'"""
PUBLISH = """curl https://YOUR-SERVER-NAME.com/v1/algorithms/ALGO_OWNER/ALGO_NAME/version \\
    -X POST \\
    -H "Authorization: Simple STD_API_KEY" \\
    -H "Content-Type: application/json" \\
    -d '{
      "settings": {
        "algorithm_callability": "private"
      },
      "version_info": {
        "version_type": "minor",
        "release_notes": "A few bug fixes.",
        "sample_input": "42"
      },
      "registry_push_credentials": {
        "registry_username": "REGISTRY_USERNAME",
        "registry_password": "REGISTRY_PASSWORD",
        "registry_id": "REGISTRY_ID"
      }
    }'"""
REPUSH = """curl https://YOUR-SERVER-NAME.com/v1/algorithms/ALGO_ID/versions/ALGO_VERSION_HASH/registry \\
    -X POST \\
    -H "Authorization: Simple STD_API_KEY" \\
    -H "Content-Type: application/json" \\
    -d '{
      "registry_push_credentials": {
        "registry_username": "REGISTRY_USERNAME",
        "registry_password": "REGISTRY_PASSWORD",
        "registry_id": "REGISTRY_ID"
      }
    }'"""
STATUS = """curl https://YOUR-SERVER-NAME.com/v1/algorithms/ALGO_ID/versions/ALGO_VERSION_HASH/registry \\
    -H "Authorization: Simple STD_API_KEY" """
DELETE = """curl https://YOUR-SERVER-NAME.com/v1/registries/REGISTRY_ID \\
    -X DELETE \\
    -H "Authorization: Simple CLUSTER_ADMIN_API_KEY\""""


def test_every_request_of_the_page(
    system: System, tmp_path: Path, second_registry: PrivateRegistry, owner: str, owner_key: str
) -> None:
    values = {
        "https://YOUR-SERVER-NAME.com": system.url,
        "CLUSTER_ADMIN_API_KEY": system.admin_key,
        "STD_API_KEY": owner_key,
        "REGISTRY_URL": second_registry.host,
        "REGISTRY_USERNAME": "pusher",
        "REGISTRY_PASSWORD": second_registry.users["pusher"],
        "REGISTRY_NAME": "scanned",
        "ALGO_OWNER": owner,
        "ALGO_NAME": "PageExample",
    }

    def curl(printed: str, wait: int | None = None) -> tuple[int, str]:
        command = printed
        for name in sorted(values, key=len, reverse=True):
            command = command.replace(name, values[name])
        command += ' --silent --show-error --write-out "\\n%{http_code}"'
        if wait is not None:
            command += f' -H "Prefer: wait={wait}"'
        sent = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True, timeout=120)
        body, _, status = sent.stdout.rpartition("\n")
        return int(status), body

    status, body = curl(RECORD)
    registry = json.loads(body)
    assert status == 200
    assert registry["registry_url"] == second_registry.host
    assert registry["name"] == "scanned"
    assert second_registry.users["pusher"] not in body
    values["REGISTRY_ID"] = registry["id"]

    values["REGISTRY_NAME"] = "renamed"
    status, body = curl(MODIFY)
    assert (status, json.loads(body)["id"], json.loads(body)["name"]) == (200, registry["id"], "renamed")

    system.create_algorithm(owner, "PageExample")
    values["ALGO_ID"] = system.call("GET", f"/v1/algorithms/{owner}/PageExample").json["id"]
    clone = repository(system, tmp_path / "clone", f"{owner}/PageExample", owner_key)
    clone.write({"src/PageExample.py": ECHO})
    values["ALGO_VERSION_HASH"] = commit = clone.commit()
    clone.push()

    status, body = curl(COMPILE, wait=60)
    compiled = json.loads(body)
    assert status == 200
    assert compiled["build"]["status"] == "succeeded", system.call(
        "GET", f"/v1/algorithms/{owner}/PageExample/builds/{compiled['build']['build_id']}/logs"
    ).text
    assert compiled["build"]["registry_status"]["status"] == "succeeded"

    status, body = curl(PUBLISH, wait=60)
    assert (status, json.loads(body)["version_info"]["semantic_version"]) == (200, "0.1.0")

    status, body = curl(PUBLISH.replace("ALGO_OWNER/ALGO_NAME/version", "ALGO_ID/versions"))
    assert (status, json.loads(body)["error"]["code"]) == (400, 1007)

    assert curl(REPUSH, wait=60) == (204, "")

    status, body = curl(STATUS)
    (pushed,) = json.loads(body)
    assert status == 200
    assert (pushed["registry_id"], pushed["status"]) == (registry["id"], "succeeded"), pushed
    assert pushed["image"] == f"{second_registry.host}/{owner}/pageexample:{commit}"

    status, _ = curl(DELETE)
    assert status == 200
    assert system.call("GET", f"/v1/registries/{registry['id']}").error[:2] == (404, 5004)
