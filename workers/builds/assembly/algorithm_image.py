"""Algorithm images: an environment, then the runner, then the source of one commit. No container and no engine.

The runner's layer is the same for all algorithms and the source's is small, so a change of source alone is little to
push.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from workers.builds.assembly.source_tree import SourceTree
from workers.images.archive import Entry, archived, directory_entry, file_entry, parent_entries
from workers.images.image import Image, Step, derived_image
from workers.images.image_store import StoreUse
from workers.images.layers import add_layer, exact
from workers.runner import ARGUMENTS, DIRECTORY, PORT, RUNS_AS, SOURCE_DIRECTORY

RUNNER_SOURCE = Path(__file__).resolve().parents[2] / "runner"


def algorithm_image(
    use: StoreUse, environment: Image, name: str, labels: Mapping[str, str], tree: SourceTree, python: str
) -> Image:
    """Add the image of an algorithm; `python` is the path of the environment's interpreter in it.

    Equal parts give an equal digest, on every machine and at any time.

    Raises:
        WorkError: as the store says.
    """
    runner = add_layer(use, archived(_runner()), exact)
    source = add_layer(use, archived(_source(tree)), exact)
    variables = environment.variables | {
        "LONGSHORE_ALGORITHM_NAME": name,
        "LONGSHORE_PORT": str(PORT),
        "PYTHONUNBUFFERED": "1",
    }
    run_config = {
        "Cmd": None,
        "Entrypoint": [python, *ARGUMENTS],
        "Env": [f"{key}={value}" for key, value in variables.items()],
        "ExposedPorts": {**environment.run_config.get("ExposedPorts", {}), f"{PORT}/tcp": {}},
        "Healthcheck": {"Test": ["NONE"]},
        "Labels": {**(environment.run_config.get("Labels") or {}), **labels},
        "User": f"{RUNS_AS}:{RUNS_AS}",
        "WorkingDir": SOURCE_DIRECTORY,
    }
    steps = [Step(runner, f"COPY runner {DIRECTORY}"), Step(source, f"COPY algorithm {SOURCE_DIRECTORY}")]
    return derived_image(use, environment, steps, run_config)


def _runner() -> Iterator[Entry]:
    top = DIRECTORY.strip("/")
    yield from parent_entries(top)
    yield directory_entry(top)
    for file in sorted(RUNNER_SOURCE.rglob("*.py")):
        yield file_entry(f"{top}/{file.relative_to(RUNNER_SOURCE).as_posix()}", file.read_bytes())


def _source(tree: SourceTree) -> Iterator[Entry]:
    top = SOURCE_DIRECTORY.strip("/")
    yield from parent_entries(top)
    yield from tree.entries(top)
