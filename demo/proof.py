"""The proof that the status is true: what the registry has under each tag, and what the image from there answers."""

from contextlib import ExitStack, closing, suppress

import docker
import requests
from docker.errors import DockerException

from demo.caller import Caller
from demo.pulled import container_of, pull, remove_images
from demo.screen import Screen
from demo.stage import PULLER, Stage
from demo.story import REPOSITORY, expect

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


def run_pulled(caller: Caller, screen: Screen, stage: Stage) -> None:
    """Pull the image from the registry by its digest, run it without a network, and call it."""
    registry = stage.registry
    image = f"{registry.host}/{REPOSITORY}@{caller.variables['DIGEST']}"
    with closing(docker.DockerClient(base_url=stage.docker_host, timeout=300)) as client:
        names = remove_images(client, [f"longshore/{REPOSITORY}", f"{registry.host}/{REPOSITORY}"])
        screen.line(f"the engine is to have nothing of the image: {len(names)} names of it removed")
        with screen.waiting(f"pulling {image}"):
            pulled, present = pull(client, image, PULLER, registry.users[PULLER])
        screen.line(f"pulled {image}")
        screen.line(f"layers from the registry: {pulled}; those of the base image, which the engine has: {present}")
        expect(pulled > 0, "nothing came from the registry")
        with ExitStack() as stack:
            with screen.waiting("starting it, without any network"):
                socket = stack.enter_context(container_of(client, image))
            caller.remember("SOCKET", str(socket))
            answer = caller.curl(
                f"""curl -sSi --unix-socket "$SOCKET" http://algorithm/ -H "Content-Type: application/json" \\
  -d '{_POINTS}'""",
                ["result", "metadata"],
            )
    given = {name: answer.body["result"].get(name) for name in _LINE}
    expect(given == _LINE, f"the answer is not {_LINE}")


def remove_traces(stage: Stage) -> None:
    """Remove the images of the demo's algorithm from the engine, which may be the user's own."""
    with (
        suppress(DockerException, requests.RequestException),  # an engine that is gone has no traces
        closing(docker.DockerClient(base_url=stage.docker_host, timeout=60)) as client,
    ):
        remove_images(client, [f"longshore/{REPOSITORY}", f"{stage.registry.host}/{REPOSITORY}"])
