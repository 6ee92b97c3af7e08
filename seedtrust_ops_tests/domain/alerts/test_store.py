"""The alert store: what renews an open alert, and that no other module writes `ops.alerts`."""

import ast
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

import seedtrust_ops
from seedtrust_ops.domain.alerts.store import open_alert, resolve_alert
from seedtrust_ops.tables import Alert

PACKAGE = Path(seedtrust_ops.__file__).parent


@pytest.mark.parametrize(
    ("details", "occurrences"),
    [(["a"], [1]), (["a", "a"], [1]), (["a", "b", "b", "a"], [3]), (["a", "resolved", "a"], [1, 1])],
    ids=["one", "found again", "occurred again", "after its resolution"],
)
def test_open_alert_counts_new_occurrences_and_keeps_the_last_detail(
    sessions: sessionmaker[Session], details: list[str], occurrences: list[int]
) -> None:
    with sessions.begin() as session:
        for detail in details:
            if detail == "resolved":
                resolve_alert(session, "a_rule", "a subject")
            else:
                open_alert(session, "a_rule", "a subject", "HIGH", detail)
    with sessions() as session:
        alerts = session.scalars(select(Alert).order_by(Alert.id)).all()
    assert [alert.occurrences for alert in alerts] == occurrences
    assert alerts[-1].detail == details[-1]


def writes_alerts(source: str) -> bool:
    """Return whether the source inserts, updates, deletes or constructs an `Alert`."""
    return any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and (
            node.func.id == "Alert"
            or (node.func.id in ("insert", "update", "delete") and [ast.unparse(one) for one in node.args] == ["Alert"])
        )
        for node in ast.walk(ast.parse(source))
    )


def test_store_is_the_only_writer_of_alerts() -> None:
    writers = [str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if writes_alerts(path.read_text())]
    assert writers == ["domain/alerts/store.py"]
