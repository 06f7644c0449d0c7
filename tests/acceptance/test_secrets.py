"""A password of any call is stored nowhere in clear text (rule 5)."""

import gzip
import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis as redis_client

from dev.services.redis import PrivateRedis
from dev.services.registry import PrivateRegistry, private_registry
from tests.acceptance.system import ECHO, Repository, System, repository

RECORDED = "pw-recorded-4b1d7e"
WRONG = "pw-wrong-push-9c2f60"
GOOD = "pw-good-push-51c0ffee"
SOURCE = "pw-source-77aa31"


@contextmanager
def monitored(redis: PrivateRedis) -> Iterator[list[bytes]]:
    """Yield a list that collects everything sent to Redis during the block."""
    seen: list[bytes] = []
    listening, done = threading.Event(), threading.Event()
    monitor = subprocess.Popen(["redis-cli", "-p", str(redis.port), "monitor"], stdout=subprocess.PIPE, bufsize=0)

    def read() -> None:
        assert monitor.stdout is not None
        for line in monitor.stdout:
            seen.append(line)
            listening.set()
        done.set()

    threading.Thread(target=read, daemon=True).start()
    try:
        assert listening.wait(10)
        yield seen
    finally:
        monitor.terminate()
        monitor.wait(10)
        assert done.wait(10)
        assert monitor.stdout is not None
        monitor.stdout.close()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[PrivateRegistry]:
    """A registry with a password that cannot occur by chance."""
    with private_registry(tmp_path / "registry", users={"pusher": GOOD}) as made:
        yield made


def give_every_password(system: System, clone: Repository, owner: str, registry: PrivateRegistry) -> list[str]:
    """Send a password in every call that accepts one; return the responses."""
    commit = clone.commit()
    clone.push()
    recorded = system.call("POST", "/v1/registries", {"registry_url": registry.host, **given(RECORDED)})
    registry_id = recorded.json["id"]
    changed = system.call("PUT", f"/v1/registries/{registry_id}", {"registry_url": registry.host, **given(RECORDED)})
    checked = system.call("POST", f"/v1/registries/{registry_id}/check", given(GOOD))
    assert checked.json["can_push"] is True
    source = {
        "repository_https_url": "https://127.0.0.1:1/no/repository.git",
        "credentials": {"username": "u", "password": SOURCE},
    }
    body = {"name": "Elsewhere", "details": {"label": "e"}, "settings": {}, "source": source}
    elsewhere = system.call("POST", f"/v1/algorithms/{owner}", body)
    unreachable = system.call("POST", f"/v1/algorithms/{owner}/Elsewhere/compile", {"commitSha": "a" * 40})
    failed = system.compile(f"{owner}/Secret", pushes={"registry_id": registry_id, **given(WRONG)})
    assert system.statuses(f"{owner}/Secret", commit)[0]["status"] == "failed"
    path = f"/v1/algorithms/{owner}/Secret/versions/{commit}/registry"
    status = system.call("GET", path)
    normalize_name = system.call("POST", path, {"registry_id": registry_id, **given(GOOD)}, wait=60)
    assert system.statuses(f"{owner}/Secret", commit)[0]["status"] == "succeeded"
    system.call("DELETE", f"/v1/jobs/{unreachable.headers['X-Job-Id']}")
    listings = [system.call("GET", path) for path in ("/v1/jobs", "/v1/pushes", "/v1/registries", "/readyz")]
    answers = [recorded, changed, checked, elsewhere, unreachable, failed, status, normalize_name, *listings]
    return [answer.text + repr(answer.headers) for answer in answers]


def given(password: str) -> dict[str, str]:
    """A pair of credentials."""
    return {"registry_username": "pusher", "registry_password": password}


def test_passwords_are_nowhere_in_clear(
    system: System,
    own_redis: PrivateRedis,
    tmp_path: Path,
    owner: str,
    owner_key: str,
    guarded: PrivateRegistry,
) -> None:
    system.create_algorithm(owner, "Secret")
    clone = repository(system, tmp_path / "clone", f"{owner}/Secret", owner_key)
    clone.write({"src/Secret.py": ECHO})
    with monitored(own_redis) as commands:
        answers = give_every_password(system, clone, owner, guarded)
    assert b"longshore.push" in b"".join(commands)
    commit = clone.git("rev-parse", "HEAD")
    kept = redis_client.Redis(port=own_redis.port)
    stored = b"".join(kept.dump(key) or b"" for key in kept.keys("*"))
    kept.close()
    places = {
        "commands to Redis": b"".join(commands),
        "Redis, as it keeps": stored,
        "logs": b"".join(path.read_bytes() for path in system.log.parent.glob("*.log")),
        "answers": "".join(answers).encode(),
        "database": b"".join(path.read_bytes() for path in system.data_dir.glob("longshore.db*")),
        **image_places(system.data_dir / "images", system.statuses(f"{owner}/Secret", commit)[0]["digest"]),
    }
    for place, content in places.items():
        assert content, place
        for secret in (RECORDED, WRONG, GOOD, SOURCE, owner_key, system.admin_key):
            assert secret.encode() not in content, f"{secret} stands in: {place}"


def image_places(images: Path, digest: str) -> dict[str, bytes]:
    """Return the documents of an image in the store, and the bytes of its layers, which contain the source."""
    manifest = blob(images, digest)
    document = json.loads(manifest)
    return {
        "manifest": manifest,
        "configuration": blob(images, document["config"]["digest"]),
        "layers": b"".join(gzip.decompress(blob(images, layer["digest"])) for layer in document["layers"]),
    }


def blob(images: Path, digest: str) -> bytes:
    """Return a blob of an image layout."""
    return (images / "blobs" / "sha256" / digest.removeprefix("sha256:")).read_bytes()
