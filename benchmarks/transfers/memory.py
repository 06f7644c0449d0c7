"""Measure the memory that a worker needs to push one very large layer."""

import multiprocessing
import os
import resource
from collections.abc import Iterator
from pathlib import Path

from benchmarks.environment import Environment
from benchmarks.results import Result
from dev.services.registry import PrivateRegistry, private_registry
from shared.cancellation import CancelToken
from shared.registry.address import RegistryAddress
from shared.registry.client import RegistryClient
from shared.registry.credentials import Credentials
from workers.images.layout import LayoutStore
from workers.images.oci import OCI_CONFIG, OCI_LAYER, Descriptor, Manifest
from workers.pushes.transports.direct import DirectTransport

LAYER_BYTES = 3 * 1024**3
_CHUNK_BYTES = 1024 * 1024
_KIBIBYTES = 1024


def run(environment: Environment) -> Iterator[Result]:
    """Measure peak memory above idle, in MiB, in a process that pushes as a worker does."""
    directory = environment.directory / "memory"
    directory.mkdir()
    task = environment.progress.add_task("a layer of 3 GB")
    with private_registry(directory / "registry") as registry:
        manifest = _store(directory / "images")
        spawned = multiprocessing.get_context("spawn")
        told: multiprocessing.Queue[tuple[int, int]] = spawned.Queue()
        process = spawned.Process(target=_push, args=(directory / "images", registry, manifest.content, told))
        process.start()
        idle, peak = told.get()
        process.join()
    environment.progress.remove_task(task)
    yield Result.of("memory over idle, one layer of 3 GB", [(peak - idle) / _KIBIBYTES], "MiB", 32)


def _store(directory: Path) -> Manifest:
    piece = os.urandom(_CHUNK_BYTES)
    with LayoutStore(directory).use() as use:
        layer = Descriptor(OCI_LAYER, *use.add(piece for _ in range(LAYER_BYTES // _CHUNK_BYTES)))
        manifest = Manifest(Descriptor(OCI_CONFIG, *use.add([b"{}"])), (layer,))
        use.add([manifest.content])
    return manifest


def _push(
    directory: Path, registry: PrivateRegistry, manifest: bytes, told: "multiprocessing.Queue[tuple[int, int]]"
) -> None:
    import workers.tasks  # noqa: F401, PLC0415 - what a worker has in memory when it is idle

    idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ((name, password),) = registry.users.items()
    stop = CancelToken()
    with (
        LayoutStore(directory).use() as use,
        RegistryClient(RegistryAddress.parse(registry.url), Credentials(name, password), cancel_token=stop) as client,
    ):
        transport = DirectTransport(client, "bench/large", Manifest.parse(manifest), use, stop=stop)
        transport.push(("1",), before_tag=lambda _tag: None, on_progress=lambda _seen, _said: None)
    told.put((idle, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
