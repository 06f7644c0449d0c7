"""An owner's own Dockerfile wants what others built, or the image store."""

import uuid
from collections.abc import Callable
from dataclasses import replace

import pytest

from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkError
from tests.directory_store import DirectoryStore
from tests.security.builds.conftest import Built
from workers.builds.image import BuildRequest, build_image
from workers.docker.connection import engine
from workers.docker.images import described_image, local_reference

RequestFor = Callable[..., BuildRequest]


def test_a_step_gives_nothing_that_it_gave_to_another_owner(
    request_for: RequestFor, base_image: str, built: Built, other: str
) -> None:
    """The first owner's step could have been run with another answer of the network, or another base image's tag."""
    recipe = f"FROM {base_image}\nRUN python3 -c 'import uuid; print(uuid.uuid4().hex)' # {uuid.uuid4().hex}\n"
    files = {"Dockerfile": recipe.encode()}
    first, first_log = built(request_for(files, allow_dockerfile=True))
    second, second_log = built(request_for(files, owner=other, allow_dockerfile=True))
    assert "Using cache" not in first_log + second_log
    assert second.image_id != first.image_id


def test_an_image_that_is_larger_than_a_build_may_be_is_not_saved(
    request_for: RequestFor, base_image: str, store: DirectoryStore
) -> None:
    request = request_for({"Dockerfile": f"FROM {base_image}\n".encode()}, allow_dockerfile=True)
    request = replace(request, limits=replace(request.limits, disk_bytes=1024))
    with pytest.raises(WorkError, match="LONGSHORE_BUILD_MAX_BYTES") as caught:
        build_image(request, store, lambda _: None, CancelToken())
    assert caught.value.error_class is ErrorClass.INVALID
    assert described_image(local_reference(request.owner, request.name, request.commit)) is None
    revision = f"org.opencontainers.image.revision={request.commit}"
    assert engine().images(filters={"label": revision}) == []
