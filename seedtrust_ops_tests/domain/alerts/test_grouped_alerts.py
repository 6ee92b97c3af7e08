"""Grouped alerts: one per subject, or one that lists many; never both ways in turn."""

from collections.abc import Collection, Iterable

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.domain.alerts.grouped_alerts import MAX_LISTED, AlertGroup, sync_grouped_alerts
from seedtrust_ops.domain.alerts.store import Finding
from seedtrust_ops.severity import Severity
from seedtrust_ops.tables import Alert

GROUP = AlertGroup("a_rule", "many things", "thing", "Do something about them.")
MANY = GROUP.subject


def sync(sessions: sessionmaker[Session], numbers: Iterable[int], new: Collection[int] = ()) -> dict[str, Alert]:
    """Report these subjects as open, 0 as CRITICAL; return the alerts that are open then, by subject."""
    findings = [
        Finding("a_rule", f"thing {one}", Severity.CRITICAL if one == 0 else Severity.HIGH, f"Detail {one}.")
        for one in numbers
    ]
    with sessions.begin() as session:
        sync_grouped_alerts(session, GROUP, findings, new_subjects={f"thing {one}" for one in new})
    with sessions() as session:
        return {one.subject: one for one in session.scalars(select(Alert).where(Alert.resolved_at.is_(None)))}


@pytest.mark.parametrize(
    ("steps", "single", "is_grouped"),
    [
        ([range(20)], range(20), False),
        ([range(21)], [], True),
        ([range(1000)], [], True),
        ([range(15), range(25)], range(15), True),
        ([range(1000), range(3)], [], True),
        ([range(1000), range(3), []], [], False),
        ([range(1000), [], range(3)], range(3), False),
        ([range(15), range(25), range(10, 18)], range(10, 15), True),
        ([range(20), range(5, 10)], range(5, 10), False),
    ],
    ids=[
        "twenty",
        "twenty-one",
        "a thousand",
        "growth keeps what is single",
        "shrinking keeps the list",
        "the end closes the list",
        "new ones after the end",
        "shrinking closes what is single",
        "some gone",
    ],
)
def test_grouped_alerts_list_more_than_twenty_until_all_are_gone(
    sessions: sessionmaker[Session], steps: list[Iterable[int]], single: Iterable[int], is_grouped: bool
) -> None:
    open_alerts: dict[str, Alert] = {}
    for step in steps:
        open_alerts = sync(sessions, step)
    assert set(open_alerts) == {f"thing {one}" for one in single} | ({MANY} if is_grouped else set())


def test_grouped_alert_names_the_worst_first_and_counts_the_rest(sessions: sessionmaker[Session]) -> None:
    alert = sync(sessions, range(999, -1, -1))[MANY]
    assert alert.severity == "CRITICAL"
    assert alert.detail.startswith("1,000 things: thing 0, thing 999, ")
    assert alert.detail.endswith(f" and {1000 - MAX_LISTED} more. Do something about them.")


def test_grouped_alert_occurs_again_only_when_it_grows(sessions: sessionmaker[Session]) -> None:
    steps = [(range(500), range(500)), (range(500), ()), (range(400), ()), (range(1, 401), [400]), (range(1, 300), ())]
    occurrences = [sync(sessions, numbers, new)[MANY].occurrences for numbers, new in steps]
    assert occurrences == [1, 1, 1, 2, 2]


def test_grouped_alerts_closed_by_a_person_open_again(sessions: sessionmaker[Session]) -> None:
    sync(sessions, range(1000))
    with sessions.begin() as session:
        session.execute(update(Alert).values(resolved_at=Alert.opened_at))
    assert set(sync(sessions, range(30))) == {MANY}
