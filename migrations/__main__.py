"""Write the next migration from the difference between steps and models: `python -m migrations "what changes"`."""

import sys
import tempfile
from pathlib import Path

from alembic import command
from alembic.script import ScriptDirectory

from cli.runtime import configuration, migrate
from shared.db.engine import Database


def main() -> None:
    """Migrate an empty database up to the newest step, and write what the models have beyond it as one more."""
    message = " ".join(sys.argv[1:]) or sys.exit('usage: python -m migrations "what changes"')
    with tempfile.TemporaryDirectory() as directory:
        database = Database(f"sqlite:///{Path(directory) / 'newest.db'}")
        if ScriptDirectory.from_config(configuration()).get_heads():
            migrate(database)
        with database.engine.connect() as connection:
            config = configuration(connection)
            number = len(list(ScriptDirectory.from_config(config).walk_revisions())) + 1
            command.revision(config, message=message, rev_id=f"{number:04d}", autogenerate=True)
        database.close()


if __name__ == "__main__":
    main()
