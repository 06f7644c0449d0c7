"""`make conformance`: a running Longshore against its own document, with as many examples as are asked for."""

import argparse
import json
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dev.services.postgres import private_postgres
from dev.services.workdir import services_directory
from tests.conformance.against import examples_in, run_schemathesis
from tests.service.cli.running import longshore_up


def main() -> int:
    """Run, tell what was found, and give the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=5000)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--seed")
    asked = parser.parse_args()
    began = time.monotonic()
    with (
        services_directory() as directory,
        settings_for(asked.database, directory) as variables,
        longshore_up(directory, **variables) as up,
    ):
        each = -(-asked.examples // operations(up.url))
        seed = ("--seed", asked.seed) if asked.seed else ()
        done = run_schemathesis(up, directory, "--max-examples", str(each), *seed)
    generated = examples_in(done.stdout)
    sys.stdout.write(done.stdout + done.stderr)
    sys.stdout.write(f"{generated} examples on {asked.database} in {time.monotonic() - began:.0f} s\n")
    return done.returncode or int(generated < asked.examples)


@contextmanager
def settings_for(database: str, directory: Path) -> Iterator[dict[str, str]]:
    """What `longshore up` is told of the database."""
    if database == "sqlite":
        yield {}
        return
    with private_postgres(directory / "postgres") as server:
        yield {"LONGSHORE_DATABASE_URL": server.create_database("conformance")}


def operations(url: str) -> int:
    """How many operations the document has."""
    with urllib.request.urlopen(f"{url}/openapi.json", timeout=30) as answer:
        document = json.load(answer)
    return sum("responses" in operation for path in document["paths"].values() for operation in path.values())


if __name__ == "__main__":
    sys.exit(main())
