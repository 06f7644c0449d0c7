"""The steps of the demo, as a caller does them: up to a published version and its push status."""

import shutil
from pathlib import Path
from typing import Any

from dev.demo.caller import Answer, Caller, StepFailedError
from dev.demo.jobs import wait_for_job
from dev.demo.screen import Screen
from dev.demo.stage import PULLER, PUSHER, Stage

ALGORITHM = "demo/LinearFit"
_SOURCE = Path(__file__).parent / "algorithm"
_JSON = '-H "Content-Type: application/json"'
_AS_ADMIN = f'\\\n  -H "Authorization: Simple $ADMIN_KEY" {_JSON}'
_AS_OWNER = f'\\\n  -H "Authorization: Simple $KEY" {_JSON}'
_STATUS = ("registry_id", "status", "status_message", "image", "digest", "attempt", "last_success")


def introduce(caller: Caller, screen: Screen, stage: Stage) -> None:
    """Give the commands their first variables."""
    registry = stage.registry
    screen.line()
    screen.line("The commands below use these variables; secrets are shown by name only:")
    caller.remember("URL", stage.url)
    caller.remember("REGISTRY", registry.host)
    caller.remember("ADMIN_KEY", stage.admin_key_file.read_text().strip(), secret=True)
    caller.remember("PULL_PASSWORD", registry.users[PULLER], secret=True)
    caller.remember("PUSH_PASSWORD", registry.users[PUSHER], secret=True)


def record_registry(caller: Caller) -> None:
    """Record the registry with credentials that read, and ask it what those that push may do."""
    caller.curl(
        f"""curl -sSi "$URL/v1/registries" {_AS_ADMIN} -d @- <<END
{{"registry_url": "http://$REGISTRY", "plain_http": true, "name": "demo",
 "registry_username": "{PULLER}", "registry_password": "$PULL_PASSWORD"}}
END""",
        ["id", "name", "registry_url", "has_credentials"],
        learn={"REGISTRY_ID": "id"},
    )
    checked = caller.curl(
        f"""curl -sSi "$URL/v1/registries/$REGISTRY_ID/check" {_AS_ADMIN} -d @- <<END
{{"registry_username": "{PUSHER}", "registry_password": "$PUSH_PASSWORD"}}
END""",
        ["reachable", "authenticated", "can_pull", "can_push", "message"],
    )
    expect(checked.body["can_push"] is True, "the registry is not said to take pushes")


def create_algorithm(caller: Caller) -> None:
    """Make an owner with its first key, and as that owner an algorithm."""
    caller.curl(
        f"""curl -sSi "$URL/v1/admin/users/demo/keys" {_AS_ADMIN} \\
  -d '{{"key_label": "laptop", "key_type": "AlgorithmKey"}}'""",
        ["username", "key_type", "api_key"],
        learn={"KEY": "api_key"},
        secret={"KEY"},
    )
    caller.curl(
        f"""curl -sSi "$URL/v1/algorithms/demo" {_AS_OWNER} \\
  -d '{{"name": "LinearFit", "details": {{"label": "Straight lines"}},
       "settings": {{"language": "python3", "network_access": "isolated"}}}}'""",
        ["id", "name", "source.repository_https_url"],
        status=201,
        learn={"ALGO_ID": "id"},
    )


def push_source(caller: Caller, directory: Path) -> None:
    """Commit the sample and push it to the repository that Longshore hosts; such a push compiles by itself."""
    shutil.copytree(_SOURCE, directory / "algorithm", ignore=shutil.ignore_patterns("__pycache__"))
    caller.run("cd algorithm && head -99 requirements.txt src/*.py")
    caller.run("cd algorithm && git init -q -b main && git add . && git commit -q -m 'Fit a line' && git log --oneline")
    caller.run('cd algorithm && git push "http://demo:$KEY@${URL#http://}/git/demo/LinearFit.git" main')


def compile_and_push(caller: Caller, screen: Screen) -> None:
    """Compile with push credentials: joins the build that the git push began, and adds a push to it."""
    screen.line("a git push compiles by itself; this call joins that build, and adds a push to a registry")
    answer = caller.curl(
        f"""curl -sSi "$URL/v1/algorithms/$ALGO_ID/compile" {_AS_OWNER} -d @- <<END
{{"registry_push_credentials": {{"registry_id": "$REGISTRY_ID",
 "registry_username": "{PUSHER}", "registry_password": "$PUSH_PASSWORD"}}}}
END""",
        ["name", "version_info.git_hash", "build.build_id", "build.status"],
        learn={"HASH": "version_info.git_hash", "BUILD_ID": "build.build_id"},
    )
    wait_for_job(caller, screen, answer)
    expect(push_status(caller)["status"] == "succeeded", "the push did not succeed")


def publish(caller: Caller, screen: Screen) -> None:
    """Publish with push credentials: the semantic version becomes a second tag."""
    answer = caller.curl(
        f"""curl -sSi "$URL/v1/algorithms/demo/LinearFit/version" {_AS_OWNER} -d @- <<END
{{"settings": {{"algorithm_callability": "private"}},
 "version_info": {{"version_type": "minor", "release_notes": "The first.", "sample_input": "{{}}"}},
 "registry_push_credentials": {{"registry_id": "$REGISTRY_ID",
 "registry_username": "{PUSHER}", "registry_password": "$PUSH_PASSWORD"}}}}
END""",
        ["version_info.semantic_version", "version_info.git_hash", "build.status"],
        learn={"VERSION": "version_info.semantic_version"},
    )
    wait_for_job(caller, screen, answer)
    status = push_status(caller)
    expect(status["status"] == "succeeded", "the push did not succeed")
    caller.remember("DIGEST", status["digest"])


def fail_to_push(caller: Caller) -> None:
    """Push with a wrong password: it fails and says why, and the last good push is still known."""
    _push_again(caller, "not-the-password")
    status = push_status(caller)
    expect(status["status"] == "failed", "a push with a wrong password did not fail")
    expect(status["last_success"]["digest"] == caller.variables["DIGEST"], "the last good push was forgotten")


def push_again(caller: Caller) -> None:
    """Push with the right password, which mends the status; the digest is the same."""
    _push_again(caller, "$PUSH_PASSWORD")
    status = push_status(caller)
    expect(status["status"] == "succeeded", "pushing again did not succeed")
    expect(status["digest"] == caller.variables["DIGEST"], "pushing again gave another digest")


def _push_again(caller: Caller, password: str) -> Answer:
    return caller.curl(
        f"""curl -sSi "$URL/v1/algorithms/$ALGO_ID/versions/$HASH/registry" {_AS_OWNER} -H "Prefer: wait=60" -d @- <<END
{{"registry_push_credentials": {{"registry_id": "$REGISTRY_ID",
 "registry_username": "{PUSHER}", "registry_password": "{password}"}}}}
END""",
        status=204,
    )


def push_status(caller: Caller) -> dict[str, Any]:
    """Show the push status of the version, and return the one of the one registry."""
    answer = caller.curl(
        'curl -sSi "$URL/v1/algorithms/$ALGO_ID/versions/$HASH/registry" -H "Authorization: Simple $KEY"',
        _STATUS,
    )
    expect(len(answer.body) == 1, "there is not one status for the one registry")
    return dict(answer.body[0])


def expect(holds: bool, otherwise: str) -> None:
    """Go on only where something is as it should be.

    Raises:
        StepFailedError: it is not.
    """
    if not holds:
        raise StepFailedError(otherwise)
