"""npm's client, unmodified. It has calls only, and methods of hosted data, which answer that there is none."""

from pathlib import Path

from tests.acceptance.clients.deployment import FORMS_OF_VERSION, deploy, run_script
from tests.acceptance.system import System
from tests.clients import node_client_modules


def test_it_calls_in_every_form(system: System, tmp_path: Path) -> None:
    deployed = deploy(system, "node", tmp_path)
    versions = ",".join((*FORMS_OF_VERSION, deployed.output["commit"]))
    environment = {**deployed.environment, "NODE_PATH": str(node_client_modules()), "VERSIONS": versions}
    output = run_script("node", "calls.js", environment)
    assert output["json"] == {"echo": {"a": [1, None]}}
    assert output["text"] == "text"
    assert output["binary"] == "00ff"
    assert output["written"] == {"echo": {"b": 2}}
    assert output["types"] == ["json", "text"]
    assert output["raised"] == "error: as asked"
    assert "No such algorithm" in output["unknown"]
    assert output["status"] == 404
    assert set(output["versions"].values()) == {"x"}, output["versions"]
    assert output["environment"] == "x"
    assert "not supported yet" in output["hosted"]
