"""A folder for tests that start an embedded PostgreSQL of their own in it."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that PostgreSQL's own user may enter; each pytest that starts shuts the parents of `tmp_path` again."""
    with tempfile.TemporaryDirectory(prefix="seedtrust-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
