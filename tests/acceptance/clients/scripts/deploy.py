"""Deploys an algorithm as published deploy scripts do, with any version of the Python client.

It creates the algorithm, clones its repository with the key in the URL, writes into `src/`, pushes, waits for the
build, publishes and calls.
"""

import json
import os
import subprocess
import time
from typing import Any
from urllib.parse import quote_plus

import Algorithmia

address, key, name = os.environ["API_ADDRESS"], os.environ["API_KEY"], os.environ["ALGORITHM"]
owner, algoname = name.split("/")
client = Algorithmia.client(key, address)
algorithm = client.algo(name)


def value(answer: Any, *path: str) -> Any:
    """Return a field of an answer: older clients answer with objects, newer ones with dictionaries."""
    for field in path:
        answer = answer[field] if isinstance(answer, dict) else getattr(answer, field)
    return answer


def git(*arguments: str) -> str:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    return subprocess.check_output(["git", *identity, *arguments], cwd=os.environ.get("CLONE"), text=True).strip()


def build_status(build_id: str, commit: str) -> Any:
    if hasattr(algorithm, "get_build"):
        return value(algorithm.get_build(build_id), "status")
    return value(algorithm.info(commit), "build", "status")


output: dict[str, Any] = {}
if hasattr(algorithm, "exists"):
    output["existed"] = algorithm.exists()
created = algorithm.create(
    details={"label": "Deployed", "summary": "A test", "tagline": "Test"},
    settings={
        "language": "python3-1",
        "source_visibility": "closed",
        "license": "apl",
        "network_access": "full",
        "pipeline_enabled": True,
        "environment": "cpu",
    },
)
output["created"] = value(created, "name")
if hasattr(algorithm, "exists"):
    output["exists"] = algorithm.exists()

remote = address.replace("://", f"://{owner}:{quote_plus(key)}@")
directory = os.path.join(os.environ["WORK"], algoname)
subprocess.run(["git", "clone", "--quiet", f"{remote}/git/{name}.git", directory], check=True)
os.environ["CLONE"] = directory
output["template"] = sorted(git("ls-files").split())
with open(os.path.join(directory, "src", f"{algoname}.py"), "w") as source:
    source.write(os.environ["SOURCE"])
git("add", "--update")
git("commit", "--quiet", "--message", "Add algorithm files")
git("push", "--quiet")
commit = git("rev-parse", "HEAD")

compiled = algorithm.compile()
output["compiled"] = value(compiled, "version_info", "git_hash") == commit
build_id = value(compiled, "build", "build_id")
deadline = time.monotonic() + 240
while build_status(build_id, commit) == "in-progress" and time.monotonic() < deadline:
    time.sleep(0.3)
output["build"] = build_status(build_id, commit)
output["called_by_hash"] = client.algo(f"{name}/{commit}").pipe({"a": [1, None]}).result
published = algorithm.publish(
    details={"label": "Published"},
    settings={"algorithm_callability": "private"},
    version_info={"version_type": "minor", "release_notes": "First.", "sample_input": '"one"'},
)
output["published"] = value(published, "version_info", "semantic_version")
output["called"] = client.algo(name).pipe("two").result
output["commit"] = commit
print(json.dumps(output))
