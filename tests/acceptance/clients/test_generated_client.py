"""The generated client `algorithmia-api-client` 1.5.5, unmodified: it deploys, calls, and uses what else users had."""

from typing import Any

import pytest

from tests.acceptance.clients.deployment import SOURCE, run_script
from tests.acceptance.system import System
from tests.clients import generated_client_python

OWNER = "generated"


@pytest.fixture(scope="module")
def output(system: System, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the script printed that uses the client."""
    environment = {
        "API_ADDRESS": system.url,
        "API_KEY": system.owner_key(OWNER),
        "ADMIN_KEY": system.admin_key,
        "ALGORITHM": f"{OWNER}/Deployed",
        "WORK": str(tmp_path_factory.mktemp("deploy")),
        "SOURCE": SOURCE,
    }
    return run_script(generated_client_python(), "generated.py", environment)


def test_it_deploys_and_calls(output: Any) -> None:
    assert output["created"] == "Deployed"
    assert output["build"]["status"] == "succeeded"
    assert output["build"]["commit_sha"] == output["commit"]
    assert output["published"] == "0.1.0"
    assert output["called"]["result"] == {"echo": {"a": 1}}
    assert output["called_by_id"]["result"] == {"echo": [1]}
    assert output["called_later"]["request_id"]


def test_it_reads_and_changes(output: Any) -> None:
    commit, algorithm_id = output["commit"], output["updated"]["id"]
    assert output["logs"]["logs"]
    assert output["logs_by_id"]["logs"].startswith(output["logs"]["logs"])  # the load check adds its own later
    for builds in (output["builds"], output["builds_by_id"]):
        assert [build["build_id"] for build in builds["results"]] == [output["build"]["build_id"]]
    assert output["build_by_id"] == output["build"]
    assert [version["version_info"]["git_hash"] for version in output["versions"]["results"]] == [commit]
    for version in (output["version"], output["algorithm"], output["compiled_by_id"]):
        assert version["version_info"]["git_hash"] == commit
    assert output["algorithms"] == [{"id": algorithm_id, "algoname": "Deployed", "username": OWNER}]
    assert output["updated"]["details"]["label"] == "New label"
    assert (output["published_by_id"]["status"], output["after"]["status"]) == (400, 404)
    assert "is published as 0.1.0" in output["published_by_id"]["message"]
    assert output["deleted"] is None


def test_it_reads_errors_scms_and_keys(output: Any) -> None:
    assert output["errors"] == output["errors_by_id"] == []
    assert output["scm_status"]["scm_connection_status"] == "active"
    assert "internal" in [scm["provider"] for scm in output["scms"]["results"]]
    assert output["scm"] == output["scms"]["results"][0]
    assert output["new_key"]["api_key"].startswith("sim")
    assert [key["key_label"] for key in output["keys"]] == ["test"]
    assert output["registry"]["registry_url"] == "registry.example.com"


def test_what_is_not_there_says_so(output: Any) -> None:
    for part, words in (
        ("users", "first key"),
        ("organizations", "no organizations"),
        ("secrets", "no secret store"),
    ):
        assert output[part]["status"] == 404
        assert words in output[part]["message"]
    assert output["data"]["status"] == 400
    assert "not supported yet" in output["data"]["message"]


def test_what_fails_in_the_client_itself(output: Any) -> None:
    """Keep docs/compatibility.md true: what the client refuses before or after it talked to the interface."""
    assert "`_async`" in output["called_for_a_model"]["refused"]
    assert "must conform to the pattern" in output["called_by_hash"]["refused"]
    assert output["errors_for_a_model"] == {"logs": None}  # one object, where a list is sent
    assert "must conform to the pattern" in output["errors_of_owner"]["refused"]
    assert "less than or equal to `30`" in output["algorithm_by_id"]["refused"]
