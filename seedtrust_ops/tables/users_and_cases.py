"""Users, cases and case parties (platform tables).

This project reads them to find the recipients of email; it changes only `is_on_site`.
"""

from datetime import date, datetime

from sqlalchemy import ForeignKey, Identity, func, text
from sqlalchemy.orm import Mapped, mapped_column

from seedtrust_ops.tables.base import PlatformTable


class User(PlatformTable):
    """A person with a SeedTrust login; `role` is their role, such as admin or case manager."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)
    full_name: Mapped[str]
    role: Mapped[str]
    is_active: Mapped[bool] = mapped_column(server_default=text("true"))
    is_on_site: Mapped[bool] = mapped_column(server_default=text("false"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Case(PlatformTable):
    """One surrogacy journey, with the staff responsible for it."""

    __tablename__ = "cases"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    case_number: Mapped[str] = mapped_column(unique=True)
    status: Mapped[str] = mapped_column(server_default="active")
    close_on: Mapped[date | None]
    escrow_specialist_id: Mapped[int | None] = mapped_column(ForeignKey(User.id))
    case_manager_id: Mapped[int | None] = mapped_column(ForeignKey(User.id))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class CaseParty(PlatformTable):
    """A user's role in a case: intended parent, IP representative, or surrogate."""

    __tablename__ = "case_parties"

    case_id: Mapped[int] = mapped_column(ForeignKey(Case.id), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey(User.id), primary_key=True)
    role: Mapped[str] = mapped_column(primary_key=True)
