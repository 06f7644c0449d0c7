"""Does what the platform's CI actions do after a git push: find the build, wait, test by hash, publish.

The push has happened just before, and compiles. Nothing else does.
"""

import json
import os
import time
from typing import Any

import Algorithmia
import requests

address, key, name, commit = (os.environ[each] for each in ("API_ADDRESS", "API_KEY", "ALGORITHM", "COMMIT"))
client = Algorithmia.client(key, address)
algorithm = client.algo(f"{name}/{commit}")


def get(path: str) -> Any:
    answer = requests.get(
        f"{address}/v1/algorithms/{name}/{path}", headers={"authorization": f"Simple {key}"}, timeout=60
    )
    answer.raise_for_status()
    return answer.json()


def value(answer: Any, *path: str) -> Any:
    """Return a field of an answer: older clients answer with objects, newer ones with dictionaries."""
    for field in path:
        answer = answer[field] if isinstance(answer, dict) else getattr(answer, field)
    return answer


page = get("builds?limit=10")
while not (found := [build for build in page["results"] if commit in build["commit_sha"]]):
    page = get(f"builds?limit=10&marker={page['marker']}")
build_id = found[0]["build_id"]
deadline = time.monotonic() + 240
while (build := get(f"builds/{build_id}"))["status"] == "in-progress" and time.monotonic() < deadline:
    time.sleep(0.5)
version_info = {"version_type": "revision", "release_notes": "deployed by CI"}
tested = client.algo(f"{name}/{commit}").pipe([1]).result
published = algorithm.publish(settings=json.loads(os.environ["SETTINGS"]), version_info=version_info)
output = {
    "status": build["status"],
    "logs": get(f"builds/{build_id}/logs")["logs"],
    "tested": tested,
    "latest": client.algo(f"{name}/latest").pipe([2]).result,
    "published": value(published, "version_info", "semantic_version"),
    "callability": value(published, "settings", "algorithm_callability"),
    "listed": get("versions?published=true&limit=1")["results"][0]["version_info"]["semantic_version"],
}
print(json.dumps(output))
