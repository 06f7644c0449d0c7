"""The proof that the status is true: what the registry has under each tag, and what the image from there answers."""

from dev.demo.caller import Caller
from dev.demo.screen import Screen
from dev.demo.stage import PULLER, Stage
from dev.demo.story import ALGORITHM, expect
from dev.demo.traces import REPOSITORY, remove_images

_POINTS = '{"x": [0, 1, 2, 3], "y": [1.5, 3.5, 5.5, 7.5]}'
_LINE = {"slope": 2.0, "intercept": 1.5, "r_squared": 1.0}


def ask_registry(caller: Caller) -> None:
    """Ask the registry itself which tags there are and what digest each has."""
    listed = caller.curl(
        f'curl -sSi -u "{PULLER}:$PULL_PASSWORD" "http://$REGISTRY/v2/{REPOSITORY}/tags/list"', ["name", "tags"]
    )
    wanted = {caller.variables["HASH"], caller.variables["VERSION"]}
    expect(set(listed.body["tags"]) == wanted, f"the registry does not have the tags {wanted}")
    for tag in ("HASH", "VERSION"):
        answer = caller.curl(
            f"""curl -sSI -u "{PULLER}:$PULL_PASSWORD" "http://$REGISTRY/v2/{REPOSITORY}/manifests/${tag}" \\
  -H "Accept: application/vnd.oci.image.manifest.v1+json" """.rstrip()
        )
        digest = answer.headers.get("docker-content-digest")
        expect(digest == caller.variables["DIGEST"], f"the registry has {digest} under that tag")


def call(caller: Caller, screen: Screen, stage: Stage) -> None:
    """Call the algorithm: a worker pulls the image by its digest with the registry's own credentials, and runs it."""
    names = remove_images(stage.docker_host, stage.registry.host)
    screen.line(f"the engine is to have nothing of the image: {len(names)} names of it removed")
    for moment in ("the first call pulls the image and starts it", "the second finds it running"):
        screen.line(moment)
        answer = caller.curl(
            f"""curl -sSi "$URL/v1/algo/{ALGORITHM}/$VERSION" -H "Authorization: Simple $KEY" \\
  -H "Content-Type: application/json" -d '{_POINTS}'""",
            ["result", "metadata"],
        )
        given = {name: answer.body["result"].get(name) for name in _LINE}
        expect(given == _LINE, f"the answer is not {_LINE}")
    pulled = caller.curl(
        f'curl -sSi "$URL/v1/algorithms/{ALGORITHM}/versions/$HASH/pull" -H "Authorization: Simple $KEY"',
        ["image", "registry_id", "reason", "serving"],
    )
    wanted = f"{stage.registry.host}/{REPOSITORY}@{caller.variables['DIGEST']}"
    expect(pulled.body["image"] == wanted, f"it was not pulled as {wanted}")
