"""The published clients, unmodified, each in its own virtual environment."""

import json
import subprocess
from pathlib import Path
from typing import Any

from dev.services.registry import PrivateRegistry
from tests.acceptance.system import ECHO, System, repository
from tests.clients import generated_client_python, published_client_python

SCRIPTS = Path(__file__).parent / "scripts"


def run_script(python: Path, script: str, **given: str) -> Any:
    """Run a script; return its last line of output, parsed as JSON."""
    done = subprocess.run(
        [python, SCRIPTS / script],
        env={"PATH": "/usr/bin:/bin", **given},
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_python_client(system: System, tmp_path: Path, owner: str, owner_key: str) -> None:
    python = published_client_python()
    given = {"API_ADDRESS": system.url, "API_KEY": owner_key, "ALGORITHM": f"{owner}/Client"}
    created = run_script(python, "create.py", **given)
    assert created["before"] is False
    assert created["after"] is True
    assert created["created"]["name"] == "Client"

    clone = repository(system, tmp_path / "clone", f"{owner}/Client", owner_key)
    commits = []
    for number in range(3):
        clone.write({"src/Client.py": ECHO, "number": str(number)})
        commits.append(clone.commit())
        clone.push()
        callability = "public" if number == 1 else "private"
        compiled = run_script(python, "compile_and_publish.py", **given, CALLABILITY=callability)
        assert compiled["compile"]["build"]["status"] in ("in-progress", "succeeded")
        assert compiled["build"]["status"] == "succeeded", compiled["logs"]
        assert compiled["build"]["commit_sha"] == commits[-1]
        assert "logs" in compiled["logs"]
        assert compiled["published"]["version_info"]["semantic_version"] == f"0.{number + 1}.0"
        assert compiled["builds"] == number + 1

    read = run_script(python, "read_versions.py", **given)
    assert read["pages"] == [[commits[2], commits[1]], [commits[0]]]
    assert read["published"] == commits[::-1]
    assert read["callable"] == [commits[1]]
    assert read["info"] == commits[::-1]
    assert read["info_of_one"] == compiled["published"]["version_info"]["git_hash"] == commits[-1]


def test_the_generated_client(
    system: System, tmp_path: Path, second_registry: PrivateRegistry, owner: str, owner_key: str
) -> None:
    python = generated_client_python()
    given = {
        "API_ADDRESS": system.url,
        "API_KEY": owner_key,
        "ADMIN_KEY": system.admin_key,
        "OWNER": owner,
        "REGISTRY_URL": second_registry.host,
        "PASSWORD": second_registry.users["pusher"],
    }
    created = run_script(python, "generated_create.py", **given)
    assert created["registry_url"] == second_registry.host
    check = system.call("POST", f"/v1/registries/{created['registry_id']}/check")
    assert check.json["can_push"] is True, check.text

    clone = repository(system, tmp_path / "clone", f"{owner}/Generated", owner_key)
    clone.write({"src/Generated.py": ECHO})
    commit = clone.commit()
    clone.push()
    seen = run_script(python, "generated_build.py", **given)
    assert seen["build_status"] == "succeeded"
    assert seen["logs"]
    assert seen["published"] == "0.0.1"
    assert seen["versions"] == [commit]
    assert seen["label_after_update"] == "New label"
    assert seen["algorithms"] == ["Generated"]
    assert seen["keys"] >= 1
    assert seen["deleted"] is True
