"""`make conformance`: check a running Longshore against its OpenAPI document, with a number of examples."""

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
    """Run schemathesis and print its report; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=5000)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--seed")
    arguments = parser.parse_args()
    started = time.monotonic()
    with (
        services_directory() as directory,
        settings_for(arguments.database, directory) as variables,
        longshore_up(directory, **variables) as up,
    ):
        each = -(-arguments.examples // operations(up.url))
        seed = ("--seed", arguments.seed) if arguments.seed else ()
        done = run_schemathesis(up, directory, "--max-examples", str(each), *seed)
    generated = examples_in(done.stdout)
    sys.stdout.write(done.stdout + done.stderr)
    sys.stdout.write(f"{generated} examples on {arguments.database} in {time.monotonic() - started:.0f} s\n")
    return done.returncode or int(generated < arguments.examples)


@contextmanager
def settings_for(database: str, directory: Path) -> Iterator[dict[str, str]]:
    """Yield the settings of `longshore up` for a database."""
    if database == "sqlite":
        yield {}
        return
    with private_postgres(directory / "postgres") as server:
        yield {"LONGSHORE_DATABASE_URL": server.create_database("conformance")}


def operations(url: str) -> int:
    """Return the number of operations in the document."""
    with urllib.request.urlopen(f"{url}/openapi.json", timeout=30) as answer:
        document = json.load(answer)
    return sum("responses" in operation for path in document["paths"].values() for operation in path.values())


if __name__ == "__main__":
    sys.exit(main())
