"""Run schemathesis on a running Longshore, with its address and a key only."""

import re
import subprocess
import sys
from pathlib import Path

from tests.service.cli.running import Up

CONFIGURATION = Path(__file__).parents[2] / "schemathesis.toml"
GENERATED = re.compile(r"^ *(\d+) generated", re.MULTILINE)


def run_schemathesis(up: Up, directory: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    """Run every check of schemathesis, in `directory`."""
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIGURATION), "run"]
    command += [f"{up.url}/openapi.json", "--header", f"Authorization: Simple {up.admin_key}", "--no-color"]
    return subprocess.run([*command, *options], cwd=directory, capture_output=True, text=True, check=False)


def examples_in(report: str) -> int:
    """Return the number of requests in a report."""
    found = GENERATED.search(report)
    return int(found[1]) if found else 0
