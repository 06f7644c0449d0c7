"""Deploys and calls an algorithm with the generated client, and uses its other methods that the platform's users had.

It prints what each returned, or the status and message of its error.
"""

import json
import os
import subprocess
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote_plus

import algorithmia_api_client as generated

address, key = os.environ["API_ADDRESS"], os.environ["API_KEY"]
owner, name = os.environ["ALGORITHM"].split("/")


def api(secret: str) -> Any:
    configuration = generated.Configuration(host=address)
    configuration.api_key["Authorization"] = secret
    configuration.api_key_prefix["Authorization"] = "Simple"
    client = generated.ApiClient(configuration)
    # Its calls for keys, registries and organizations know the platform's session cookie only.
    client.set_default_header("Authorization", f"Simple {secret}")
    return client


def git(*arguments: str) -> str:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    return subprocess.check_output(["git", *identity, *arguments], cwd=os.environ.get("CLONE"), text=True).strip()


def outcome(method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Return what a method returned, as JSON can have it, or its error."""
    try:
        answer = method(*arguments, **options)
    except generated.ApiException as error:
        return {"status": error.status, "message": json.loads(error.body)["error"]["message"]}
    except (generated.ApiValueError, ValueError) as error:
        return {"refused": str(error)}
    if options.get("_preload_content") is False:
        return json.loads(answer.data)
    answers = answer if isinstance(answer, list) else [answer]
    plain = [each.to_dict() if hasattr(each, "to_dict") else each for each in answers]
    return json.loads(json.dumps(plain if isinstance(answer, list) else plain[0], default=str))


client, admin = api(key), api(os.environ["ADMIN_KEY"])
algorithms, builds, scms = generated.AlgorithmsApi(client), generated.BuildsApi(client), generated.ScmApi(client)
created = algorithms.create_algorithm(
    owner,
    generated.CreateRequest(
        name=name,
        details=generated.Details(label="Generated"),
        settings=generated.SettingsMandatory(
            source_visibility="closed",
            license="apl",
            network_access="full",
            pipeline_enabled=True,
            language="python3-1",
        ),
    ),
)
remote = address.replace("://", f"://{owner}:{quote_plus(key)}@")
directory = os.path.join(os.environ["WORK"], name)
subprocess.run(["git", "clone", "--quiet", f"{remote}/git/{owner}/{name}.git", directory], check=True)
os.environ["CLONE"] = directory
with open(os.path.join(directory, "src", f"{name}.py"), "w") as source:
    source.write(os.environ["SOURCE"])
git("commit", "--quiet", "--all", "--message", "Add algorithm files")
git("push", "--quiet")
commit = git("rev-parse", "HEAD")

build_id = builds.compile_algorithm(owner, name).build.build_id
deadline = time.monotonic() + 240
while builds.get_algorithm_build_by_id(owner, name, build_id).status == "in-progress" and time.monotonic() < deadline:
    time.sleep(0.3)
published = algorithms.publish_algorithm(
    owner,
    name,
    generated.VersionRequest(
        settings=generated.SettingsPublish(algorithm_callability="private"),
        version_info=generated.VersionInfoPublish(version_type="minor", insights_enabled=False),
    ),
)
version = published.version_info.semantic_version
scm_id = scms.list_scms().results[0].id
wanted = generated.BuildRequest(commit_sha=commit, ssh_private_key="")
new_key = generated.ApiKeyCreation(key_label="second", key_type="AlgorithmKey")
registry = generated.Registry(registry_url="registry.example.com", registry_auth="cHVzaGVyOnNlY3JldA==", name="second")
label = generated.UpdateRequest(details=generated.Details(label="New label"))
output = {
    "created": created.name,
    "commit": commit,
    "published": version,
    "build": outcome(builds.get_algorithm_build_by_id, owner, name, build_id),
    "logs": outcome(builds.get_algorithm_build_logs, owner, name, build_id),
    "builds": outcome(builds.get_algorithm_builds, owner, name),
    "called": outcome(algorithms.call_algorithm, owner, name, version, {"a": 1}, _preload_content=False),
    "called_by_id": outcome(algorithms.call_algorithm_by_id, created.id, "", [1], _preload_content=False),
    "called_for_a_model": outcome(algorithms.call_algorithm, owner, name, version, "text"),
    "called_later": outcome(algorithms.call_algorithm, owner, name, "latestPrivate", "text", output="void"),
    "called_by_hash": outcome(algorithms.call_algorithm, owner, name, commit, "text"),
    "algorithm": outcome(algorithms.get_algorithm, owner, name),
    "versions": outcome(algorithms.get_algorithm_versions, owner, name),
    "version": outcome(algorithms.get_algorithm_hash_version, owner, name, commit),
    "algorithms": outcome(algorithms.list_algorithms_for_user, owner),
    "updated": outcome(algorithms.update_algorithm, owner, name, label),
    "builds_by_id": outcome(algorithms.get_algorithm_by_id_builds, created.id),
    "build_by_id": outcome(algorithms.get_algorithm_by_id_build_by_id, created.id, build_id),
    "logs_by_id": outcome(algorithms.get_algorithm_by_id_build_logs, created.id, build_id),
    "compiled_by_id": outcome(algorithms.compile_algorithm_by_id, created.id, wanted),
    "published_by_id": outcome(algorithms.publish_algorithm_by_id, created.id, generated.VersionRequest()),
    "errors": outcome(algorithms.get_algorithm_errors_by_algorithm_name, owner, name, _preload_content=False),
    "errors_by_id": outcome(algorithms.get_algorithm_errors_by_algorithm_id, created.id, _preload_content=False),
    "errors_for_a_model": outcome(algorithms.get_algorithm_errors_by_algorithm_id, created.id),
    "errors_of_owner": outcome(algorithms.get_algorithm_errors_by_user_id, owner),
    "algorithm_by_id": outcome(algorithms.get_algorithm_by_id, created.id),
    "scm_status": outcome(algorithms.get_algorithm_scm_connection_status, owner, name),
    "scms": outcome(scms.list_scms),
    "scm": outcome(scms.get_scm, scm_id),
    "commit_log": outcome(algorithms.commit_log_for_repository, owner, name),
    "keys": outcome(generated.AuthApi(client).get_keys_for_user, owner),
    "new_key": outcome(generated.AuthApi(client).create_key_for_user, owner, new_key),
    "registry": outcome(generated.RegistriesApi(admin).create_registry, registry),
    "users": outcome(generated.UsersApi(admin).get_users),
    "organizations": outcome(generated.OrganizationsApi(admin).get_organizations),
    "secrets": outcome(algorithms.get_algorithm_secrets, created.id),
    "data": outcome(generated.DataApi(client).get_file_or_directory, "s3", "bucket/key"),
    "deleted": outcome(algorithms.delete_algorithm, owner, name),
    "after": outcome(algorithms.get_algorithm, owner, name),
}
print(json.dumps(output))
