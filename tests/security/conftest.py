"""The fixtures of the service tests: an installation on each kind of database, clients with keys, a served image."""

from tests.service.api.conftest import acme, admin, algorithm, any_app, app, rival, short_serving_dir, version
from tests.service.conftest import (
    _plain_logs,
    broker,
    installation,
    postgres_installation,
    postgres_tables_url,
    sqlite_installation,
    sqlite_tables,
)
from tests.service.workers.serving.conftest import build, image_id, of, served

__all__ = [
    "_plain_logs",
    "acme",
    "admin",
    "algorithm",
    "any_app",
    "app",
    "broker",
    "build",
    "image_id",
    "installation",
    "of",
    "postgres_installation",
    "postgres_tables_url",
    "rival",
    "served",
    "short_serving_dir",
    "sqlite_installation",
    "sqlite_tables",
    "version",
]
