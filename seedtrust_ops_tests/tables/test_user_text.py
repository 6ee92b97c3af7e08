"""Columns that people fill are cut in the database when they are loaded, and nowhere else."""

import pytest
from sqlalchemy import func, select, text, type_coerce, update
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.formatting import MAX_TEXT_CHARS
from seedtrust_ops.tables import DisbursementRequest, ReportRequest
from seedtrust_ops.tables.user_text import UserText, cut_text
from seedtrust_ops_tests.support.case_factory import CaseFactory

LONG = "é" * 3_000_000
OTHER_LONG = LONG[:-1] + "x"


@pytest.fixture
def factory(sessions: sessionmaker[Session]) -> CaseFactory:
    return CaseFactory(sessions)


def _request(factory: CaseFactory, description: str) -> int:
    return factory.request(factory.case(), description=description)


@pytest.mark.parametrize(
    ("stored", "loaded"),
    [
        ("", ""),
        ("é" * MAX_TEXT_CHARS, "é" * MAX_TEXT_CHARS),
        ("é" * (MAX_TEXT_CHARS + 1), "é" * (MAX_TEXT_CHARS - 1) + "…"),
        (LONG, "é" * (MAX_TEXT_CHARS - 1) + "…"),
    ],
    ids=["empty", "at the limit", "over the limit", "large"],
)
def test_typed_text_is_loaded_up_to_its_limit(factory: CaseFactory, stored: str, loaded: str) -> None:
    request_id = _request(factory, stored)
    of_request = DisbursementRequest.id == request_id
    with factory.sessions() as session:
        assert session.scalars(select(DisbursementRequest.description).where(of_request)).one() == loaded
        assert session.get_one(DisbursementRequest, request_id).description == loaded
        returned = update(DisbursementRequest).where(of_request).values(on_hold=True)
        assert session.scalars(returned.returning(DisbursementRequest.description)).one() == loaded
        in_sql = func.jsonb_build_array(cut_text(DisbursementRequest.description))
        assert session.scalars(select(in_sql).where(of_request)).one() == [stored[: MAX_TEXT_CHARS + 1]]
        shorter = type_coerce(DisbursementRequest.description, UserText(10))
        assert session.scalars(select(shorter).where(of_request)).one() == (f"{'é' * 9}…" if stored else "")


def test_conditions_and_updates_see_the_whole_text(factory: CaseFactory) -> None:
    request_id = _request(factory, LONG)
    other = _request(factory, OTHER_LONG)
    with factory.sessions.begin() as session:
        equal = select(DisbursementRequest.id).where(DisbursementRequest.description == LONG)
        assert session.scalars(equal).all() == [request_id]
        session.get_one(DisbursementRequest, other).on_hold = True
    with factory.sessions() as session:
        whole = text("select length(description), on_hold from disbursement_requests where id = :id")
        assert session.execute(whole, {"id": other}).one() == (len(OTHER_LONG), True)


@pytest.mark.parametrize(("size", "is_loaded"), [(100, True), (3_000_000, False)])
def test_large_json_is_not_loaded(factory: CaseFactory, size: int, is_loaded: bool) -> None:
    params = {"case_id": "7" * size}
    request_id = factory._add(ReportRequest(user_id=factory.user("admin"), kind="case_ledger", params=params))
    with factory.sessions() as session:
        loaded = session.scalars(select(ReportRequest.params).where(ReportRequest.id == request_id)).one()
    assert loaded == (params if is_loaded else None)
