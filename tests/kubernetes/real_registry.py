"""The registry for tests on a real cluster, which this machine's engine and the nodes reach."""

import base64
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from shared.registry.credentials import Credentials


@dataclass(frozen=True)
class NamedRegistry:
    """Its host and port, and the credentials for pushing and pulling."""

    __test__ = False  # its name is no test's

    url: str
    credentials: Credentials

    @classmethod
    def named(cls) -> "NamedRegistry | None":
        """Return the registry that the environment names; None if a variable is missing."""
        names = ("LONGSHORE_TEST_REGISTRY", "LONGSHORE_TEST_REGISTRY_USERNAME", "LONGSHORE_TEST_REGISTRY_PASSWORD")
        url, username, password = (os.environ.get(name, "") for name in names)
        return cls(url, Credentials(username, password)) if url and username and password else None

    def delete(self, image: str, directory: Path) -> None:
        """Delete an image, which the registry must allow; the credentials are written to `directory`."""
        credentials = self.credentials
        pair = base64.b64encode(f"{credentials.username}:{credentials.password}".encode()).decode()
        file = directory / "auth.json"
        file.write_text(json.dumps({"auths": {image.partition("/")[0]: {"auth": pair}}}))
        subprocess.run(
            ["skopeo", "delete", "--authfile", file, "--tls-verify=false", f"docker://{image}"],
            check=True,
            capture_output=True,
        )
