"""The bank loses nothing that it has confirmed, even if it is killed."""

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import psutil

from seedtrust_ops.sandbox.bank.process import BankProcess, start_bank
from seedtrust_ops_tests.sandbox.bank.bank_requests import API_KEY, body, client_for, movements, send, unique

WORKERS = 4
RESPONSES_BEFORE_KILL = 80


def post_until_killed(bank: BankProcess, sent: dict[str, dict[str, Any]], confirmed: list[str]) -> None:
    with client_for(bank) as client:
        while True:
            key, request = unique("key"), body()
            sent[key] = request
            try:
                send(client, request, key).raise_for_status()
            except httpx.TransportError:
                return
            confirmed.append(key)


def test_kill_under_load_loses_and_duplicates_nothing(database: Path) -> None:
    sent: dict[str, dict[str, Any]] = {}
    confirmed: list[str] = []
    bank = start_bank(database, api_key=API_KEY)
    workers = [threading.Thread(target=post_until_killed, args=(bank, sent, confirmed)) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    while len(confirmed) < RESPONSES_BEFORE_KILL:
        assert any(worker.is_alive() for worker in workers)
        workers[0].join(0.01)
    bank.kill()
    for worker in workers:
        worker.join()

    port = int(bank.url.rsplit(":", 1)[1])
    with start_bank(database, api_key=API_KEY, port=port) as restarted, client_for(restarted) as client:
        assert restarted.url == bank.url
        known = {transfer["idempotency_key"] for transfer in restarted.control.ledger()["transfers"]}
        assert set(confirmed) <= known <= set(sent)
        for key, request in sent.items():
            assert send(client, request, key).status_code == (200 if key in known else 201)
        totals = restarted.control.totals()
    assert totals["transfers"] == len(sent)
    assert totals["out_cents"] == len(sent) * 125_000
    assert totals["keys_paid_more_than_once"] == []


def test_keys_refusals_balance_clock_and_requests_survive_a_kill(database: Path) -> None:
    key, refused_key = unique("key"), unique("key")
    request, refused = body(), body(counterparty__account_number="4220000004")
    bank = start_bank(database, api_key=API_KEY, available_cents=1_000_000)
    with client_for(bank) as client:
        first = send(client, request, key).json()
        assert send(client, refused, refused_key).status_code == 422
    bank.control.set_clock(3_600)
    bank.kill()

    with (
        start_bank(database, api_key="another-key", available_cents=5) as restarted,
        client_for(restarted) as client,
    ):
        repeated = send(client, request, key)
        assert (repeated.status_code, repeated.json()) == (200, first)
        assert send(client, {**request, "amount_cents": 1}, key).status_code == 409
        assert send(client, refused, refused_key).json()["code"] == "limit_exceeded"
        assert client.get("/v1/accounts/acct_escrow").json()["available_cents"] == 1_000_000 - 125_000
        assert send(client, body()).json()["created_at"] > first["created_at"]
        assert len(movements(restarted, key)) == 1
        assert [logged["status"] for logged in restarted.control.requests()[:2]] == [201, 422]


def test_bank_stops_when_its_parent_is_killed(database: Path) -> None:
    parent_code = (
        "import pathlib, sys, time\n"
        "from seedtrust_ops.sandbox.bank.process import start_bank\n"
        "print(start_bank(pathlib.Path(sys.argv[1]), api_key='k').pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", parent_code, str(database)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    bank = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.communicate()
    bank.wait(timeout=60)
