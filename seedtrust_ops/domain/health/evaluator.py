"""Asks every rule that is due and makes alerts of what they find: opened once, raised where it gets worse, resolved.

A rule that can't be asked stops no other, and its alerts stay as they are; that it could not be asked is an alert.
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
from seedtrust_ops.domain.health.rule import Rule
from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.severity import Severity

THE_RULE_ITSELF = "the rule itself"
STATEMENT_SECONDS = 15
"""The longest that a statement of a rule may take."""


@dataclass
class Evaluation:
    """What a look at the rules came to."""

    asked: list[str] = field(default_factory=list)
    found: int = 0
    opened: int = 0
    resolved: int = 0
    failures: list[str] = field(default_factory=list)
    """A sentence for each rule that could not be asked."""
    unasked: list[str] = field(default_factory=list)
    """Rules that were due when the time was over."""


def evaluate(
    sessions: Sessions,
    rules: Sequence[Rule],
    *,
    now: datetime,
    last_asked: Mapping[str, datetime],
    quiet_seconds: float,
    longest_seconds: float,
) -> Evaluation:
    """Ask the rules that are due, each in a transaction of its own, and open and resolve their alerts.

    Args:
        sessions: on the application's database.
        rules: in the order in which they are asked.
        now: aware.
        last_asked: by rule, when it was asked last (aware).
        quiet_seconds: how long something must not have been found for until its alert is resolved.
        longest_seconds: no rule is asked after so long; those left come first next time, being due.
    """
    evaluation = Evaluation()
    end = monotonic() + longest_seconds
    for rule in rules:
        last = last_asked.get(rule.name)
        if last is not None and timedelta(0) <= now - last < timedelta(seconds=rule.every_seconds):
            continue
        if monotonic() >= end:
            evaluation.unasked.append(rule.name)
            continue
        _ask(sessions, rule, evaluation, quiet_seconds)
    return evaluation


def _ask(sessions: Sessions, rule: Rule, evaluation: Evaluation, quiet_seconds: float) -> None:
    try:
        findings = run_in_transaction(sessions, partial(_find, rule))
    except Exception as error:  # noqa: BLE001  Whatever is wrong with one rule is told, and stops no other.
        failure = Finding(rule.name, THE_RULE_ITSELF, Severity.HIGH, _sentence(rule, error))
        evaluation.failures.append(failure.detail)
        evaluation.opened += run_in_transaction(sessions, partial(record_failure, failure=failure))
        return
    opened, resolved = run_in_transaction(
        sessions, partial(record_findings, rule=rule.name, findings=findings, quiet_seconds=quiet_seconds)
    )
    evaluation.asked.append(rule.name)
    evaluation.found += len(findings)
    evaluation.opened += opened
    evaluation.resolved += resolved


def _find(rule: Rule, session: Session) -> Sequence[Finding]:
    session.execute(text(f"set local statement_timeout = '{STATEMENT_SECONDS}s'"))
    return rule.find(session)


def _sentence(rule: Rule, error: Exception) -> str:
    """Return why the rule could not be asked. What a driver or a mistake of ours says may hold rows: it is left out."""
    if isinstance(error, SeedTrustError):
        why = str(error)
    elif isinstance(error, DBAPIError):
        diagnosis = getattr(error.orig, "diag", None)
        why = f"the database said: {getattr(diagnosis, 'message_primary', None) or type(error.orig).__name__}."
    else:
        why = f"{type(error).__name__}, which is a mistake of this program or something that it does not expect."
    return f"The health rule {rule.name} could not be asked, so nobody sees what it looks after: {why}"
