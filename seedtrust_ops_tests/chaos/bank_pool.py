"""A fresh bank for every case behind one address, so that hundreds of cases need no process of their own.

Every case meets an empty transfer feed and can reuse transaction ids. A bank that must be killed is started by
`sandbox.bank.process.start_bank` instead.
"""

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from seedtrust_ops.sandbox.asgi_server import listen
from seedtrust_ops.sandbox.bank.control_client import SandboxBank
from seedtrust_ops.sandbox.bank.faulty_responses import BankProtocol
from seedtrust_ops.sandbox.bank.server import Bank, BankSettings

OPENING_CENTS = 10**12


class BankPool:
    """One listener on loopback, and behind it the current case's bank. Created by `serve_bank_pool`."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.api_key = secrets.token_hex(16)
        self.funding_account_id = "acct_escrow"
        self.control = SandboxBank(url)
        self._folder = folder
        self.replace_bank()

    def replace_bank(self, **settings: Any) -> None:
        """Switch to a bank that has never seen a request; `settings` are fields of `BankSettings`."""
        defaults = {"api_key": self.api_key, "funding_account_id": self.funding_account_id}
        file = self._folder / f"bank-{secrets.token_hex(8)}.sqlite"
        self._bank = Bank(BankSettings(database=file, **({"available_cents": OPENING_CENTS} | defaults | settings)))

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request to the current bank (ASGI)."""
        await self._bank.app(scope, receive, send)


@contextmanager
def serve_bank_pool(folder: Path) -> Iterator[BankPool]:
    """Serve banks from a thread of this process; each keeps its database in `folder`."""
    listener = listen(0)
    banks = BankPool(f"http://127.0.0.1:{listener.getsockname()[1]}", folder)
    server = uvicorn.Server(
        uvicorn.Config(
            banks.app,
            interface="asgi3",
            http=BankProtocol,
            ws="none",
            lifespan="off",
            # A finished case cuts off its late responses; uvicorn need not log that.
            log_level="critical",
            access_log=False,
            proxy_headers=False,
            timeout_graceful_shutdown=1,
        )
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    banks.control.wait_until_healthy(120)
    try:
        yield banks
    finally:
        server.should_exit = True
        thread.join()
        banks.control.close()
