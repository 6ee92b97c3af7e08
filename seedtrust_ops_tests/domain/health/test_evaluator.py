"""The life cycle of an alert: opened once, renewed while found, raised if it gets worse, resolved once."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.domain.alerts.store import Finding, open_alert
from seedtrust_ops.domain.health.evaluator import RULE_EVALUATION, Evaluation, evaluate
from seedtrust_ops.domain.health.rule import HealthRule
from seedtrust_ops.errors import ConfigurationError
from seedtrust_ops.severity import Severity
from seedtrust_ops.tables import Alert

Find = Callable[[Session], Sequence[Finding]]


def finding(subject: str = "batch 1", severity: Severity = Severity.HIGH, detail: str = "It is stuck.") -> Finding:
    return Finding("a_rule", subject, severity, detail)


def evaluate_rules(
    sessions: sessionmaker[Session],
    *rules: HealthRule,
    quiet_seconds: float = 0,
    last_evaluated: dict[str, datetime] | None = None,
    max_seconds: float = 60,
) -> Evaluation:
    return evaluate(
        sessions,
        rules,
        now=datetime.now(UTC),
        last_evaluated=last_evaluated or {},
        quiet_seconds=quiet_seconds,
        max_seconds=max_seconds,
    )


def evaluate_finding(sessions: sessionmaker[Session], *findings: Finding, quiet_seconds: float = 0) -> Evaluation:
    """Evaluate a rule that returns these findings."""
    return evaluate_rules(sessions, HealthRule("a_rule", lambda _session: findings), quiet_seconds=quiet_seconds)


def alerts(sessions: sessionmaker[Session]) -> list[tuple[str, str, bool]]:
    with sessions() as session:
        rows = session.scalars(select(Alert).order_by(Alert.id))
        return [(row.subject, row.severity, row.resolved_at is not None) for row in rows]


def test_lasting_finding_is_one_alert_with_current_details(sessions: sessionmaker[Session]) -> None:
    assert evaluate_finding(sessions, finding(detail="It has waited for 2 minutes.")).opened == 1
    assert evaluate_finding(sessions, finding(detail="It has waited for 3 minutes.")).opened == 0
    assert alerts(sessions) == [("batch 1", "HIGH", False)]
    with sessions() as session:
        assert session.scalars(select(Alert.detail)).one() == "It has waited for 3 minutes."
    assert evaluate_finding(sessions).resolved == 1
    assert evaluate_finding(sessions).resolved == 0
    assert evaluate_finding(sessions, finding()).opened == 1
    assert alerts(sessions) == [("batch 1", "HIGH", True), ("batch 1", "HIGH", False)]


def test_severity_of_an_open_alert_rises_but_never_falls(sessions: sessionmaker[Session]) -> None:
    for severity, expected in (("MEDIUM", "MEDIUM"), ("CRITICAL", "CRITICAL"), ("LOW", "CRITICAL")):
        evaluate_finding(sessions, finding(severity=Severity(severity)))
        assert alerts(sessions) == [("batch 1", expected, False)]


def test_flapping_finding_is_one_alert(sessions: sessionmaker[Session]) -> None:
    for _ in range(3):
        evaluate_finding(sessions, finding(), quiet_seconds=60)
        assert evaluate_finding(sessions, quiet_seconds=60).resolved == 0
    with sessions.begin() as session:
        session.execute(text("update ops.alerts set last_found_at = now() - interval '61 seconds'"))
    assert evaluate_finding(sessions, quiet_seconds=60).resolved == 1
    assert alerts(sessions) == [("batch 1", "HIGH", True)]


def test_alert_opened_outside_the_rule_is_not_resolved_by_it(
    sessions: sessionmaker[Session],
) -> None:
    with sessions.begin() as session:
        open_alert(session, "a_rule", "an email", "HIGH", "It was rejected.")
    evaluate_finding(sessions, finding())
    evaluate_finding(sessions)
    assert alerts(sessions) == [("an email", "HIGH", False), ("batch 1", "HIGH", True)]


def raises(error: Exception) -> Find:
    def find(_session: Session) -> Sequence[Finding]:
        raise error

    return find


def query_missing_table(session: Session) -> Sequence[Finding]:
    session.execute(text("select * from no_such_table"))
    return []


@pytest.mark.parametrize(
    ("find", "reason"),
    [
        (raises(ConfigurationError("SEEDTRUST_X is not set.")), "SEEDTRUST_X is not set."),
        (raises(KeyError("Dana Whitfield")), "KeyError"),
        (query_missing_table, 'relation "no_such_table" does not exist'),
        (lambda _session: [finding("batch 2", detail="\0")], "DataError"),
    ],
    ids=["our error", "bug", "database", "finding that cannot be recorded"],
)
def test_failing_rule_opens_an_alert_and_stops_no_other_rule(
    sessions: sessionmaker[Session], find: Find, reason: str
) -> None:
    evaluate_finding(sessions, finding())
    other = HealthRule("another_rule", lambda _session: [Finding("another_rule", "queue", Severity.LOW, "It is long.")])
    for _ in range(2):
        evaluation = evaluate_rules(sessions, HealthRule("a_rule", find), other)
        assert evaluation.evaluated == ["another_rule"]
        (failure,) = evaluation.failures
        assert failure.startswith("The health rule a_rule could not be evaluated")
        assert reason in failure
        assert "Dana" not in failure
    assert alerts(sessions) == [
        ("batch 1", "HIGH", False),
        (RULE_EVALUATION, "HIGH", False),
        ("queue", "LOW", False),
    ]
    assert evaluate_finding(sessions, finding()).resolved == 1
    assert alerts(sessions)[:2] == [("batch 1", "HIGH", False), (RULE_EVALUATION, "HIGH", True)]


@pytest.mark.parametrize(
    ("seconds_ago", "is_evaluated"), [(None, True), (150, False), (320, True), (-900, True)], ids=str
)
def test_expensive_rule_waits_for_its_interval(
    sessions: sessionmaker[Session], seconds_ago: float | None, is_evaluated: bool
) -> None:
    rule = HealthRule("a_rule", lambda _session: [], min_interval_seconds=300)
    last = {} if seconds_ago is None else {"a_rule": datetime.now(UTC) - timedelta(seconds=seconds_ago)}
    assert (evaluate_rules(sessions, rule, last_evaluated=last).evaluated == ["a_rule"]) == is_evaluated


def test_rules_without_time_left_are_reported_as_postponed(sessions: sessionmaker[Session]) -> None:
    evaluation = evaluate_rules(sessions, HealthRule("a_rule", lambda _session: []), max_seconds=0)
    assert (evaluation.evaluated, evaluation.postponed) == ([], ["a_rule"])


FOUND = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.sampled_from(list(Severity)))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(FOUND, max_size=8))
def test_alerts_match_the_last_findings_for_any_sequence(
    sessions: sessionmaker[Session], ticks: list[dict[str, Severity]]
) -> None:
    with sessions.begin() as session:
        session.execute(text("delete from ops.alerts"))
    opened = resolved = 0
    worst: dict[str, Severity] = {}
    for tick in ticks:
        evaluation = evaluate_finding(sessions, *(finding(subject, severity) for subject, severity in tick.items()))
        assert evaluation.opened == len(tick.keys() - worst.keys())
        assert evaluation.resolved == len(worst.keys() - tick.keys())
        opened += evaluation.opened
        resolved += evaluation.resolved
        worst = {
            subject: max(severity, worst.get(subject, severity), key=lambda severity: severity.priority)
            for subject, severity in tick.items()
        }
        rows = alerts(sessions)
        assert {subject: severity for subject, severity, is_resolved in rows if not is_resolved} == worst
    assert len(alerts(sessions)) == opened
    assert sum(is_resolved for _, _, is_resolved in alerts(sessions)) == resolved
