"""Jobs in the environment of a production process, which a test may change, and retries without their wait."""

import socket
from collections.abc import Callable, Iterator

import dagster as dg
import pytest

from seedtrust_ops.config import environment
from seedtrust_ops.resources import huntington_bank
from seedtrust_ops.resources.database import application_engine

Change = Callable[..., None]


@pytest.fixture
def change(monkeypatch: pytest.MonkeyPatch, bank_environment: dict[str, str]) -> Iterator[Change]:
    """Changes variables (None unsets one), as if the process had been started with them."""

    def forget() -> None:
        environment.cache_clear()
        application_engine.cache_clear()

    def change_variables(**variables: str | None) -> None:
        for name, value in variables.items():
            if value is None:
                monkeypatch.delenv(name)
            else:
                monkeypatch.setenv(name, value)
        forget()

    yield change_variables
    for name, value in bank_environment.items():
        monkeypatch.setenv(name, value)
    forget()


@pytest.fixture(autouse=True)
def retries_without_their_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dg.RetryPolicy, "calculate_delay", lambda _policy, _attempt: 0)
    monkeypatch.setattr(huntington_bank, "CONNECT_RETRIES", 0)
    monkeypatch.setattr(huntington_bank, "QUESTION_TRIES", 1)


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port at which nobody listens for as long as the test lasts."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        yield silent.getsockname()[1]
