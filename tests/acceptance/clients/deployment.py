"""An algorithm that a published client deployed, and scripts that run with that client."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.acceptance.system import System
from tests.clients import published_client_python

SCRIPTS = Path(__file__).parent / "scripts"
SCRIPT_TIMEOUT_SECONDS = 600

FORMS_OF_VERSION = ("0.1.0", "0.1", "0", "0.1.*", "0.*", "0.1.x", "0.x", "latestPrivate", "")
"""How a call can name the first version that was published."""

SOURCE = """\
from Algorithmia import ADK


def apply(given):
    if given == "raise":
        raise ValueError("as asked")
    print("printed")
    return given if isinstance(given, (str, bytes, bytearray)) else {"echo": given}


algorithm = ADK(apply)
algorithm.init("Algorithmia")
"""


@dataclass(frozen=True)
class Deployment:
    """An algorithm that a published client deployed."""

    environment: dict[str, str]
    """What its scripts get: the address, the key, the algorithm's name."""
    output: Any
    """What the script that deployed it printed."""


def deploy(system: System, owner: str, work: Path, version: str = "2.0.5") -> Deployment:
    """Deploy `OWNER/Deployed` with a version of the Python client."""
    environment = {
        "API_ADDRESS": system.url,
        "API_KEY": system.owner_key(owner),
        "ALGORITHM": f"{owner}/Deployed",
        "WORK": str(work),
        "SOURCE": SOURCE,
    }
    return Deployment(environment, run_script(published_client_python(version), "deploy.py", environment))


def run_script(interpreter: Path | str, script: str, environment: dict[str, str]) -> Any:
    """Run a script; return its last line of output, parsed as JSON."""
    done = subprocess.run(
        [interpreter, SCRIPTS / script],
        env={"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_TERMINAL_PROMPT": "0", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=SCRIPT_TIMEOUT_SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])
