"""A folder for tests that start their own embedded PostgreSQL server."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that PostgreSQL's own user can read; unlike `tmp_path`, whose parents every pytest session closes."""
    with tempfile.TemporaryDirectory(prefix="seedtrust-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
