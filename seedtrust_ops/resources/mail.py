"""The mail server as a resource of Dagster's. How letters are handed in is `smtp`'s."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from seedtrust_ops.config import environment
from seedtrust_ops.resources.smtp import ANSWER_SECONDS, SmtpPostOffice, open_post_office


class MailResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The mail server of SMTP_HOST and its fellow variables."""

    @contextmanager
    def open(self, *, answer_seconds: float = ANSWER_SECONDS) -> Iterator[SmtpPostOffice]:
        """Yield the mail server; raises `ConfigurationError`, naming the variable, where one is missing."""
        with open_post_office(environment().mail, answer_seconds=answer_seconds) as office:
            yield office
