"""A build whose image has a layer larger than what sockets keep: a push of it can be caught in the middle."""

import os
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager

from docker import APIClient

from shared.db.models import Build
from tests.git_service import make_algorithm
from tests.rows import build_commit, change, fresh
from tests.unit.workers.builds.sources import archive_of

MEBIBYTE = 1024 * 1024


@contextmanager
def large_build(docker_host: str) -> Iterator[Build]:
    """The build, for the length of the block; no registry has its image yet."""
    name = f"large-{uuid.uuid4().hex[:12]}"
    with closing(APIClient(base_url=docker_host)) as client:
        client.import_image_from_data(archive_of({"random": os.urandom(8 * MEBIBYTE)}), repository=name)
        build = build_commit(make_algorithm())
        change(build, image_id=client.inspect_image(name)["Id"])
        yield fresh(build)
        client.remove_image(name, force=True)
