"""An owner's own Dockerfile wants what others built, or the image store."""

import io
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
    request_for: RequestFor, base_image: str, built: Built
) -> None:
    """The engine has the steps of a build that has not ended: here, of one with a name of its own."""
    recipe = f"FROM {base_image}\nRUN echo {uuid.uuid4().hex} > /made\n".encode()
    name = f"another-owner:{uuid.uuid4().hex}"
    list(engine().build(fileobj=io.BytesIO(recipe), tag=name, network_mode="none", decode=True))
    try:
        _, log = built(request_for({"Dockerfile": recipe}, network="none", allow_dockerfile=True))
    finally:
        engine().remove_image(name)
    assert "Step 2/" in log
    assert "Using cache" not in log


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
