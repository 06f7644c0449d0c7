"""Break each of the design's seven rules in a copy of the source; a test must fail for each.

`python -m tests.broken_rules [NUMBER …]` (`make broken-rules`) breaks all rules, or these. The exit status is 1 if no
test fails for one of them.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent
EXCLUDED = shutil.ignore_patterns(
    ".git", ".venv", ".cache", "__pycache__", ".*_cache", ".hypothesis", ".longshore-demo"
)
TEST_TIMEOUT_SECONDS = 300


@dataclass(frozen=True)
class Violation:
    """One violation of a rule: a text of a file, its replacement, and the tests of which one must fail."""

    rule: int
    what: str
    file: str
    text: str
    replacement: str
    tests: str


VIOLATIONS = (
    Violation(
        1,
        "a job is claimed regardless of its row",
        "shared/jobs/claims.py",
        'Job.id == bindparam("job"), is_claimable()',
        'Job.id == bindparam("job")',
        "tests/service/shared/jobs/test_claims.py",
    ),
    Violation(
        1,
        "due jobs are not dispatched again",
        "workers/maintenance/sweep.py",
        "messages += take_due_messages(session, limit=MAX_MESSAGES_PER_SWEEP)",
        "take_due_messages(session, limit=0)",
        "tests/service/workers/maintenance/test_sweep.py",
    ),
    Violation(
        2,
        "progress is written without generation and claim",
        "shared/pushes/progress.py",
        """
    ImagePush.generation == bindparam("held_generation"),
    ImagePush.claim == bindparam("held_claim"),""",
        "",
        "tests/service/shared/jobs/test_fences.py",
    ),
    Violation(
        2,
        "a job is ended without its claim",
        "shared/fence.py",
        'Job.id == bindparam("held_job"), Job.claim == bindparam("held_claim"), Job.state == JobState.RUNNING',
        'Job.id == bindparam("held_job")',
        "tests/service/shared/jobs/test_fences.py",
    ),
    Violation(
        2,
        "a push that has ended writes where the image is",
        "workers/pushes/locate.py",
        "exists(select(Job.id).where(HELD)),",
        "",
        "tests/service/workers/pushes/test_push.py",
    ),
    Violation(
        3,
        "the registry is not asked for the pushed manifest",
        "workers/pushes/transports/direct.py",
        "self._client.confirm(self._path, tag, digest)",
        "pass",
        "tests/service/workers/pushes/test_push.py",
    ),
    Violation(
        3,
        "errors inside the engine's stream are not read",
        "workers/docker/push.py",
        'if "error" in event:',
        'if "no such key" in event:',
        "tests/unit/workers/docker/test_push_stream.py",
    ),
    Violation(
        4,
        "a re-push deletes the last successful push",
        "shared/commands/push.py",
        "        digest=None,\n",
        "        digest=None,\n        last_success_digest=None,\n",
        "tests/service/shared/commands/test_push.py tests/service/workers/pushes/test_push.py",
    ),
    Violation(
        5,
        "the credentials of a push stay after its end",
        "shared/jobs/transitions.py",
        "lease_expires_at=None,\n        credentials=None,",
        "lease_expires_at=None,",
        "tests/service/shared/jobs/test_transitions.py",
    ),
    Violation(
        5,
        "an encrypted value can be decrypted for any row",
        "shared/encryption.py",
        "identity.encode())",
        'b"")',
        "tests/unit/shared/test_encryption.py",
    ),
    Violation(
        6,
        "a transaction is open during the work",
        "workers/jobs/executor.py",
        "            finish = work.do(heartbeat)\n",
        "            with database().writing() as open_session:\n"
        "                open_session.connection()\n                finish = work.do(heartbeat)\n",
        "tests/service/workers/jobs/test_executor.py",
    ),
    Violation(
        7,
        "an image in the store is fetched again for every push",
        "workers/pushes/locate.py",
        "return held_image(use, self._known_digest) if self._known_digest is not None else None",
        "return None",
        "tests/service/workers/pushes/test_push.py",
    ),
    Violation(
        7,
        "a tag may have another digest than the image",
        "workers/pushes/transports/direct.py",
        "self._put_tag(put, tag)",
        "self._put_tag(put.to_docker_schema2(), tag)",
        "tests/service/workers/pushes/test_push.py",
    ),
)


def main(arguments: list[str]) -> int:
    """Break each rule, run its tests, and print which one failed; return the exit status."""
    rules = {int(argument) for argument in arguments} or {each.rule for each in VIOLATIONS}
    undetected = 0
    for each in VIOLATIONS:
        if each.rule in rules:
            failed = _first_failed_test(each)
            undetected += failed is None
            print(f"rule {each.rule}: {each.what}: {failed or 'NO TEST FAILS'}", flush=True)
    return 1 if undetected else 0


def _first_failed_test(broken: Violation) -> str | None:
    with tempfile.TemporaryDirectory(prefix="longshore-broken-") as directory:
        copy = Path(directory) / "copy"
        shutil.copytree(SOURCE, copy, ignore=EXCLUDED)
        file = copy / broken.file
        text = file.read_text()
        if broken.text not in text:
            raise SystemExit(f"{broken.file} does not contain {broken.text!r}: correct tests/broken_rules.py")
        file.write_text(text.replace(broken.text, broken.replacement))
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *broken.tests.split()]
        environment = {**os.environ, "PYTHONPATH": str(copy)}
        done = subprocess.run(
            command,
            cwd=copy,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TEST_TIMEOUT_SECONDS,
            check=False,
        )
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return failed[0].split(" - ")[0] if failed else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
