"""The Python client in each of its published forms, unmodified: it deploys, calls and reads."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.clients.deployment import FORMS_OF_VERSION, SOURCE, Deployment, deploy, run_script
from tests.acceptance.system import Repository, System
from tests.clients import PYTHON_CLIENTS, published_client_python

LIST_NOTHING = ("1.13.1", "1.17.0")
_OLD = {
    "versions": "OneOfVersionResponse",
    "builds": "OneOfBuild",
    "create_org": "TypeError",
    "username": "StopIteration",
}
FAILS_IN_CLIENT = {
    "1.13.1": _OLD,
    "1.17.0": _OLD,
    "2.0.5": {
        "update": "<Response [415]>",
        "create": "<Response [409]>",
        "create_org": "TypeError",
        "username": "StopIteration",
    },
}
"""By version: methods that fail in the client, and words of their errors."""


@pytest.fixture(scope="module", params=PYTHON_CLIENTS)
def version(request: pytest.FixtureRequest) -> str:
    """A version of the client."""
    return str(request.param)


@pytest.fixture(scope="module")
def deployed(system: System, version: str, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """An algorithm that this version of the client deployed."""
    return deploy(system, f"python_{version.replace('.', '_')}", tmp_path_factory.mktemp("deploy"), version)


@pytest.fixture(scope="module")
def read(system: System, deployed: Deployment, version: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the other methods of this version returned."""
    name, commit = deployed.environment["ALGORITHM"], deployed.output["commit"]
    algorithm = system.call("GET", f"/v1/algorithms/{name}/versions/{commit}").json
    system.call("POST", f"/v1/algo/{name}", "raise")
    deadline = time.monotonic() + 120
    while not system.call("GET", f"/v1/algorithms/{name}/errors").json and time.monotonic() < deadline:
        time.sleep(0.2)  # it is written beside the call
    given = {
        "ALGORITHM_ID": algorithm["id"],
        "BUILD": algorithm["build"]["build_id"],
        "WORK": str(tmp_path_factory.mktemp("read")),
    }
    return run_script(published_client_python(version), "reads.py", deployed.environment | given)


def test_it_deploys_and_calls(deployed: Deployment, version: str) -> None:
    output = deployed.output
    assert output["created"] == "Deployed"
    assert (output.get("existed"), output.get("exists")) == ((False, True) if version == "2.0.5" else (None, None))
    assert {"src/Deployed.py", "requirements.txt", "algorithmia.conf"} <= set(output["template"])
    assert output["compiled"] is True
    assert output["build"] == "succeeded"
    assert output["called_by_hash"] == {"echo": {"a": [1, None]}}
    assert output["published"] == "0.1.0"
    assert output["called"] == "two"


def test_it_calls_in_every_form(deployed: Deployment, version: str) -> None:
    versions = ",".join((*FORMS_OF_VERSION, deployed.output["commit"]))
    output = run_script(published_client_python(version), "calls.py", deployed.environment | {"VERSIONS": versions})
    assert output["results"] == [str({"echo": {"a": [1, None]}}), "text", str(b"\x00\xff")]
    assert output["types"] == ["json", "text", "binary"]
    assert output["raised"].startswith("AlgorithmException")
    assert "as asked" in output["raised"]
    assert "Exception" in output["unknown"]
    assert set(output["versions"].values()) == {"x"}, output["versions"]
    assert output["prefixed"] == "x"
    assert ("TypeError" in output["shown"]) == (version == "1.2.1")  # its __repr__ returns bytes
    assert output["printed"] == "printed\n"
    assert output["raw"] == "bare"
    assert output["later"] == "succeeded"


def test_it_reads_and_changes(read: Any, deployed: Deployment, version: str) -> None:
    commit = deployed.output["commit"]
    info = read["info"]["results"][0] if version == "2.0.5" else read["info"]
    assert info["version_info"]["git_hash"] == commit
    if version not in LIST_NOTHING:
        assert [each["version_info"]["git_hash"] for each in read["versions"]["results"]] == [commit]
    if version != "2.0.5":
        assert read["update"]["details"]["label"] == "Updated"
    if version != "1.2.1":  # it has no method for builds
        builds = read["get_builds" if version == "2.0.5" else "build_logs"]["results"]
        assert [(build["commit_sha"], build["status"]) for build in builds] == [(commit, "succeeded")]
        assert read["get_build"]["build_id"] == builds[0]["build_id"]
        assert read["get_build_logs"]["logs"]


def test_it_reads_what_clients_ask_for(read: Any, version: str) -> None:
    assert read["listed"] == []
    if version == "1.2.1":  # it has none of these methods
        return
    assert read["get_scm_status"]["scm_connection_status"] == "active"
    assert "python3" in [language["name"] for language in read["get_supported_languages"]]
    assert read["get_environment"]["environments"][0]["id"]
    assert {"requirements.txt", "src/__init__.py"} <= set(read["template"])
    for errors in (read["get_algorithm_errors"], read["get_user_errors"]):
        assert any("as asked" in error["logs"] for error in errors), errors
    if version == "2.0.5":
        assert "internal" in [scm["provider"] for scm in read["scms"]["results"]]


def test_what_is_not_there_says_so(read: Any, version: str) -> None:
    assert read["directory"]["exists"] is False
    assert read["file"]["exists"] is False
    assert "not supported yet" in read["file"]["getString"]
    if version != "1.2.1":
        assert "no organizations" in read["get_org"]["error"]["message"]
    if version == "2.0.5":
        assert "no secret store" in read["set_secret"]


def test_what_fails_in_the_client_itself(read: Any, version: str) -> None:
    """Keep docs/compatibility.md true."""
    failing = {method: answer for method, answer in read.items() if method in FAILS_IN_CLIENT.get(version, {})}
    assert failing.keys() == FAILS_IN_CLIENT.get(version, {}).keys()
    for method, words in FAILS_IN_CLIENT.get(version, {}).items():
        assert words in str(failing[method]), method


def test_ci_actions_find_a_build_test_and_publish_it(deployed: Deployment, version: str) -> None:
    clone = Repository(Path(deployed.environment["WORK"]) / "Deployed", "origin")
    for number, settings in enumerate(({"algorithm_callability": "public"}, {}), start=1):
        clone.write({"src/Deployed.py": f"{SOURCE}# {number}\n"})
        given = {"COMMIT": clone.commit(), "SETTINGS": json.dumps(settings)}
        clone.git("push", "--quiet")
        output = run_script(published_client_python(version), "ci.py", deployed.environment | given)
        assert output["status"] == "succeeded", output["logs"]
        assert output["tested"] == {"echo": [1]}
        assert output["published"] == output["listed"] == f"0.1.{number}"
        assert output["callability"] == "public"
        assert output["latest"] == {"echo": [2]}
