"""Typed ORM classes: `platform` has the platform's tables (schema `public`), `ops` this project's (schema `ops`).

Importing this package loads both, so that `PlatformTable.metadata` and `OpsTable.metadata` are complete.
"""

from seedtrust_ops.tables.base import OpsTable, PlatformTable
from seedtrust_ops.tables.ops import (
    Alert,
    AlertNotification,
    BalanceAlert,
    BankFeedCursor,
    BatchLease,
    Notification,
    NotificationAttachment,
    OutboxRow,
    OutgoingEvent,
    ReportClaim,
    ShadowDecision,
    Switch,
    TransferAttempt,
)
from seedtrust_ops.tables.platform import (
    Account,
    ApprovalRule,
    Case,
    CaseParty,
    DisbursementRequest,
    ErrorRecord,
    HuntingtonBatch,
    HuntingtonTransaction,
    JobRun,
    LedgerEntry,
    ReportRequest,
    User,
    ViewingDisbursementRequest,
    ViewingPayment,
)

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
