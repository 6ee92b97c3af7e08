"""What the bank has answered outlives the bank: killed at any moment, it comes back with its word kept."""

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import psutil

from seedtrust_ops.sandbox.bank.process import BankProcess, start_bank
from seedtrust_ops_tests.sandbox.bank.bank_requests import API_KEY, body, client_of, fresh, movements, send

WORKERS = 4
ANSWERS_BEFORE_THE_KILL = 80


def post_until_it_dies(bank: BankProcess, sent: dict[str, dict[str, Any]], answered: list[str]) -> None:
    with client_of(bank) as client:
        while True:
            key, request = fresh("key"), body()
            sent[key] = request
            try:
                send(client, request, key).raise_for_status()
            except httpx.TransportError:
                return
            answered.append(key)


def test_a_kill_in_the_middle_of_work_loses_no_answer_and_pays_nothing_twice(database: Path) -> None:
    sent: dict[str, dict[str, Any]] = {}
    answered: list[str] = []
    bank = start_bank(database, api_key=API_KEY)
    workers = [threading.Thread(target=post_until_it_dies, args=(bank, sent, answered)) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    while len(answered) < ANSWERS_BEFORE_THE_KILL:
        assert any(worker.is_alive() for worker in workers)
        workers[0].join(0.01)
    bank.kill()
    for worker in workers:
        worker.join()

    port = int(bank.url.rsplit(":", 1)[1])
    with start_bank(database, api_key=API_KEY, port=port) as revived, client_of(revived) as client:
        assert revived.url == bank.url
        known = {transfer["idempotency_key"] for transfer in revived.control.ledger()["transfers"]}
        assert set(answered) <= known <= set(sent)
        for key, request in sent.items():
            assert send(client, request, key).status_code == (200 if key in known else 201)
        totals = revived.control.totals()
    assert totals["transfers"] == len(sent)
    assert totals["out_cents"] == len(sent) * 125_000
    assert totals["keys_paid_more_than_once"] == []


def test_keys_refusals_balance_clock_and_requests_outlive_a_kill(database: Path) -> None:
    key, refused_key = fresh("key"), fresh("key")
    request, refused = body(), body(counterparty__account_number="4220000004")
    bank = start_bank(database, api_key=API_KEY, available_cents=1_000_000)
    with client_of(bank) as client:
        first = send(client, request, key).json()
        assert send(client, refused, refused_key).status_code == 422
    bank.control.set_clock(3_600)
    bank.kill()

    with (
        start_bank(database, api_key="another-key", available_cents=5) as revived,
        client_of(revived) as client,
    ):
        again = send(client, request, key)
        assert (again.status_code, again.json()) == (200, first)
        assert send(client, {**request, "amount_cents": 1}, key).status_code == 409
        assert send(client, refused, refused_key).json()["code"] == "limit_exceeded"
        assert client.get("/v1/accounts/acct_escrow").json()["available_cents"] == 1_000_000 - 125_000
        assert send(client, body()).json()["created_at"] > first["created_at"]
        assert len(movements(revived, key)) == 1
        assert [seen["status"] for seen in revived.control.requests()[:2]] == [201, 422]


def test_a_bank_ends_with_whoever_started_it(database: Path) -> None:
    starter = (
        "import pathlib, sys, time\n"
        "from seedtrust_ops.sandbox.bank.process import start_bank\n"
        "print(start_bank(pathlib.Path(sys.argv[1]), api_key='k').pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", starter, str(database)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    bank = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.communicate()
    bank.wait(timeout=60)
