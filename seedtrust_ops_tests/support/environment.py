"""The test process's environment variables: the one place where tests change them and the settings read from them.

A test that can pass settings in does that instead: `Settings({...})` changes nothing in this process.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from seedtrust_ops.config import get_settings
from seedtrust_ops.database.engine import dispose_application_engine

SetVariables = Callable[..., None]


@contextmanager
def process_environment(**variables: str | None) -> Iterator[SetVariables]:
    """Set these variables (None unsets one), as if the process had been started with them; restore them at the end.

    Yields a function that sets more of them.
    """
    patch = pytest.MonkeyPatch()
    with variable_setter(patch) as set_variables:
        set_variables(**variables)
        yield set_variables


@contextmanager
def variable_setter(patch: pytest.MonkeyPatch) -> Iterator[SetVariables]:
    """Yield a function that sets variables with `patch`; undo all that was patched with it at the end.

    With a test's own `monkeypatch`, the variables that the test sets by itself are restored in the right order.
    """

    def set_variables(**variables: str | None) -> None:
        for name, value in variables.items():
            if value is None:
                patch.delenv(name, raising=False)
            else:
                patch.setenv(name, value)
        _reload_settings()

    try:
        yield set_variables
    finally:
        patch.undo()
        _reload_settings()


def _reload_settings() -> None:
    dispose_application_engine()
    get_settings.cache_clear()
