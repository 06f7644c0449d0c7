"""Compiles and publishes with the Python client."""

import json
import os
import time

import Algorithmia

client = Algorithmia.client(os.environ["API_KEY"], os.environ["API_ADDRESS"])
algorithm = client.algo(os.environ["ALGORITHM"])
compiled = algorithm.compile()
build_id = compiled["build"]["build_id"]
deadline = time.monotonic() + 120
while algorithm.get_build(build_id)["status"] == "in-progress" and time.monotonic() < deadline:
    time.sleep(0.2)
output = {
    "compile": compiled,
    "build": algorithm.get_build(build_id),
    "logs": algorithm.get_build_logs(build_id),
    "builds": len(algorithm.get_builds()["results"]),
    "published": algorithm.publish(
        settings={"algorithm_callability": os.environ["CALLABILITY"]},
        version_info={"version_type": "minor", "release_notes": "More.", "sample_input": "1"},
    ),
}
print(json.dumps(output))
