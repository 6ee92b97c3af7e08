"""Banks that are new for every case, behind one address: hundreds of cases, and no bank's process is started for them.

So that a case meets an empty feed, and transaction ids that were used before. A bank that must be killed is started
by `sandbox.bank.process.start_bank` instead.
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


class FreshBanks:
    """One listener on loopback, and behind it the bank of the case; made by `serve_fresh_banks`."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.api_key = secrets.token_hex(16)
        self.funding_account_id = "acct_escrow"
        self.control = SandboxBank(url)
        self._folder = folder
        self.renew()

    def renew(self, **settings: Any) -> None:
        """Put a bank in place that never saw a request; `settings` are `BankSettings`'."""
        sound = {"api_key": self.api_key, "funding_account_id": self.funding_account_id}
        file = self._folder / f"bank-{secrets.token_hex(8)}.sqlite"
        self._bank = Bank(BankSettings(database=file, **({"available_cents": OPENING_CENTS} | sound | settings)))

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request as the case's bank does (ASGI)."""
        await self._bank.app(scope, receive, send)


@contextmanager
def serve_fresh_banks(folder: Path) -> Iterator[FreshBanks]:
    """Serve banks, each with a file of its own in `folder`, from a thread of this process."""
    listener = listen(0)
    banks = FreshBanks(f"http://127.0.0.1:{listener.getsockname()[1]}", folder)
    server = uvicorn.Server(
        uvicorn.Config(
            banks.app,
            interface="asgi3",
            http=BankProtocol,
            ws="none",
            lifespan="off",
            # A case that is over cuts off the answers that are late.
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
