"""Measure transfers of an image of about 160 MB to a registry."""

import time
from collections.abc import Iterator

from benchmarks.environment import Environment
from benchmarks.results import Result
from benchmarks.transfers import peers
from benchmarks.transfers.installation import Algorithm, Installation, installation
from dev.services.relay import relay

RUNS = 3
MANY = 5
SECONDS = "s"


def run(environment: Environment) -> Iterator[Result]:
    directory = environment.directory / "transfers"
    directory.mkdir()
    with installation(directory, concurrency=MANY) as here:
        task = environment.progress.add_task("bringing the base image into the store")
        _warm(here)
        environment.progress.update(task, description="new requirements: ours and docker's (minutes)")
        algorithm = here.new_algorithm()
        commit = algorithm.commit()
        first_id, first = here.new_registry()
        ours = _compile(here, algorithm, commit, first_id)
        _, other = here.new_registry()
        theirs = peers.docker_build_and_push(here, algorithm, other)
        yield Result.of("new requirements, compile and push", [ours], SECONDS, 0.6,
                        peer="docker build + push", peers=[theirs])  # fmt: skip
        image = algorithm.image(commit, first)

        environment.progress.update(task, description="to a second, empty registry")
        ours_of, docker_of, copy_of = [], [], []
        for _ in range(RUNS):
            target_id, _ = here.new_registry()
            ours_of.append(_push_to_all(here, algorithm, commit, [target_id]))
            copy_of.append(peers.registry_copy(here, image, first, here.new_registry()[1]))
            docker_of.append(peers.docker_push(here, image, first, here.new_registry()[1]))
        yield Result.of("to a second registry", ours_of, SECONDS, 0.12, peer="docker push", peers=docker_of)
        yield Result.of("to a second registry", ours_of, SECONDS, 1.5,
                        peer=f"{peers.copy_tool()} copy", peers=copy_of)  # fmt: skip

        environment.progress.update(task, description="to a registry that has it")
        again = [_push_to_all(here, algorithm, commit, [first_id]) for _ in range(4 * RUNS)]
        yield Result.of("to a registry that has it", again, SECONDS, 0.15)

        environment.progress.update(task, description="a change of source alone")
        changes = [_compile(here, algorithm, algorithm.commit(), first_id) for _ in range(2 * RUNS)]
        yield Result.of("a change of source, compile and push", changes, SECONDS, 1.2)

        yield Result.of("its request bodies, beyond the source layer", [_beyond_the_layer(here, algorithm)], "KiB", 16)

        environment.progress.update(task, description="to five registries at once")
        layout = peers.layout_of(here, image, first)
        ours_of, theirs_of = [], []
        for _ in range(RUNS):
            targets = [here.new_registry()[0] for _ in range(MANY)]
            ours_of.append(_push_to_all(here, algorithm, commit, targets))
            theirs_of.append(peers.layout_copies(layout, [here.new_registry()[1] for _ in range(MANY)]))
        yield Result.of("to five registries at once", ours_of, SECONDS, 1.0,
                        peer="five skopeo copy from a layout", peers=theirs_of)  # fmt: skip
        environment.progress.remove_task(task)


def _warm(here: Installation) -> None:
    """Bring the base image into the store, and nothing else that the cases install."""
    algorithm = here.new_algorithm(requirements="")
    here.until_done(algorithm.compile(algorithm.commit()))


def _compile(here: Installation, algorithm: Algorithm, commit: str, registry_id: str) -> float:
    """Return the seconds until a commit is compiled and pushed to a registry."""
    begin = time.perf_counter()
    here.until_done(algorithm.compile(commit, registry_id))
    return time.perf_counter() - begin


def _beyond_the_layer(here: Installation, algorithm: Algorithm) -> float:
    """Return the KiB of all request bodies of a push after a change of source, without the layer with the source."""
    _, registry = here.new_registry()
    sent = list[int]()

    def count(_method: str, _path: str, body: bytes) -> None:
        sent.append(len(body))

    with relay(registry.host, count) as host:
        target_id = here.record(f"http://{host}", registry)
        _compile(here, algorithm, algorithm.commit(), target_id)
        sent.clear()
        changed = algorithm.commit()
        _compile(here, algorithm, changed, target_id)
    return (sum(sent) - peers.layer_sizes(algorithm.image(changed, registry), registry)[-1]) / 1024


def _push_to_all(here: Installation, algorithm: Algorithm, commit: str, registry_ids: list[str]) -> float:
    """Return the seconds until the pushes to all of these registries have succeeded."""
    begin = time.perf_counter()
    jobs = [algorithm.push(commit, registry_id) for registry_id in registry_ids]
    for job in jobs:
        here.until_done(job)
    return time.perf_counter() - begin
