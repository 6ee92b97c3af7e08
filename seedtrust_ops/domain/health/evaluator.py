"""Evaluates every rule that is due and turns findings into alerts: opened once, raised if worse, resolved when gone.

A rule that can't be evaluated does not stop the others: its alerts stay as they are, and an alert says that it could
not be evaluated.
See docs/decisions/alerts.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from time import monotonic

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.store import Finding, record_failure, record_findings
from seedtrust_ops.domain.db_transaction import Sessions, run_in_transaction
from seedtrust_ops.domain.health.rule import HealthRule
from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.severity import Severity

RULE_EVALUATION = "rule evaluation"
"""The subject of the alert that a rule could not be evaluated."""
STATEMENT_TIMEOUT_SECONDS = 15


@dataclass
class Evaluation:
    """The result of evaluating the rules once."""

    evaluated: list[str] = field(default_factory=list)
    found: int = 0
    opened: int = 0
    resolved: int = 0
    failures: list[str] = field(default_factory=list)
    """A sentence for each rule that could not be evaluated."""
    postponed: list[str] = field(default_factory=list)
    """Rules that were due when the time was up; they are evaluated first on the next tick."""


def evaluate(
    sessions: Sessions,
    rules: Sequence[HealthRule],
    *,
    now: datetime,
    last_evaluated: Mapping[str, datetime],
    quiet_seconds: float,
    max_seconds: float,
) -> Evaluation:
    """Evaluate the rules that are due, each in its own transaction, and open and resolve their alerts.

    Args:
        sessions: on the application's database.
        rules: in the order of evaluation.
        now: aware.
        last_evaluated: by rule, when it was last evaluated (aware).
        quiet_seconds: how long a finding must be gone before its alert is resolved.
        max_seconds: no rule is started after this time; the others stay due for the next tick.
    """
    evaluation = Evaluation()
    deadline = monotonic() + max_seconds
    for rule in rules:
        last = last_evaluated.get(rule.name)
        if last is not None and timedelta(0) <= now - last < timedelta(seconds=rule.min_interval_seconds):
            continue
        if monotonic() >= deadline:
            evaluation.postponed.append(rule.name)
            continue
        _evaluate_rule(sessions, rule, evaluation, quiet_seconds)
    return evaluation


def _evaluate_rule(sessions: Sessions, rule: HealthRule, evaluation: Evaluation, quiet_seconds: float) -> None:
    try:
        findings = run_in_transaction(sessions, partial(_find, rule))
        opened, resolved = run_in_transaction(
            sessions, partial(record_findings, rule=rule.name, findings=findings, quiet_seconds=quiet_seconds)
        )
    except Exception as error:  # noqa: BLE001  Any error of one rule becomes an alert and must not stop the others.
        failure = Finding(rule.name, RULE_EVALUATION, Severity.HIGH, _failure_detail(rule, error))
        evaluation.failures.append(failure.detail)
        evaluation.opened += run_in_transaction(sessions, partial(record_failure, failure=failure))
        return
    evaluation.evaluated.append(rule.name)
    evaluation.found += len(findings)
    evaluation.opened += opened
    evaluation.resolved += resolved


def _find(rule: HealthRule, session: Session) -> Sequence[Finding]:
    session.execute(text(f"set local statement_timeout = '{STATEMENT_TIMEOUT_SECONDS}s'"))
    return rule.find(session)


def _failure_detail(rule: HealthRule, error: Exception) -> str:
    """Return why the rule could not be evaluated, without the text of unexpected errors, which may contain row data."""
    if isinstance(error, SeedTrustError):
        reason = str(error)
    elif isinstance(error, DBAPIError):
        diagnosis = getattr(error.orig, "diag", None)
        reason = f"database error: {getattr(diagnosis, 'message_primary', None) or type(error.orig).__name__}."
    else:
        reason = f"{type(error).__name__}, an unexpected error, most likely a bug in the rule."
    return f"The health rule {rule.name} could not be evaluated, so nothing monitors what it covers: {reason}"
