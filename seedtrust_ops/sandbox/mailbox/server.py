"""The SMTP server and the control endpoints of one mailbox.

Clients of the product speak SMTP alone; tests and the demo read what came over HTTP, under /sandbox.
"""

import asyncio
import base64
import socket
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from seedtrust_ops.sandbox.mailbox.faults import Order, Orders, Step
from seedtrust_ops.sandbox.mailbox.store import MailboxStore

LARGEST_LETTER = 20_000_000
"""Bytes; reports of 5 MB grow by a third on their way."""
PAGE = 100


class Mailbox:
    """One mail server: what it keeps, what it was told to do, and how often somebody connected."""

    def __init__(self, store: MailboxStore, username: str | None, password: str | None) -> None:
        """Take letters from anybody, or only from who logs in with this name and password."""
        self.store = store
        self.orders = Orders()
        self.connections = 0
        self._login = (username, password) if username is not None else None

    def serve_smtp(self, listener: socket.socket) -> None:
        """Take letters on `listener` in a thread of its own, until the process ends."""

        async def serve() -> None:
            server = await asyncio.get_running_loop().create_server(self._connection, sock=listener)
            await server.serve_forever()

        threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()

    def _connection(self) -> SMTP:
        self.connections += 1
        return SMTP(
            self,
            data_size_limit=LARGEST_LETTER,
            enable_SMTPUTF8=True,
            hostname="mailbox.sandbox",
            ident="SeedTrust sandbox mailbox",
            authenticator=self._authenticate,
            auth_required=self._login is not None,
            auth_require_tls=False,
        )

    def _authenticate(
        self, _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, login: Any
    ) -> AuthResult:
        given = (login.login.decode(), login.password.decode()) if isinstance(login, LoginPassword) else None
        return AuthResult(success=given == self._login, handled=False)

    async def handle_MAIL(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Take the sender, or be busy, or be gone."""
        order = await self._order(server, "MAIL", [])
        if order is not None:
            await server.push("421 4.3.2 The sandbox is busy")
            self._hang_up(server)
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Take the recipient, or refuse it for ever or for now."""
        order = await self._order(server, "RCPT", [address])
        if order is not None:
            return (
                f"550 5.1.1 <{address}> is unknown here"
                if order.trouble == "refuse"
                else f"451 4.7.1 <{address}> must wait"
            )
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Keep the letter, or do with it what was ordered."""
        order = await self._order(server, "DATA", envelope.rcpt_tos)
        if order is not None and order.trouble == "refuse_content":
            return "554 5.6.0 The sandbox does not like what this letter says"
        assert isinstance(envelope.content, bytes), "decode_data is off"
        self.store.keep(envelope.mail_from or "", envelope.rcpt_tos, envelope.content)
        if order is not None and order.trouble == "drop_after_accepting":
            self._hang_up(server)
        return "250 OK, it is kept"

    async def _order(self, server: SMTP, step: Step, recipients: list[str]) -> Order | None:
        """Return the order about this step, if there is one; delays and hang-ups are carried out here."""
        order = self.orders.next(step, recipients)
        if order is None:
            return None
        if order.trouble == "delay":
            await asyncio.sleep(order.seconds)
        if order.trouble in ("drop_at_mail", "drop_before_accepting"):
            self._hang_up(server)
        return order

    def _hang_up(self, server: SMTP) -> None:
        assert server.transport is not None, "a client is connected"
        server.transport.close()
        # To aiosmtpd this is a connection that was lost, which it is.
        raise asyncio.CancelledError


def control_app(mailbox: Mailbox, smtp_port: int) -> Starlette:
    """Return the endpoints by which tests and the demo arrange the mail server's day and see it."""

    async def give_order(request: Request) -> JSONResponse:
        try:
            mailbox.orders.give(Order.model_validate_json(await request.body()))
        except ValidationError as error:
            return JSONResponse({"message": str(error)}, 422)
        return JSONResponse({}, 201)

    async def clear_orders(_request: Request) -> JSONResponse:
        mailbox.orders.clear()
        return JSONResponse({})

    async def show_letters(request: Request) -> JSONResponse:
        query = request.query_params
        letters = mailbox.store.letters(query.get("recipient"), int(query.get("after", "0")), PAGE)
        return JSONResponse(
            {"letters": [{**one, "content": base64.b64encode(one["content"]).decode()} for one in letters]}
        )

    async def empty(_request: Request) -> JSONResponse:
        mailbox.store.empty()
        return JSONResponse({})

    def shows(what: Callable[[], object]) -> Callable[[Request], Awaitable[JSONResponse]]:
        async def show(_request: Request) -> JSONResponse:
            return JSONResponse(what())

        return show

    return Starlette(
        routes=[
            Route("/healthz", shows(lambda: {"smtp_port": smtp_port})),
            Route("/sandbox/orders", give_order, methods=["POST"]),
            Route("/sandbox/orders", clear_orders, methods=["DELETE"]),
            Route("/sandbox/letters", show_letters, methods=["GET"]),
            Route("/sandbox/letters", empty, methods=["DELETE"]),
            Route("/sandbox/message-ids", shows(mailbox.store.message_ids)),
            Route(
                "/sandbox/totals",
                shows(lambda: {"letters": mailbox.store.count(), "connections": mailbox.connections}),
            ),
        ]
    )
