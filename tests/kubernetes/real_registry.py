"""The registry that an operator names for tests on a real cluster: this machine's engine and the nodes reach it."""

import base64
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from shared.registry.credentials import Credentials


@dataclass(frozen=True)
class TestRegistry:
    """Where it is, and with what it is written and read."""

    __test__ = False  # its name is no test's

    url: str
    credentials: Credentials

    @classmethod
    def named(cls) -> "TestRegistry | None":
        """The one in the environment."""
        url = os.environ.get("LONGSHORE_TEST_REGISTRY")
        if not url:
            return None
        username = os.environ["LONGSHORE_TEST_REGISTRY_USERNAME"]
        return cls(url, Credentials(username, os.environ["LONGSHORE_TEST_REGISTRY_PASSWORD"]))

    def delete(self, image: str, directory: Path) -> None:
        """Delete an image from it, which it has to allow; `directory` is for the credentials."""
        credentials = self.credentials
        pair = base64.b64encode(f"{credentials.username}:{credentials.password}".encode()).decode()
        file = directory / "auth.json"
        file.write_text(json.dumps({"auths": {image.partition("/")[0]: {"auth": pair}}}))
        subprocess.run(
            ["skopeo", "delete", "--authfile", file, "--tls-verify=false", f"docker://{image}"],
            check=True,
            capture_output=True,
        )
