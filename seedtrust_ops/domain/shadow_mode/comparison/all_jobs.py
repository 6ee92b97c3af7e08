"""Compares every job: those that leave traces with them, and of the others says why that can't be done."""

from collections.abc import Iterable
from datetime import tzinfo

from sqlalchemy.orm import Session

from seedtrust_ops.domain.shadow_mode.comparison.approvals import BY_DATE, BY_RULE, compare_approvals
from seedtrust_ops.domain.shadow_mode.comparison.emails import KINDS, SentLetter, compare_letters
from seedtrust_ops.domain.shadow_mode.comparison.models import Comparison, Period
from seedtrust_ops.domain.shadow_mode.comparison.reports import compare_reports
from seedtrust_ops.domain.shadow_mode.comparison.transactions import compare_transactions

NO_TRACE = {
    "off_site_tracking": "it leaves rows that are gone; look at one of its runs",
    "account_balance_check": "the legacy check keeps nothing in the database; compare its report with the run's table",
    "aws_status_check": "what the legacy check posts is at the internal API alone",
}


def compare_everything(
    session: Session, period: Period, *, letters: Iterable[SentLetter] | None, zone: tzinfo
) -> list[Comparison]:
    """Return one comparison a job, or for jobs that belong together.

    Args:
        session: any; nothing is changed.
        period: what is compared.
        letters: those that the legacy systems sent, None where nobody knows.
        zone: the office's.
    """
    sent = None if letters is None else list(letters)
    return [
        compare_transactions(session, period),
        compare_approvals(session, BY_DATE, period),
        compare_approvals(session, BY_RULE, period),
        compare_reports(session, period),
        *(compare_letters(session, job, period, sent, zone) for job in KINDS),
        *(Comparison(job, note=note) for job, note in NO_TRACE.items()),
    ]
