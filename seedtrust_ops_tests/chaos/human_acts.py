"""What people do while payments are on their way, and the checks that each is paid once and somebody knows.

The model has these acts at random times; here they are cases of their own, which the mutations need.
"""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import text

from seedtrust_ops.domain.transfers.batch_processor import process_batch
from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops_tests.chaos.final_invariants import BY_HAND
from seedtrust_ops_tests.chaos.recovery import auto_heal
from seedtrust_ops_tests.chaos.shards import CaseResult, Shard
from seedtrust_ops_tests.chaos.template_batch import ACCEPTED, RETURNED
from seedtrust_ops_tests.chaos.transfer_cases import TransferCase, open_case, recover_and_check
from seedtrust_ops_tests.chaos.violations import Violation, ViolationKind

PAY_AGAIN = """
    with batch as (
        insert into huntington_batches (status, queued_at) values ('queued', clock_timestamp()) returning id
    )
    insert into huntington_transactions (batch_id, disbursement_request_id, method, amount_cents, payee_name,
        routing_number, account_number_encrypted, account_number_last4, account_type)
    select batch.id, disbursement_request_id, method, amount_cents, payee_name, routing_number,
           account_number_encrypted, account_number_last4, account_type
      from huntington_transactions transaction, batch where transaction.id = :id
    returning batch_id
"""
"""Puts the request of a transaction into a new batch."""


@dataclass(frozen=True)
class HumanAct:
    """An act while the batch's transfers are in flight; it returns what is wrong afterwards."""

    name: str
    act: Callable[[TransferCase], list[Violation]]


def _sql(case: TransferCase, statement: str, transaction_id: int) -> list[tuple[object, ...]]:
    with case.sessions.begin() as session:
        result = session.execute(text(statement), {"id": transaction_id})
        return [tuple(row) for row in result] if result.returns_rows else []  # type: ignore[attr-defined]


def _fail_and_pay_again(case: TransferCase) -> list[Violation]:
    _sql(
        case,
        f"update huntington_transactions set status = 'failed', failure_reason = '{BY_HAND}' where id = :id",
        ACCEPTED,
    )
    ((batch_id,),) = _sql(case, PAY_AGAIN, ACCEPTED)
    _process(case, int(str(batch_id)))
    return recover_and_check(case)


def _deny_before_it_is_returned(case: TransferCase) -> list[Violation]:
    request = "(select disbursement_request_id from huntington_transactions where id = :id)"
    _sql(case, f"update disbursement_requests set status = 'denied' where id = {request}", RETURNED)
    case.banks.control.settle()
    auto_heal(case.sessions, case.config)
    violations = recover_and_check(case)
    ((status,),) = _sql(case, f"select status from disbursement_requests where id = {request}", RETURNED)
    if status != "denied":
        violations.append(Violation(ViolationKind.STATUS_MISMATCH, f"A request that was denied became '{status}'."))
    return violations


def _pay_from_our_account(case: TransferCase) -> list[Violation]:
    case.banks.control.add_unknown_transfer()
    case.banks.control.add_unknown_transfer("987654321", method="ach", status="accepted")
    return recover_and_check(case)


def _empty_the_office(case: TransferCase) -> list[Violation]:
    """Everybody has left when a payment comes back: on-call is notified."""
    with case.sessions.begin() as session:
        session.execute(text("update users set is_active = false"))
    return recover_and_check(case)


HUMAN_ACTS = (
    HumanAct("a person fails a transfer that the bank has accepted, and pays its request again", _fail_and_pay_again),
    HumanAct("a person denies a request whose payment settles and is returned", _deny_before_it_is_returned),
    HumanAct("everybody who is responsible has left when a payment is returned", _empty_the_office),
    HumanAct("somebody else pays from our funding account", _pay_from_our_account),
)


def run_human_act(shard: Shard, template: str, act: HumanAct) -> CaseResult:
    """Send the batch, let the person act, recover, and check everything."""
    with open_case(shard, template, concurrency=4) as case:
        _process(case, 1)
        return CaseResult(act.name, act.act(case))


def _process(case: TransferCase, batch_id: int) -> None:
    try:
        process_batch(case.sessions, case.config.open_bank, case.config.batch_run(batch_id, f"run of {batch_id}"))
    except SeedTrustError:
        return  # Recovery does the rest, as the next run would.
