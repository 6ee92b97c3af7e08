"""Typed ORM classes of the platform's tables (schema `public`) and this project's (schema `ops`), by subject.

Importing this package loads all of them, so that `PlatformTable.metadata` and `OpsTable.metadata` are complete.
"""

from seedtrust_ops.tables.accounts import Account, LedgerEntry
from seedtrust_ops.tables.alerts import Alert, AlertNotification, BalanceAlert
from seedtrust_ops.tables.base import OpsTable, PlatformTable
from seedtrust_ops.tables.disbursements import ApprovalRule, DisbursementRequest
from seedtrust_ops.tables.huntington import HuntingtonBatch, HuntingtonTransaction
from seedtrust_ops.tables.job_runs import ErrorRecord, JobRun
from seedtrust_ops.tables.outbox import Notification, NotificationAttachment, OutboxRow, OutgoingEvent
from seedtrust_ops.tables.reports import ReportClaim, ReportRequest
from seedtrust_ops.tables.shadow import ShadowDecision
from seedtrust_ops.tables.transfer_state import BankFeedCursor, BatchLease, Switch, TransferAttempt
from seedtrust_ops.tables.user_presence import ViewingDisbursementRequest, ViewingPayment
from seedtrust_ops.tables.users_and_cases import Case, CaseParty, User

__all__ = [
    "Account",
    "Alert",
    "AlertNotification",
    "ApprovalRule",
    "BalanceAlert",
    "BankFeedCursor",
    "BatchLease",
    "Case",
    "CaseParty",
    "DisbursementRequest",
    "ErrorRecord",
    "HuntingtonBatch",
    "HuntingtonTransaction",
    "JobRun",
    "LedgerEntry",
    "Notification",
    "NotificationAttachment",
    "OpsTable",
    "OutboxRow",
    "OutgoingEvent",
    "PlatformTable",
    "ReportClaim",
    "ReportRequest",
    "ShadowDecision",
    "Switch",
    "TransferAttempt",
    "User",
    "ViewingDisbursementRequest",
    "ViewingPayment",
]
