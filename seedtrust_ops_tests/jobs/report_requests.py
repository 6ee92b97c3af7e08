"""Asks for reports, runs the job that makes them, and reads what became of a request."""

from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
from sqlalchemy import select, update

from seedtrust_ops.definitions import defs
from seedtrust_ops.tables import ReportRequest, User
from seedtrust_ops_tests.support.factories import Company


def run(report_id: int = 0) -> dg.ExecuteInProcessResult:
    """Run the job, for one report where it is named."""
    job = defs.resolve_job_def("report_generation")
    config = {"ops": {"report_generation": {"config": {"report_id": report_id}}}} if report_id else None
    return job.execute_in_process(run_config=config, raise_on_error=False)


def sentence(result: dg.ExecuteInProcessResult) -> str:
    """What a person reads of a run that failed."""
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    return str(failure.step_failure_data.user_failure_data.description)


def told(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    """What the run says that it did."""
    output: dict[str, Any] = result.output_for_node("report_generation")
    return output


def run_and_tell() -> dict[str, Any]:
    """Run the job for all that waits."""
    return told(run())


def ask(company: Company, kind: str, format_name: str = "csv", params: Any = None, **columns: Any) -> int:
    """A request by a user of its own; `email` and `is_active` are the user's."""
    user = {name: columns.pop(name) for name in ("email", "is_active") if name in columns}
    with company.sessions.begin() as session:
        person = company._user(session, "admin")
        for name, value in user.items():
            setattr(person, name, value)
        session.flush()
        request = ReportRequest(user_id=person.id, kind=kind, format=format_name, params=params or {}, **columns)
        session.add(request)
        session.flush()
        return request.id


def row(company: Company, request_id: int) -> ReportRequest:
    """The request as the database has it."""
    with company.sessions() as session:
        return session.scalars(select(ReportRequest).where(ReportRequest.id == request_id)).one()


def address(company: Company, request_id: int) -> str:
    """Where its requester is written to."""
    with company.sessions() as session:
        return session.scalars(
            select(User.email)
            .join(ReportRequest, ReportRequest.user_id == User.id)
            .where(ReportRequest.id == request_id)
        ).one()


def age(company: Company, request_id: int, minutes: float) -> None:
    """Have its work started so long ago."""
    with company.sessions.begin() as session:
        session.execute(
            update(ReportRequest)
            .where(ReportRequest.id == request_id)
            .values(started_at=datetime.now(UTC) - timedelta(minutes=minutes))
        )
