"""What a test uses decides its tier: fixtures declare what they start, and long versions name the faster test.

`tier_plugin` reads these declarations. `docs/development.md` says what each tier is for.
"""

import enum
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

Function = TypeVar("Function", bound=Callable[..., Any])


class Resource(enum.StrEnum):
    """What a test uses, from the cheapest to the most expensive; each is also a pytest mark."""

    DATABASE = "database"
    BANK = "bank"
    PROCESS = "process"
    INSTANCE = "instance"
    DAEMON = "daemon"
    BROWSER = "browser"


DESCRIPTIONS = {
    Resource.DATABASE: "uses the PostgreSQL server",
    Resource.BANK: "uses the sandbox bank that all tests share",
    Resource.PROCESS: "uses another server or command in a process of its own",
    Resource.INSTANCE: "uses a Dagster instance with its own storage",
    Resource.DAEMON: "uses Dagster's daemon, code server or web server",
    Resource.BROWSER: "uses Chromium",
}
LONG_VERSION = "long_version"
"""The mark of a test of the slow tier; its argument is the id of the faster test that keeps the same promise."""

TESTS = Path(__file__).parents[1]
_RESOURCE = "_seedtrust_resource"


def provides(resource: Resource) -> Callable[[Function], Function]:
    """Declare what a fixture starts; put it below `@pytest.fixture`."""

    def declare(function: Function) -> Function:
        setattr(function, _RESOURCE, resource)
        return function

    return declare


def long_version(of: str) -> pytest.MarkDecorator:
    """Put a test, or one case of it, into the slow tier.

    Args:
        of: the faster test that keeps the same promise, as `file::test` below `seedtrust_ops_tests`.

    Raises:
        ValueError: if there is no such test.
    """
    file, _, name = of.partition("::")
    if not (TESTS / file).is_file() or f"def {name}(" not in (TESTS / file).read_text():
        raise ValueError(f"A long version names a faster test that does not exist: {of}.")
    return pytest.mark.long_version(of)


def used_resources(item: pytest.Item) -> set[Resource]:
    """Return what the test's fixtures start."""
    fixtures = item._fixtureinfo.name2fixturedefs if isinstance(item, pytest.Function) else {}
    found = (getattr(definition[-1].func, _RESOURCE, None) for definition in fixtures.values())
    return {resource for resource in found if resource is not None}
