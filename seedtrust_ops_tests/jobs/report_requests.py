"""Requests reports, runs the job that generates them, and reads the resulting rows."""

from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
from sqlalchemy import select, update

from seedtrust_ops.definitions import defs
from seedtrust_ops.tables import ReportRequest, User
from seedtrust_ops_tests.support.factories import Company


def run(report_id: int = 0) -> dg.ExecuteInProcessResult:
    """Run the job, for one report if its id is given."""
    job = defs.resolve_job_def("report_generation")
    config = {"ops": {"report_generation": {"config": {"report_id": report_id}}}} if report_id else None
    return job.execute_in_process(run_config=config, raise_on_error=False)


def failure_message(result: dg.ExecuteInProcessResult) -> str:
    """The message that a person reads on a failed run."""
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    return str(failure.step_failure_data.user_failure_data.description)


def job_result(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    """The value that the run returned."""
    output: dict[str, Any] = result.output_for_node("report_generation")
    return output


def run_all() -> dict[str, Any]:
    """Run the job for every pending request and return its result."""
    return job_result(run())


def request_report(company: Company, kind: str, format_name: str = "csv", params: Any = None, **columns: Any) -> int:
    """Insert a request by a new user and return its id; `email` and `is_active` are columns of the user."""
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


def request_row(company: Company, request_id: int) -> ReportRequest:
    """The request as stored in the database."""
    with company.sessions() as session:
        return session.scalars(select(ReportRequest).where(ReportRequest.id == request_id)).one()


def requester_email(company: Company, request_id: int) -> str:
    """The email address of its requester."""
    with company.sessions() as session:
        return session.scalars(
            select(User.email)
            .join(ReportRequest, ReportRequest.user_id == User.id)
            .where(ReportRequest.id == request_id)
        ).one()


def backdate_start(company: Company, request_id: int, minutes: float) -> None:
    """Set the start of its generation to this many minutes ago."""
    with company.sessions.begin() as session:
        session.execute(
            update(ReportRequest)
            .where(ReportRequest.id == request_id)
            .values(started_at=datetime.now(UTC) - timedelta(minutes=minutes))
        )
