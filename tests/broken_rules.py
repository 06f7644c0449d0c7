"""The seven rules of the design, each broken on purpose in a copy of the source: a test must fail for every one.

`python -m tests.broken_rules [NUMBER …]` (`make broken-rules`): all of them, or those of these rules. Ends with
status 1 if a rule can be broken without a test that notices.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", ".cache", "__pycache__", ".*_cache", ".hypothesis", ".longshore-demo"
)
SECONDS = 300


@dataclass(frozen=True)
class Break:
    """One way to break a rule: a text of a file that is replaced, and the tests of which one must notice."""

    rule: int
    what: str
    file: str
    text: str
    replacement: str
    tests: str


BREAKS = (
    Break(
        1,
        "a job is claimed whatever its row says",
        "shared/jobs/claims.py",
        'Job.id == bindparam("job"), is_claimable()',
        'Job.id == bindparam("job")',
        "tests/service/shared/jobs/test_claims.py",
    ),
    Break(
        1,
        "what is due is not dispatched again",
        "workers/maintenance/sweep.py",
        "messages += take_due_messages(session, limit=MAX_MESSAGES_PER_SWEEP)",
        "take_due_messages(session, limit=0)",
        "tests/service/workers/maintenance/test_sweep.py",
    ),
    Break(
        2,
        "progress is written without generation and claim",
        "shared/pushes/progress.py",
        """
    ImagePush.generation == bindparam("held_generation"),
    ImagePush.claim == bindparam("held_claim"),""",
        "",
        "tests/service/shared/jobs/test_fences.py",
    ),
    Break(
        2,
        "a job is ended without its claim",
        "shared/fence.py",
        'Job.id == bindparam("held_job"), Job.claim == bindparam("held_claim"), Job.state == JobState.RUNNING',
        'Job.id == bindparam("held_job")',
        "tests/service/shared/jobs/test_fences.py",
    ),
    Break(
        2,
        "a push that is over says where the image is",
        "workers/pushes/locate.py",
        "exists(select(Job.id).where(HELD)),",
        "",
        "tests/service/workers/pushes/test_push.py",
    ),
    Break(
        3,
        "the registry is not asked for what was pushed",
        "workers/pushes/transports/direct.py",
        "self._client.confirm(self._path, tag, digest)",
        "pass",
        "tests/service/workers/pushes/test_push.py",
    ),
    Break(
        3,
        "errors inside the engine's stream are not read",
        "workers/docker/push.py",
        'if "error" in event:',
        'if "no such key" in event:',
        "tests/unit/workers/docker/test_push_stream.py",
    ),
    Break(
        4,
        "a re-push forgets the last good one",
        "shared/commands/push.py",
        "        digest=None,\n",
        "        digest=None,\n        last_success_digest=None,\n",
        "tests/service/shared/commands/test_push.py tests/service/workers/pushes/test_push.py",
    ),
    Break(
        5,
        "credentials of a push stay when it has ended",
        "shared/jobs/transitions.py",
        "lease_expires_at=None,\n        credentials=None,",
        "lease_expires_at=None,",
        "tests/service/shared/jobs/test_transitions.py",
    ),
    Break(
        5,
        "a sealed value opens for any row",
        "shared/encryption.py",
        "identity.encode())",
        'b"")',
        "tests/unit/shared/test_encryption.py",
    ),
    Break(
        6,
        "a transaction is open while work is done",
        "workers/jobs/executor.py",
        "            finish = work.do(heartbeat)\n",
        "            with database().writing() as open_session:\n"
        "                open_session.connection()\n                finish = work.do(heartbeat)\n",
        "tests/service/workers/jobs/test_executor.py",
    ),
    Break(
        7,
        "an image that the store has is fetched again for every push",
        "workers/pushes/locate.py",
        "return held_image(use, self._known_digest) if self._known_digest is not None else None",
        "return None",
        "tests/service/workers/pushes/test_push.py",
    ),
    Break(
        7,
        "a tag may have another digest than the image has",
        "workers/pushes/transports/direct.py",
        "self._put_tag(put, tag)",
        "self._put_tag(put.to_docker_schema2(), tag)",
        "tests/service/workers/pushes/test_push.py",
    ),
)


def main(arguments: list[str]) -> int:
    """Break each rule, run the tests that guard it, and say which failed."""
    wanted = {int(argument) for argument in arguments} or {each.rule for each in BREAKS}
    unnoticed = 0
    for each in BREAKS:
        if each.rule not in wanted:
            continue
        noticed = _first_failure(each)
        unnoticed += noticed is None
        print(f"rule {each.rule}: {each.what}: {noticed or 'NOBODY NOTICES'}", flush=True)
    return 1 if unnoticed else 0


def _first_failure(broken: Break) -> str | None:
    """The first test that fails when the rule is broken; None where none does."""
    with tempfile.TemporaryDirectory(prefix="longshore-broken-") as directory:
        copy = Path(directory) / "copy"
        shutil.copytree(SOURCE, copy, ignore=LEFT_OUT)
        file = copy / broken.file
        text = file.read_text()
        if broken.text not in text:
            raise SystemExit(f"{broken.file} has no {broken.text!r} any more: mend tests/broken_rules.py")
        file.write_text(text.replace(broken.text, broken.replacement))
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *broken.tests.split()]
        environment = {**os.environ, "PYTHONPATH": str(copy)}
        done = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return failed[0].split(" - ")[0] if failed else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
