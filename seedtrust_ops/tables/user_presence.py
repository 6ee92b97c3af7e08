"""Which users are viewing which request or payment at the moment (platform tables).

The rows are short-lived, and no decision depends on them.
"""

from datetime import datetime

from sqlalchemy import ForeignKey, func
from sqlalchemy.orm import Mapped, mapped_column

from seedtrust_ops.tables.base import PlatformTable
from seedtrust_ops.tables.disbursements import DisbursementRequest
from seedtrust_ops.tables.huntington import HuntingtonTransaction
from seedtrust_ops.tables.users_and_cases import User


class ViewingDisbursementRequest(PlatformTable):
    """A user has a disbursement request open on screen."""

    __tablename__ = "viewing_drs"

    user_id: Mapped[int] = mapped_column(ForeignKey(User.id), primary_key=True)
    disbursement_request_id: Mapped[int] = mapped_column(ForeignKey(DisbursementRequest.id), primary_key=True)
    since: Mapped[datetime] = mapped_column(server_default=func.now())


class ViewingPayment(PlatformTable):
    """A user has a Huntington transaction open on screen."""

    __tablename__ = "viewing_payments"

    user_id: Mapped[int] = mapped_column(ForeignKey(User.id), primary_key=True)
    huntington_transaction_id: Mapped[int] = mapped_column(ForeignKey(HuntingtonTransaction.id), primary_key=True)
    since: Mapped[datetime] = mapped_column(server_default=func.now())
