"""Who receives which report: every role, kind and relation to a case, through every door and during generation."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.client import ReportNotAllowed, request_report
from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.domain.reports import generator
from seedtrust_ops.domain.reports.authority import AUTHORITY, Role
from seedtrust_ops.domain.reports.file_builder import BuiltReport, build_report
from seedtrust_ops.domain.reports.generator import GeneratedReport, RequestFailure, dry_run_report, generate_report
from seedtrust_ops.domain.reports.parameters import PARAMETERS
from seedtrust_ops.domain.reports.report_kinds import TITLES
from seedtrust_ops.domain.reports.request_queue import claim_next_request
from seedtrust_ops.tables import Case, CaseParty, Notification, NotificationAttachment, ReportRequest, User
from seedtrust_ops_tests.support.case_factory import CaseFactory, CaseWithParties

ZONE = "America/New_York"
STAFF = ("admin", "case_manager", "escrow_specialist")
PARTIES = ("intended_parent", "ip_rep", "surrogate")
RELATIONS = ("party", "party in another role", "manager of the case", "party of another case", "unrelated")
STAFF_ONLY = "is for admins, case managers and escrow specialists only."
PARTY_ONLY = "is for its parties and for SeedTrust's staff only, and you are not one of its parties."
INACTIVE = "Inactive users receive no reports."


class RecordingStorage:
    """A bucket that remembers which objects are in it."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    def put_file(self, key: str, path: Path, media_type: str) -> None:
        self.keys.append(key)

    def delete(self, key: str) -> None:
        self.keys.remove(key)

    def uri(self, key: str) -> str:
        return key


@pytest.fixture
def factory(sessions: sessionmaker[Session]) -> CaseFactory:
    return CaseFactory(sessions)


@pytest.fixture
def storage() -> RecordingStorage:
    return RecordingStorage()


def user_with(factory: CaseFactory, case: CaseWithParties, role: str, relation: str) -> int:
    """Create a user of this role who has this relation to the case."""
    user = factory.user(role)
    own_role = role if role in PARTIES else "surrogate"
    other_role = next(one for one in PARTIES if one != own_role)
    match relation:
        case "party":
            add_party(factory, case.case_id, user, own_role)
        case "party in another role":
            add_party(factory, case.case_id, user, other_role)
        case "manager of the case":
            factory.change(Case, case.case_id, case_manager_id=user, escrow_specialist_id=user)
        case "party of another case":
            add_party(factory, factory.case().case_id, user, own_role)
    return user


def add_party(factory: CaseFactory, case_id: int, user_id: int, role: str) -> None:
    with factory.sessions.begin() as session:
        session.add(CaseParty(case_id=case_id, user_id=user_id, role=role))


def params_of(kind: str, case: CaseWithParties) -> dict[str, Any]:
    return {"case_id": case.case_id} if kind == "case_ledger" else {}


def expected_refusal(role: str, kind: str, relation: str) -> str | None:
    """The rule, stated independently of the table."""
    if role in STAFF:
        return None
    if kind != "case_ledger":
        return STAFF_ONLY
    return None if relation in ("party", "party in another role") else PARTY_ONLY


def insert_request(factory: CaseFactory, user_id: int, kind: str, params: dict[str, Any]) -> int:
    """Insert a request as the platform's applications do, with no check."""
    return factory._add(ReportRequest(user_id=user_id, kind=kind, format="csv", params=params))


def generate(
    factory: CaseFactory, storage: RecordingStorage, request_id: int
) -> tuple[GeneratedReport | RequestFailure, ReportRequest, Notification | None]:
    """Generate one report; return the result, the request as stored, and the email that was queued."""
    result = generate_report(factory.sessions, storage, request_id, zone=ZONE)
    with factory.sessions() as session:
        request = session.get_one(ReportRequest, request_id)
        email = session.scalars(select(Notification).order_by(Notification.id.desc()).limit(1)).one_or_none()
    return result, request, email


@pytest.mark.parametrize(("role", "kind"), [*product([*STAFF, *PARTIES], TITLES)])
def test_authority_holds_for_every_role_kind_and_relation(
    factory: CaseFactory, storage: RecordingStorage, role: str, kind: str
) -> None:
    for relation in RELATIONS:
        case = factory.case()
        user = user_with(factory, case, role, relation)
        params = params_of(kind, case)
        refusal = expected_refusal(role, kind, relation)
        with factory.sessions() as session:
            if refusal is None:
                assert request_report(session, user_id=user, kind=kind, params=params) > 0
            else:
                with pytest.raises(ReportNotAllowed) as refused:
                    request_report(session, user_id=user, kind=kind, params=params)
                assert refusal in str(refused.value), relation
        # The application inserts the row itself.
        result, request, email = generate(factory, storage, insert_request(factory, user, kind, params))
        assert email is not None
        assert email.recipient_id == user
        if refusal is None:
            assert isinstance(result, GeneratedReport), relation
            assert (request.status, email.kind) == (3, "report")
            assert storage.keys.pop() == result.location
        else:
            assert isinstance(result, RequestFailure), relation
            assert (request.status, email.kind) == (4, "report-failed")
            assert request.error == email.variables["reason"]
            assert refusal in str(request.error)
        assert storage.keys == []


def test_authority_table_names_every_role_and_kind() -> None:
    assert set(AUTHORITY) == set(Role)
    assert set(Role) == {*STAFF, *PARTIES}
    assert {kind for kinds in AUTHORITY.values() for kind in kinds} == set(TITLES) == set(PARAMETERS)


@pytest.mark.parametrize("role", [*STAFF, *PARTIES])
def test_inactive_user_receives_nothing(factory: CaseFactory, storage: RecordingStorage, role: str) -> None:
    case = factory.case()
    user = user_with(factory, case, role, "party")
    factory.change(User, user, is_active=False)
    result, request, email = generate(
        factory, storage, insert_request(factory, user, "case_ledger", params_of("case_ledger", case))
    )
    assert isinstance(result, RequestFailure)
    assert (request.status, email, storage.keys) == (4, None, [])
    assert "no longer active" in str(request.error)


def test_refused_report_is_not_even_built(factory: CaseFactory, sessions: sessionmaker[Session]) -> None:
    insert_request(factory, factory.user("surrogate"), "account_balances", {})
    request = run_in_transaction(sessions, claim_next_request)
    assert request is not None
    with pytest.raises(ReportNotAllowed, match=STAFF_ONLY):
        dry_run_report(sessions, request, ZONE)


def test_refusal_does_not_say_whether_a_case_exists(factory: CaseFactory, sessions: sessionmaker[Session]) -> None:
    user, case = factory.user("surrogate"), factory.case()
    messages = set()
    with sessions() as session:
        for case_id in (case.case_id, 999_999):
            with pytest.raises(ReportNotAllowed) as refused:
                request_report(session, user_id=user, kind="case_ledger", params={"case_id": case_id})
            messages.add(str(refused.value).replace(str(case_id), "N"))
    assert len(messages) == 1
    assert case.case_number not in messages.pop()


@pytest.mark.parametrize("change", ["user deactivated", "party removed", "role changed"])
def test_authority_lost_while_a_report_is_built_withholds_it(
    factory: CaseFactory, storage: RecordingStorage, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    case = factory.case()
    user = factory.user("admin") if change == "role changed" else case.parent_id

    def build_slowly(*arguments: Any) -> BuiltReport:
        built = build_report(*arguments)
        if change == "party removed":
            with factory.sessions.begin() as session:
                session.execute(delete(CaseParty).where(CaseParty.user_id == user))
        else:
            factory.change(User, user, **({"role": "surrogate"} if change == "role changed" else {"is_active": False}))
        return built

    monkeypatch.setattr(generator, "build_report", build_slowly)
    result, request, email = generate(
        factory, storage, insert_request(factory, user, "case_ledger", params_of("case_ledger", case))
    )
    assert isinstance(result, RequestFailure)
    assert (request.status, storage.keys) == (4, [])
    assert (INACTIVE if change == "user deactivated" else PARTY_ONLY) in str(request.error)
    assert email is not None
    assert email.kind == "report-failed"
    with factory.sessions() as session:
        assert session.scalars(select(NotificationAttachment)).all() == []


def test_party_sees_no_payee_and_no_account_in_the_case_ledger(factory: CaseFactory) -> None:
    """What is about other people in a ledger is only what staff wrote into a memo."""
    case = factory.case()
    with factory.sessions.begin() as session:
        session.execute(update(User).where(User.id == case.surrogate_id).values(full_name="Payee Name"))
        generator.require_authority(session, case.parent_id, "case_ledger", {"case_id": case.case_id})
        report = generator.prepare_report(session, "case_ledger", {"case_id": case.case_id}, ZONE)
    assert [column.title for column in report.columns] == [
        *("Posted", "Kind", "Memo", "Transaction", "Amount", "Balance")
    ]
    assert not {"users", "huntington_transactions"} & {table.name for table in report.rows.get_final_froms()}
