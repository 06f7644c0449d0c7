"""The steps of the demo, as a caller does them: from a recorded registry to a call of the published version."""

import shutil
from pathlib import Path
from typing import Any

from dev.demo.caller import Caller, HttpResponse, StepFailedError
from dev.demo.environment import PULLER, PUSHER, REPOSITORY, DemoEnvironment, remove_images
from dev.demo.jobs import wait_for_job
from dev.demo.screen import Screen

ALGORITHM = "demo/LinearFit"
_SOURCE = Path(__file__).parent / "algorithm"
_JSON = '-H "Content-Type: application/json"'
_AS_ADMIN = f'\\\n  -H "Authorization: Simple $ADMIN_KEY" {_JSON}'
_AS_OWNER = f'\\\n  -H "Authorization: Simple $KEY" {_JSON}'
_POINTS = '{"x": [0, 1, 2, 3], "y": [1.5, 3.5, 5.5, 7.5]}'
_LINE = {"slope": 2.0, "intercept": 1.5, "r_squared": 1.0}
_STATUS = ("registry_id", "status", "status_message", "image", "digest", "attempt", "last_success")


def introduce(caller: Caller, screen: Screen, environment: DemoEnvironment) -> None:
    """Set the first variables of the commands."""
    registry = environment.registry
    screen.line()
    screen.line("The commands below use these variables; secrets are shown by name only:")
    caller.set_variable("URL", environment.url)
    caller.set_variable("REGISTRY", registry.host)
    caller.set_variable("ADMIN_KEY", environment.admin_key_file.read_text().strip(), secret=True)
    caller.set_variable("PULL_PASSWORD", registry.users[PULLER], secret=True)
    caller.set_variable("PUSH_PASSWORD", registry.users[PUSHER], secret=True)


def record_registry(caller: Caller) -> None:
    """Record the registry with credentials that may pull, and check credentials that may push."""
    caller.curl(
        f"""curl -sSi "$URL/v1/registries" {_AS_ADMIN} -d @- <<END
{{"registry_url": "http://$REGISTRY", "plain_http": true, "name": "demo",
 "registry_username": "{PULLER}", "registry_password": "$PULL_PASSWORD"}}
END""",
        ["id", "name", "registry_url", "has_credentials"],
        variables={"REGISTRY_ID": "id"},
    )
    checked = caller.curl(
        f"""curl -sSi "$URL/v1/registries/$REGISTRY_ID/check" {_AS_ADMIN} -d @- <<END
{{"registry_username": "{PUSHER}", "registry_password": "$PUSH_PASSWORD"}}
END""",
        ["reachable", "authenticated", "can_pull", "can_push", "message"],
    )
    expect(checked.body["can_push"] is True, "the check does not say that these credentials can push")


def create_algorithm(caller: Caller) -> None:
    """Create an owner with its first key, and as that owner an algorithm."""
    caller.curl(
        f"""curl -sSi "$URL/v1/admin/users/demo/keys" {_AS_ADMIN} \\
  -d '{{"key_label": "laptop", "key_type": "AlgorithmKey"}}'""",
        ["username", "key_type", "api_key"],
        variables={"KEY": "api_key"},
        secrets={"KEY"},
    )
    caller.curl(
        f"""curl -sSi "$URL/v1/algorithms/demo" {_AS_OWNER} \\
  -d '{{"name": "LinearFit", "details": {{"label": "Straight lines"}},
       "settings": {{"language": "python3", "network_access": "isolated"}}}}'""",
        ["id", "name", "source.repository_https_url"],
        status=201,
        variables={"ALGO_ID": "id"},
    )


def push_source(caller: Caller, directory: Path) -> None:
    """Commit the sample and push it to the repository that Longshore hosts; such a push starts a build."""
    shutil.copytree(_SOURCE, directory / "algorithm", ignore=shutil.ignore_patterns("__pycache__"))
    caller.run("cd algorithm && head -99 requirements.txt src/*.py")
    caller.run("cd algorithm && git init -q -b main && git add . && git commit -q -m 'Fit a line' && git log --oneline")
    caller.run('cd algorithm && git push "http://demo:$KEY@${URL#http://}/git/demo/LinearFit.git" main')


def compile_and_push(caller: Caller, screen: Screen) -> None:
    """Compile with push credentials: this joins the build that the git push started, and adds a push to it."""
    screen.line("the git push has started a build; this call joins it, and adds a push to a registry")
    response = caller.curl(
        f"""curl -sSi "$URL/v1/algorithms/$ALGO_ID/compile" {_AS_OWNER} -d @- <<END
{{"registry_push_credentials": {{"registry_id": "$REGISTRY_ID",
 "registry_username": "{PUSHER}", "registry_password": "$PUSH_PASSWORD"}}}}
END""",
        ["name", "version_info.git_hash", "build.build_id", "build.status"],
        variables={"HASH": "version_info.git_hash", "BUILD_ID": "build.build_id"},
    )
    wait_for_job(caller, screen, response)
    expect(push_status(caller)["status"] == "succeeded", "the push did not succeed")


def publish(caller: Caller, screen: Screen) -> None:
    """Publish with push credentials: the semantic version becomes a second tag."""
    response = caller.curl(
        f"""curl -sSi "$URL/v1/algorithms/demo/LinearFit/version" {_AS_OWNER} -d @- <<END
{{"settings": {{"algorithm_callability": "private"}},
 "version_info": {{"version_type": "minor", "release_notes": "The first.", "sample_input": "{{}}"}},
 "registry_push_credentials": {{"registry_id": "$REGISTRY_ID",
 "registry_username": "{PUSHER}", "registry_password": "$PUSH_PASSWORD"}}}}
END""",
        ["version_info.semantic_version", "version_info.git_hash", "build.status"],
        variables={"VERSION": "version_info.semantic_version"},
    )
    wait_for_job(caller, screen, response)
    status = push_status(caller)
    expect(status["status"] == "succeeded", "the push did not succeed")
    caller.set_variable("DIGEST", status["digest"])


def fail_to_push(caller: Caller) -> None:
    """Push with a wrong password: the status has the cause, and still the last successful push."""
    _push_again(caller, "not-the-password")
    status = push_status(caller)
    expect(status["status"] == "failed", "a push with a wrong password did not fail")
    expect(
        status["last_success"]["digest"] == caller.variables["DIGEST"], "the status has lost the last successful push"
    )


def push_again(caller: Caller) -> None:
    """Push with the right password: the push succeeds with the same digest."""
    _push_again(caller, "$PUSH_PASSWORD")
    status = push_status(caller)
    expect(status["status"] == "succeeded", "the second push did not succeed")
    expect(status["digest"] == caller.variables["DIGEST"], "the second push has another digest")


def _push_again(caller: Caller, password: str) -> HttpResponse:
    return caller.curl(
        f"""curl -sSi "$URL/v1/algorithms/$ALGO_ID/versions/$HASH/registry" {_AS_OWNER} -H "Prefer: wait=60" -d @- <<END
{{"registry_push_credentials": {{"registry_id": "$REGISTRY_ID",
 "registry_username": "{PUSHER}", "registry_password": "{password}"}}}}
END""",
        status=204,
    )


def push_status(caller: Caller) -> dict[str, Any]:
    """Show the push status of the version, and return that of the only registry."""
    response = caller.curl(
        'curl -sSi "$URL/v1/algorithms/$ALGO_ID/versions/$HASH/registry" -H "Authorization: Simple $KEY"',
        _STATUS,
    )
    expect(len(response.body) == 1, "there is not exactly one push status")
    return dict(response.body[0])


def expect(condition: bool, message: str) -> None:
    """Raise StepFailedError with the message unless the condition holds."""
    if not condition:
        raise StepFailedError(message)


def read_registry(caller: Caller) -> None:
    """Read the tags and their digests from the registry itself."""
    tags = caller.curl(
        f'curl -sSi -u "{PULLER}:$PULL_PASSWORD" "http://$REGISTRY/v2/{REPOSITORY}/tags/list"', ["name", "tags"]
    )
    expected = {caller.variables["HASH"], caller.variables["VERSION"]}
    expect(set(tags.body["tags"]) == expected, f"the registry does not have the tags {expected}")
    for tag in ("HASH", "VERSION"):
        response = caller.curl(
            f"""curl -sSI -u "{PULLER}:$PULL_PASSWORD" "http://$REGISTRY/v2/{REPOSITORY}/manifests/${tag}" \\
  -H "Accept: application/vnd.oci.image.manifest.v1+json" """.rstrip()
        )
        digest = response.headers.get("docker-content-digest")
        expect(digest == caller.variables["DIGEST"], f"the registry has {digest} for that tag")


def call_algorithm(caller: Caller, screen: Screen, environment: DemoEnvironment) -> None:
    """Call the algorithm: a worker pulls the image by its digest, with the recorded credentials, and runs it."""
    names = remove_images(environment.docker_host, environment.registry.host)
    screen.line(f"removed {len(names)} names of the image from the engine, so that it must be pulled")
    for line in ("the first call pulls the image and starts an instance", "the second call uses that instance"):
        screen.line(line)
        response = caller.curl(
            f"""curl -sSi "$URL/v1/algo/{ALGORITHM}/$VERSION" -H "Authorization: Simple $KEY" \\
  -H "Content-Type: application/json" -d '{_POINTS}'""",
            ["result", "metadata"],
        )
        result = {name: response.body["result"].get(name) for name in _LINE}
        expect(result == _LINE, f"the result is not {_LINE}")
    pulled = caller.curl(
        f'curl -sSi "$URL/v1/algorithms/{ALGORITHM}/versions/$HASH/pull" -H "Authorization: Simple $KEY"',
        ["image", "registry_id", "reason", "serving"],
    )
    expected = f"{environment.registry.host}/{REPOSITORY}@{caller.variables['DIGEST']}"
    expect(pulled.body["image"] == expected, f"it was not pulled as {expected}")
