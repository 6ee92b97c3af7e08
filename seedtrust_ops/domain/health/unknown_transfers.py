"""Health of the books: transfers at the bank that nothing explains, and about which no alert is open any more.

Auto-heal opens their alerts (`domain/transfers/unknown_transfers`). This rule finds what a person closed without an
explanation, and what counts as explained by a transaction that does not exist.
"""

from sqlalchemy import and_, exists, or_, select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.grouped_alerts import MAX_SINGLE_ALERTS, list_findings
from seedtrust_ops.domain.alerts.store import Finding
from seedtrust_ops.domain.transfers.unknown_transfers import UNKNOWN_TRANSFERS, read_transfers, to_finding
from seedtrust_ops.tables import Alert, HuntingtonTransaction, TransferEvidence, UnknownTransfer


def unknown_transfer(session: Session) -> list[Finding]:
    """Find the unexplained transfers that no alert of auto-heal is about; more than 20 become one finding."""
    group = UNKNOWN_TRANSFERS
    found_by_rule = {
        row.subject: row.last_found_at is not None
        for row in session.execute(
            select(Alert.subject, Alert.last_found_at).where(Alert.rule == group.rule, Alert.resolved_at.is_(None))
        )
    }
    if found_by_rule.get(group.subject) is False:
        return []
    is_explained = or_(
        UnknownTransfer.explained_by.is_not(None),
        exists().where(
            or_(
                HuntingtonTransaction.id == UnknownTransfer.transaction_id,
                HuntingtonTransaction.bank_transfer_id == UnknownTransfer.bank_transfer_id,
            )
        ),
        exists().where(
            TransferEvidence.transaction_id == UnknownTransfer.transaction_id, TransferEvidence.settled_as.is_not(None)
        ),
    )
    unexplained = read_transfers(session, ~and_(UnknownTransfer.explained_at.is_not(None), is_explained))
    findings = [finding for one in unexplained if found_by_rule.get((finding := to_finding(one)).subject, True)]
    if findings and (group.subject in found_by_rule or len(findings) > MAX_SINGLE_ALERTS):
        severity = max((one.severity for one in findings), key=lambda severity: severity.priority)
        return [Finding(group.rule, group.subject, severity, list_findings(group, findings))]
    return findings
