"""Compares every job with the legacy systems, or says why a job cannot be compared."""

from collections.abc import Iterable
from datetime import tzinfo

from sqlalchemy.orm import Session

from seedtrust_ops.domain.shadow_mode.comparison.approvals import BY_DATE, BY_RULE, compare_approvals
from seedtrust_ops.domain.shadow_mode.comparison.emails import KIND_BY_JOB, SentEmail, compare_emails
from seedtrust_ops.domain.shadow_mode.comparison.models import Comparison, ComparisonPeriod
from seedtrust_ops.domain.shadow_mode.comparison.reports import compare_reports
from seedtrust_ops.domain.shadow_mode.comparison.transactions import compare_transactions

NO_TRACE = {
    "off_site_tracking": "the rows it clears are gone; check one of its runs",
    "account_balance_check": "the legacy check stores nothing in the database; compare its report with the run",
    "aws_status_check": "the legacy check posts only to the internal API",
}


def compare_all_jobs(
    session: Session, period: ComparisonPeriod, *, emails: Iterable[SentEmail] | None, zone: tzinfo
) -> list[Comparison]:
    """Return one comparison per job, or per group of jobs that belong together.

    Args:
        session: only read.
        period: the period to compare.
        emails: the emails that the legacy systems sent, or None if unknown.
        zone: the office's time zone.
    """
    sent = None if emails is None else list(emails)
    return [
        compare_transactions(session, period),
        compare_approvals(session, BY_DATE, period),
        compare_approvals(session, BY_RULE, period),
        compare_reports(session, period),
        *(compare_emails(session, job, period, sent, zone) for job in KIND_BY_JOB),
        *(Comparison(job, note=note) for job, note in NO_TRACE.items()),
    ]
