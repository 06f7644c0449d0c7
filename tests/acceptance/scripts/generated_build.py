"""Compiles, publishes, reads, updates and deletes with the generated client."""

import json
import os
import time

import algorithmia_api_client as generated

configuration = generated.Configuration(host=os.environ["API_ADDRESS"])
configuration.api_key["Authorization"] = os.environ["API_KEY"]
configuration.api_key_prefix["Authorization"] = "Simple"
client = generated.ApiClient(configuration)
# The client's key calls know the platform's session cookie only; a key has to be sent along by hand.
client.set_default_header("Authorization", f"Simple {os.environ['API_KEY']}")
owner, name = os.environ["OWNER"], "Generated"
algorithms, builds = generated.AlgorithmsApi(client), generated.BuildsApi(client)

compiled = builds.compile_algorithm(owner, name)
build_id = compiled.build.build_id
deadline = time.monotonic() + 120
while builds.get_algorithm_build_by_id(owner, name, build_id).status == "in-progress" and time.monotonic() < deadline:
    time.sleep(0.2)
published = algorithms.publish_algorithm(
    owner,
    name,
    generated.VersionRequest(
        settings=generated.SettingsPublish(algorithm_callability="private"),
        version_info=generated.VersionInfoPublish(version_type="revision", insights_enabled=False),
    ),
)
algorithms.update_algorithm(owner, name, generated.UpdateRequest(details=generated.Details(label="New label")))
listed = algorithms.get_algorithm_versions(owner, name)
output = {
    "build_status": builds.get_algorithm_build_by_id(owner, name, build_id).status,
    "logs": builds.get_algorithm_build_logs(owner, name, build_id).logs,
    "builds": len(builds.get_algorithm_builds(owner, name).results),
    "published": published.version_info.semantic_version,
    "versions": [version.version_info.git_hash for version in listed.results],
    "label_after_update": algorithms.get_algorithm(owner, name).details.label,
    "algorithms": [algorithm.algoname for algorithm in algorithms.list_algorithms_for_user(owner)],
    "keys": len(generated.AuthApi(client).get_keys_for_user(owner)),
}
algorithms.delete_algorithm(owner, name)
try:
    algorithms.get_algorithm(owner, name)
    output["deleted"] = False
except generated.ApiException as error:
    output["deleted"] = error.status == 404
print(json.dumps(output))
