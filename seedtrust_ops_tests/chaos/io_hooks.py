"""Hooks by which a process counts its own I/O: SQLAlchemy's commits and statements, HTTP requests, and SMTP.

They are put on the libraries from outside; the product has no switch for them. What happens at a step is `strikes`'.
"""

import json
import smtplib
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import urllib3
from sqlalchemy import Engine, event

from seedtrust_ops.domain import db_transaction
from seedtrust_ops.resources.http1_connection import BankConnection, BankRequest, BankResponse
from seedtrust_ops_tests.chaos.injection_points import Steps

DOMAIN = "seedtrust_ops.domain"
END_OF_LETTER = b"\r\n.\r\n"


def count_commits(engine: Engine, steps: Steps) -> None:
    """Count each COMMIT that goes to the server, by the work that it makes last."""
    do_commit = engine.dialect.do_commit

    def counted(connection: Any) -> None:
        label = f"commit of {_work()}"
        steps.begin(label, connection)
        do_commit(connection)
        steps.end(label, connection)

    engine.dialect.do_commit = counted


def count_statements(engine: Engine, steps: Steps, counts: Callable[[str], bool]) -> None:
    """Count each statement that `counts` says yes to; a statement that a strike returns is run in its place."""

    def before(_connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> tuple[str, Any]:
        if counts(statement):
            instead = steps.begin(f"{statement.split(maxsplit=1)[0]} in {_asker()}", cursor.connection)
            if instead is not None:
                return instead, ()
        return statement, parameters

    event.listen(engine, "before_cursor_execute", before, retval=True)


def count_bank_requests(steps: Steps) -> None:
    """Count each request to the bank as two steps: it is sent, and its answer is received.

    It is about to be sent before the product looks for the last time whether it may be.
    """
    exchange, send, receive = BankConnection.exchange, BankConnection._send, BankConnection._receive
    subjects: dict[BankConnection, str] = {}

    async def counted(
        self: BankConnection, request: BankRequest, may_leave: Callable[[], bool] = lambda: True
    ) -> BankResponse:
        subject = subjects[self] = _subject(request)
        transaction = _transaction(request)

        def asked() -> bool:
            steps.begin(f"{subject} is sent")
            may = may_leave()
            if may and transaction is not None:
                steps.leaving.add(transaction)
            return may

        return await exchange(self, request, asked)

    def counted_send(self: BankConnection, line: Any, message: bytes) -> None:
        send(self, line, message)
        steps.leaving.clear()
        steps.end(f"{subjects[self]} is sent")

    async def counted_receive(self: BankConnection, line: Any) -> BankResponse:
        end = f"{subjects[self]} gets no answer"
        try:
            response = await receive(self, line)
            end = f"{subjects[self]} is answered"
        finally:
            steps.begin(end)
            steps.end(end)
        return response

    BankConnection.exchange = counted  # type: ignore[method-assign]
    BankConnection._send = counted_send  # type: ignore[method-assign]
    BankConnection._receive = counted_receive  # type: ignore[method-assign]


def count_mail(steps: Steps) -> None:
    """Count each letter that goes to the mail server, and its reply to it; what is said before changes nothing."""
    send, get_reply = smtplib.SMTP.send, smtplib.SMTP.getreply
    waiting = False

    def counted_send(self: smtplib.SMTP, content: Any) -> None:
        nonlocal waiting
        waiting = bytes(content[-len(END_OF_LETTER) :]) == END_OF_LETTER if isinstance(content, bytes) else False
        if waiting:
            steps.begin("a letter goes out")
        send(self, content)
        if waiting:
            steps.end("a letter goes out")

    def counted_reply(self: smtplib.SMTP) -> tuple[int, bytes]:
        nonlocal waiting
        is_about_a_letter, waiting = waiting, False
        if is_about_a_letter:
            steps.begin("the mail server takes a letter")
        reply = get_reply(self)
        if is_about_a_letter:
            steps.end("the mail server takes a letter")
        return reply

    smtplib.SMTP.send = counted_send  # type: ignore[method-assign]
    smtplib.SMTP.getreply = counted_reply  # type: ignore[method-assign]


def count_storage_requests(steps: Steps) -> None:
    """Count each request that boto3 makes of the object store."""
    open_url = urllib3.connectionpool.HTTPConnectionPool.urlopen

    def counted(self: Any, method: str, url: str, *arguments: Any, **options: Any) -> Any:
        label = f"{method} at the object store"
        steps.begin(label)
        response = open_url(self, method, url, *arguments, **options)
        steps.end(label)
        return response

    urllib3.connectionpool.HTTPConnectionPool.urlopen = counted  # type: ignore[method-assign]


def _transaction(request: BankRequest) -> int | None:
    # By the reference: in a product that is broken on purpose the key may be another at every try.
    return int(json.loads(request.body)["reference"]) if request.method == "POST" else None


def _subject(request: BankRequest) -> str:
    if request.method == "POST":
        return f"the request for transaction {_transaction(request)}"
    if "updated_since=" in request.path:
        return "the question for the bank's feed"
    return "the question about keys" if "idempotency_key=" in request.path else "the question about references"


def _work() -> str:
    """Return the name of the work that the calling thread is committing."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code is db_transaction.run_in_transaction.__code__:
            return _name(frame.f_locals["work"])
        frame = frame.f_back
    return "reading"


def _asker() -> str:
    """Return the innermost of the domain's functions that the calling thread is in."""
    frame = sys._getframe(1)
    while frame is not None:
        if str(frame.f_globals.get("__name__", "")).startswith(DOMAIN) and not frame.f_code.co_name.startswith("<"):
            return frame.f_code.co_name
        frame = frame.f_back
    return "setting up"


def _name(work: Any) -> str:
    name = work.func.__qualname__ if isinstance(work, partial) else work.__qualname__
    return name.removesuffix(".<locals>.<lambda>").replace(".<locals>.", ": ")
