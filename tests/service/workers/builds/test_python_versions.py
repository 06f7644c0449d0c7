"""Environments of old and new Pythons really build: requirements, the kit, and the runner load there."""

import pytest

pytestmark = pytest.mark.engine
