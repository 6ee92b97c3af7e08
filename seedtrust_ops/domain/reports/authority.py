"""Who may receive which report: one table, read when a report is requested and again when it is generated.

Authority follows the user's own role and the parties of the case. To be named as a case's manager or specialist adds
none: a user who has lost that role is still named by old cases.
"""

from collections.abc import Mapping
from enum import Enum, StrEnum, auto

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.reports.parameters import InvalidReportRequest, read_case_id, read_parameters
from seedtrust_ops.domain.reports.report_kinds import TITLES
from seedtrust_ops.tables import CaseParty, User


class ReportNotAllowed(InvalidReportRequest):
    """The requester may not receive this report; the message is for them."""


class Role(StrEnum):
    """A user's role on the platform (`users.role`)."""

    ADMIN = "admin"
    CASE_MANAGER = "case_manager"
    ESCROW_SPECIALIST = "escrow_specialist"
    INTENDED_PARENT = "intended_parent"
    IP_REP = "ip_rep"
    SURROGATE = "surrogate"


class Scope(Enum):
    """The cases that a user may receive a report about."""

    EVERY_CASE = auto()
    OWN_CASES = auto()
    """Those of which the user is a party, in whatever role (`case_parties`)."""


_STAFF = {
    "case_ledger": Scope.EVERY_CASE,
    "disbursements": Scope.EVERY_CASE,
    "account_balances": Scope.EVERY_CASE,
    "huntington_transfers": Scope.EVERY_CASE,
}
_PARTY = {"case_ledger": Scope.OWN_CASES}

AUTHORITY: Mapping[Role, Mapping[str, Scope]] = {
    Role.ADMIN: _STAFF,
    Role.CASE_MANAGER: _STAFF,
    Role.ESCROW_SPECIALIST: _STAFF,
    Role.INTENDED_PARENT: _PARTY,
    Role.IP_REP: _PARTY,
    Role.SURROGATE: _PARTY,
}
"""The scope of each role by kind of report. What is not listed is not allowed, and inactive users receive nothing."""


def require_authority(session: Session, user_id: int, kind: str, params: object) -> None:
    """Return if the user may receive this report now.

    Raises:
        ReportNotAllowed: they may not; the message does not say whether the case exists.
        InvalidReportRequest: there is no such kind, or its parameters are invalid.
    """
    known = read_parameters(kind, params)
    user = session.execute(select(User.role, User.is_active).where(User.id == user_id)).one_or_none()
    if user is None or not user.is_active:
        raise ReportNotAllowed("Inactive users receive no reports.")
    scope = AUTHORITY[Role(user.role)].get(kind) if user.role in list(Role) else None
    if scope is Scope.EVERY_CASE:
        return
    if scope is None:
        raise ReportNotAllowed(
            f"The report '{TITLES[kind]}' is for admins, case managers and escrow specialists only. Ask your case "
            "manager for the figures that you need."
        )
    case_id = read_case_id(known)
    if not session.scalar(select(exists().where(CaseParty.case_id == case_id, CaseParty.user_id == user_id))):
        raise ReportNotAllowed(
            f"The ledger of case {case_id} is for its parties and for SeedTrust's staff only, and you are not one of "
            "its parties. Check the case id, or ask your case manager."
        )
