"""An alert's life: opened once, renewed while its trouble lasts, raised where it gets worse, resolved once."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.domain.alerts.store import Finding, open_alert
from seedtrust_ops.domain.health.evaluator import THE_RULE_ITSELF, Evaluation, evaluate
from seedtrust_ops.domain.health.rule import Rule
from seedtrust_ops.errors import ConfigurationError
from seedtrust_ops.severity import Severity
from seedtrust_ops.tables import Alert

Find = Callable[[Session], Sequence[Finding]]


def finding(subject: str = "batch 1", severity: Severity = Severity.HIGH, detail: str = "It is stuck.") -> Finding:
    return Finding("a_rule", subject, severity, detail)


def ask(
    sessions: sessionmaker[Session],
    *rules: Rule,
    quiet_seconds: float = 0,
    last_asked: dict[str, datetime] | None = None,
    longest_seconds: float = 60,
) -> Evaluation:
    return evaluate(
        sessions,
        rules,
        now=datetime.now(UTC),
        last_asked=last_asked or {},
        quiet_seconds=quiet_seconds,
        longest_seconds=longest_seconds,
    )


def finds(sessions: sessionmaker[Session], *findings: Finding, quiet_seconds: float = 0) -> Evaluation:
    """Ask a rule that finds these."""
    return ask(sessions, Rule("a_rule", lambda _session: findings), quiet_seconds=quiet_seconds)


def alerts(sessions: sessionmaker[Session]) -> list[tuple[str, str, bool]]:
    with sessions() as session:
        rows = session.scalars(select(Alert).order_by(Alert.id))
        return [(row.subject, row.severity, row.resolved_at is not None) for row in rows]


def test_lasting_trouble_is_one_alert_that_says_what_is_so_now(sessions: sessionmaker[Session]) -> None:
    assert finds(sessions, finding(detail="It waits for 2 minutes.")).opened == 1
    assert finds(sessions, finding(detail="It waits for 3 minutes.")).opened == 0
    assert alerts(sessions) == [("batch 1", "HIGH", False)]
    with sessions() as session:
        assert session.scalars(select(Alert.detail)).one() == "It waits for 3 minutes."
    assert finds(sessions).resolved == 1
    assert finds(sessions).resolved == 0
    assert finds(sessions, finding()).opened == 1
    assert alerts(sessions) == [("batch 1", "HIGH", True), ("batch 1", "HIGH", False)]


def test_severity_of_an_open_alert_rises_and_never_falls(sessions: sessionmaker[Session]) -> None:
    for severity, then in (("MEDIUM", "MEDIUM"), ("CRITICAL", "CRITICAL"), ("LOW", "CRITICAL")):
        finds(sessions, finding(severity=Severity(severity)))
        assert alerts(sessions) == [("batch 1", then, False)]


def test_trouble_that_flaps_is_one_alert(sessions: sessionmaker[Session]) -> None:
    for _ in range(3):
        finds(sessions, finding(), quiet_seconds=60)
        assert finds(sessions, quiet_seconds=60).resolved == 0
    with sessions.begin() as session:
        session.execute(text("update ops.alerts set last_found_at = now() - interval '61 seconds'"))
    assert finds(sessions, quiet_seconds=60).resolved == 1
    assert alerts(sessions) == [("batch 1", "HIGH", True)]


def test_alert_that_something_else_opened_is_not_resolved_by_the_rule_of_its_name(
    sessions: sessionmaker[Session],
) -> None:
    with sessions.begin() as session:
        open_alert(session, "a_rule", "a letter", "HIGH", "It was refused.")
    finds(sessions, finding())
    finds(sessions)
    assert alerts(sessions) == [("a letter", "HIGH", False), ("batch 1", "HIGH", True)]


def raises(error: Exception) -> Find:
    def find(_session: Session) -> Sequence[Finding]:
        raise error

    return find


def asks_too_much(session: Session) -> Sequence[Finding]:
    session.execute(text("select * from no_such_table"))
    return []


@pytest.mark.parametrize(
    ("find", "words"),
    [
        (raises(ConfigurationError("SEEDTRUST_X is not set.")), "SEEDTRUST_X is not set."),
        (raises(KeyError("Dana Whitfield")), "KeyError"),
        (asks_too_much, 'relation "no_such_table" does not exist'),
    ],
    ids=["sentence", "mistake", "database"],
)
def test_rule_that_can_not_be_asked_stops_no_other_is_told_and_leaves_its_alerts_alone(
    sessions: sessionmaker[Session], find: Find, words: str
) -> None:
    finds(sessions, finding())
    other = Rule("another_rule", lambda _session: [Finding("another_rule", "queue", Severity.LOW, "It is long.")])
    for _ in range(2):
        evaluation = ask(sessions, Rule("a_rule", find), other)
        assert evaluation.asked == ["another_rule"]
        (sentence,) = evaluation.failures
        assert sentence.startswith("The health rule a_rule could not be asked")
        assert words in sentence
        assert "Dana" not in sentence
    assert alerts(sessions) == [
        ("batch 1", "HIGH", False),
        (THE_RULE_ITSELF, "HIGH", False),
        ("queue", "LOW", False),
    ]
    assert finds(sessions, finding()).resolved == 1
    assert alerts(sessions)[:2] == [("batch 1", "HIGH", False), (THE_RULE_ITSELF, "HIGH", True)]


@pytest.mark.parametrize(("seconds_ago", "is_asked"), [(None, True), (150, False), (320, True), (-900, True)], ids=str)
def test_dear_rule_is_asked_no_sooner_than_it_says(
    sessions: sessionmaker[Session], seconds_ago: float | None, is_asked: bool
) -> None:
    rule = Rule("a_rule", lambda _session: [], every_seconds=300)
    last = {} if seconds_ago is None else {"a_rule": datetime.now(UTC) - timedelta(seconds=seconds_ago)}
    assert (ask(sessions, rule, last_asked=last).asked == ["a_rule"]) == is_asked


def test_rules_for_which_there_is_no_time_are_named(sessions: sessionmaker[Session]) -> None:
    evaluation = ask(sessions, Rule("a_rule", lambda _session: []), longest_seconds=0)
    assert (evaluation.asked, evaluation.unasked) == ([], ["a_rule"])


FOUND = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.sampled_from(list(Severity)))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(FOUND, max_size=8))
def test_alerts_are_what_was_found_last_however_trouble_comes_and_goes(
    sessions: sessionmaker[Session], looks: list[dict[str, Severity]]
) -> None:
    with sessions.begin() as session:
        session.execute(text("delete from ops.alerts"))
    opened = resolved = 0
    worst: dict[str, Severity] = {}
    for look in looks:
        evaluation = finds(sessions, *(finding(subject, severity) for subject, severity in look.items()))
        assert evaluation.opened == len(look.keys() - worst.keys())
        assert evaluation.resolved == len(worst.keys() - look.keys())
        opened += evaluation.opened
        resolved += evaluation.resolved
        worst = {
            subject: max(severity, worst.get(subject, severity), key=lambda one: one.priority)
            for subject, severity in look.items()
        }
        rows = alerts(sessions)
        assert {subject: severity for subject, severity, over in rows if not over} == worst
    assert len(alerts(sessions)) == opened
    assert sum(over for _, _, over in alerts(sessions)) == resolved
