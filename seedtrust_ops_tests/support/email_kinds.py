"""Lets a test declare kinds of email of its own. Nothing here renders or sends one."""

from collections.abc import Iterator
from contextlib import contextmanager

from seedtrust_ops.domain.notifications.kind_registry import KINDS


@contextmanager
def kinds_of_a_test() -> Iterator[None]:
    """Forget at the end every kind that was declared within."""
    before = dict(KINDS)
    try:
        yield
    finally:
        KINDS.clear()
        KINDS.update(before)
