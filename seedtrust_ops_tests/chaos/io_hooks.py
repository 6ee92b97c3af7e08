"""Hooks with which a worker process counts its own I/O steps: SQL commits and statements, HTTP requests, and SMTP.

They patch the libraries from outside; the product has no switch for them. The faults themselves are in `faults`.
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
from seedtrust_ops.domain.row_failures import RowByRow
from seedtrust_ops.resources.http1_connection import BankConnection, HttpRequest, HttpResponse
from seedtrust_ops_tests.chaos.injection_points import FaultInjector

DOMAIN = "seedtrust_ops.domain"
END_OF_MESSAGE = b"\r\n.\r\n"


def hook_commits(engine: Engine, injector: FaultInjector) -> None:
    """Count each COMMIT sent to the server, labeled with the function whose work it commits."""
    do_commit = engine.dialect.do_commit

    def counted(connection: Any) -> None:
        label = f"commit of {_committed_work()}"
        injector.begin_step(label, connection)
        do_commit(connection)
        injector.end_step(label, connection)

    engine.dialect.do_commit = counted


def hook_statements(engine: Engine, injector: FaultInjector, is_step: Callable[[str], bool]) -> None:
    """Count each statement that `is_step` accepts; a statement that the fault returns runs in its place."""

    def before(_connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> tuple[str, Any]:
        if is_step(statement):
            replacement = injector.begin_step(
                f"{statement.split(maxsplit=1)[0]} in {_innermost_domain_function()}", cursor.connection
            )
            if replacement is not None:
                return replacement, ()
        return statement, parameters

    event.listen(engine, "before_cursor_execute", before, retval=True)


def hook_bank_requests(injector: FaultInjector) -> None:
    """Count each request to the bank as two steps: sending it, and receiving its response.

    Sending begins just before the product's last check that the request may leave.
    """
    exchange, send, receive = BankConnection.exchange, BankConnection._send, BankConnection._receive
    subjects: dict[BankConnection, str] = {}

    async def counted(
        self: BankConnection, request: HttpRequest, may_send: Callable[[], bool] = lambda: True
    ) -> HttpResponse:
        subject = subjects[self] = _subject(request)
        transaction = _transaction(request)

        def checked() -> bool:
            injector.begin_step(f"{subject} is sent")
            is_allowed = may_send()
            if is_allowed and transaction is not None:
                injector.leaving.add(transaction)
            return is_allowed

        return await exchange(self, request, checked)

    def counted_send(self: BankConnection, line: Any, message: bytes) -> None:
        send(self, line, message)
        injector.leaving.clear()
        injector.end_step(f"{subjects[self]} is sent")

    async def counted_receive(self: BankConnection, line: Any) -> HttpResponse:
        label = f"{subjects[self]} gets no response"
        try:
            response = await receive(self, line)
            label = f"{subjects[self]} gets its response"
        finally:
            injector.begin_step(label)
            injector.end_step(label)
        return response

    BankConnection.exchange = counted  # type: ignore[method-assign]
    BankConnection._send = counted_send  # type: ignore[method-assign]
    BankConnection._receive = counted_receive  # type: ignore[method-assign]


def hook_smtp(injector: FaultInjector) -> None:
    """Count each email sent to the mail server and the reply to it; the commands before it change nothing."""
    send, get_reply = smtplib.SMTP.send, smtplib.SMTP.getreply
    awaiting_reply = False

    def counted_send(self: smtplib.SMTP, content: Any) -> None:
        nonlocal awaiting_reply
        awaiting_reply = isinstance(content, bytes) and content.endswith(END_OF_MESSAGE)
        if awaiting_reply:
            injector.begin_step("email is sent")
        send(self, content)
        if awaiting_reply:
            injector.end_step("email is sent")

    def counted_reply(self: smtplib.SMTP) -> tuple[int, bytes]:
        nonlocal awaiting_reply
        is_reply_to_email, awaiting_reply = awaiting_reply, False
        if is_reply_to_email:
            injector.begin_step("mail server replies to email")
        reply = get_reply(self)
        if is_reply_to_email:
            injector.end_step("mail server replies to email")
        return reply

    smtplib.SMTP.send = counted_send  # type: ignore[method-assign]
    smtplib.SMTP.getreply = counted_reply  # type: ignore[method-assign]


def hook_storage_requests(injector: FaultInjector) -> None:
    """Count each request that boto3 sends to the object store."""
    open_url = urllib3.connectionpool.HTTPConnectionPool.urlopen

    def counted(self: Any, method: str, url: str, *arguments: Any, **options: Any) -> Any:
        label = f"{method} at the object store"
        injector.begin_step(label)
        response = open_url(self, method, url, *arguments, **options)
        injector.end_step(label)
        return response

    urllib3.connectionpool.HTTPConnectionPool.urlopen = counted  # type: ignore[method-assign]


def _transaction(request: HttpRequest) -> int | None:
    # By reference, because a mutated product may use another idempotency key for every attempt.
    return int(json.loads(request.body)["reference"]) if request.method == "POST" else None


def _subject(request: HttpRequest) -> str:
    if request.method == "POST":
        return f"the request for transaction {_transaction(request)}"
    if "updated_since=" in request.path:
        return "the query for the transfer feed"
    return "the query by keys" if "idempotency_key=" in request.path else "the query by references"


def _committed_work() -> str:
    """Return the name of the function whose work the calling thread is committing."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code is db_transaction.run_in_transaction.__code__:
            return _name(frame.f_locals["work"])
        frame = frame.f_back
    return "a read-only session"


def _innermost_domain_function() -> str:
    """Return the name of the innermost domain function on the calling thread's stack."""
    frame = sys._getframe(1)
    while frame is not None:
        if str(frame.f_globals.get("__name__", "")).startswith(DOMAIN) and not frame.f_code.co_name.startswith("<"):
            return frame.f_code.co_name
        frame = frame.f_back
    return "setup"


def _name(work: Any) -> str:
    name = work.func.__qualname__ if isinstance(work, partial) else work.__qualname__
    if name.startswith(RowByRow.__qualname__):
        # What is written for all rows together, or for one of them.
        written = next(cell.cell_contents for cell in work.__closure__ if callable(cell.cell_contents))
        return _name(written).partition(": ")[0]
    return name.removesuffix(".<locals>.<lambda>").replace(".<locals>.", ": ")
