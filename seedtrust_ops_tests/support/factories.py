"""Creates the rows a transfer test needs: cases with money, approved requests, batches of transactions.

Every column has a valid default, so a test passes only what matters to it. Users, case parties, pending requests and
approval rules are in `case_factory`.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.resources.field_encryption import FernetFieldCipher
from seedtrust_ops.tables import (
    Account,
    Alert,
    Case,
    CaseParty,
    DisbursementRequest,
    HuntingtonBatch,
    HuntingtonTransaction,
    LedgerEntry,
    TransferAttempt,
    User,
)

ROUTING_NUMBER = "044000024"
"""Huntington's own, with a valid check digit."""

_numbers = itertools.count(1)


@dataclass(frozen=True)
class BuiltCase:
    """The ids of a created case, its account, its escrow specialist and its payee."""

    case_id: int
    account_id: int
    specialist_id: int
    payee_id: int


class Company:
    """Creates rows in one database and reads them back for assertions."""

    def __init__(self, sessions: sessionmaker[Session], cipher: FernetFieldCipher) -> None:
        self.sessions = sessions
        self.cipher = cipher

    def case(self, *, balance_cents: int = 10_000_000, specialist_active: bool = True) -> BuiltCase:
        """Create a case whose account has `balance_cents`, deposited by one ledger entry."""
        with self.sessions.begin() as session:
            specialist = self._user(session, "escrow_specialist", is_active=specialist_active)
            payee = self._user(session, "surrogate")
            case = Case(case_number=f"CASE-{next(_numbers)}", escrow_specialist_id=specialist.id)
            session.add(case)
            session.flush()
            session.add(CaseParty(case_id=case.id, user_id=payee.id, role="surrogate"))
            account = Account(case_id=case.id, balance_cents=balance_cents)
            session.add(account)
            session.flush()
            if balance_cents:
                session.add(LedgerEntry(account_id=account.id, amount_cents=balance_cents, kind="deposit"))
            return BuiltCase(case.id, account.id, specialist.id, payee.id)

    def request(self, case: BuiltCase, amount_cents: int, *, status: str = "approved") -> int:
        """Create a disbursement request for the case, approved by default; return its id."""
        with self.sessions.begin() as session:
            request = DisbursementRequest(
                case_id=case.case_id,
                payee_id=case.payee_id,
                amount_cents=amount_cents,
                category="monthly allowance",
                status=status,
                approved_at=datetime.now(UTC),
                approved_by="user:1",
                paid_at=datetime.now(UTC) if status == "paid" else None,
            )
            session.add(request)
            session.flush()
            return request.id

    def batch(self, amounts_cents: Sequence[int] = (), *, case: BuiltCase | None = None, **columns: Any) -> int:
        """Create a queued batch with one wire per amount, each for its own approved request; return its id."""
        case = case or self.case(balance_cents=sum(amounts_cents) or 1)
        with self.sessions.begin() as session:
            batch = HuntingtonBatch(**({"status": "queued", "queued_at": datetime.now(UTC)} | columns))
            session.add(batch)
            session.flush()
            batch_id = batch.id
        for amount_cents in amounts_cents:
            self.transaction(batch_id, self.request(case, amount_cents), amount_cents)
        return batch_id

    def big_batch(self, count: int, amount_cents: int = 1_000, *, method: str = "wire", **columns: Any) -> int:
        """Create a queued batch of `count` transactions with few statements; `columns` are set on the batch."""
        case = self.case(balance_cents=count * amount_cents)
        batch_id = self.batch(case=case, **columns)
        with self.sessions.begin() as session:
            requests = [
                DisbursementRequest(
                    case_id=case.case_id,
                    payee_id=case.payee_id,
                    amount_cents=amount_cents,
                    category="monthly allowance",
                    status="approved",
                )
                for _ in range(count)
            ]
            session.add_all(requests)
            session.flush()
            session.add_all(
                [self._transaction(batch_id, request.id, amount_cents, method=method) for request in requests]
            )
        return batch_id

    def transaction(self, batch_id: int, request_id: int | None, amount_cents: int, **columns: Any) -> int:
        """Create a pending wire in the batch; `account_number` is encrypted, other columns are set as given."""
        with self.sessions.begin() as session:
            transaction = self._transaction(batch_id, request_id, amount_cents, **columns)
            session.add(transaction)
            session.flush()
            return transaction.id

    def _transaction(
        self, batch_id: int, request_id: int | None, amount_cents: int, **columns: Any
    ) -> HuntingtonTransaction:
        number = str(columns.pop("account_number", 4_000_000_000 + next(_numbers)))
        defaults = {
            "method": "wire",
            "payee_name": "Dana Whitfield",
            "routing_number": ROUTING_NUMBER,
            "account_number_encrypted": self.cipher.encrypt(number),
            "account_number_last4": number[-4:],
            "account_type": "checking",
        }
        return HuntingtonTransaction(
            batch_id=batch_id,
            disbursement_request_id=request_id,
            amount_cents=amount_cents,
            **(defaults | columns),
        )

    def _user(self, session: Session, role: str, *, is_active: bool = True) -> User:
        number = next(_numbers)
        user = User(email=f"{role}{number}@example.test", full_name=f"{role} {number}", role=role, is_active=is_active)
        session.add(user)
        session.flush()
        return user

    def batch_row(self, batch_id: int) -> HuntingtonBatch:
        with self.sessions() as session:
            return session.scalars(select(HuntingtonBatch).where(HuntingtonBatch.id == batch_id)).one()

    def transactions(self, batch_id: int) -> list[HuntingtonTransaction]:
        """Return the batch's transactions, ordered by id."""
        with self.sessions() as session:
            return list(
                session.scalars(
                    select(HuntingtonTransaction)
                    .where(HuntingtonTransaction.batch_id == batch_id)
                    .order_by(HuntingtonTransaction.id)
                )
            )

    def statuses(self, batch_id: int) -> list[str]:
        return [transaction.status for transaction in self.transactions(batch_id)]

    def attempts(self, transaction_id: int) -> list[TransferAttempt]:
        with self.sessions() as session:
            return list(
                session.scalars(
                    select(TransferAttempt)
                    .where(TransferAttempt.transaction_id == transaction_id)
                    .order_by(TransferAttempt.id)
                )
            )

    def outcomes(self, transaction_id: int) -> list[str]:
        return [attempt.outcome for attempt in self.attempts(transaction_id)]

    def balance_cents(self, account_id: int) -> int:
        with self.sessions() as session:
            return session.scalars(select(Account.balance_cents).where(Account.id == account_id)).one()

    def ledger(self, transaction_id: int) -> list[tuple[str, int]]:
        """Return the kind and cents of each ledger entry of a transaction."""
        with self.sessions() as session:
            rows = session.execute(
                select(LedgerEntry.kind, LedgerEntry.amount_cents)
                .where(LedgerEntry.huntington_transaction_id == transaction_id)
                .order_by(LedgerEntry.id)
            )
            return [(row.kind, row.amount_cents) for row in rows]

    def request_status(self, request_id: int | None) -> str:
        with self.sessions() as session:
            return session.scalars(select(DisbursementRequest.status).where(DisbursementRequest.id == request_id)).one()

    def open_alerts(self) -> list[tuple[str, str]]:
        """Return the rule and subject of every open alert."""
        with self.sessions() as session:
            rows = session.execute(
                select(Alert.rule, Alert.subject).where(Alert.resolved_at.is_(None)).order_by(Alert.rule, Alert.subject)
            )
            return [(row.rule, row.subject) for row in rows]

    def unbalanced_accounts(self) -> list[int]:
        """Return the accounts whose balance is not the sum of their ledger entries; there must never be any."""
        with self.sessions() as session:
            return list(
                session.scalars(
                    select(Account.id)
                    .outerjoin(LedgerEntry, LedgerEntry.account_id == Account.id)
                    .group_by(Account.id)
                    .having(func.coalesce(func.sum(LedgerEntry.amount_cents), 0) != Account.balance_cents)
                )
            )
