"""The kill switch that stops all sending of transfers, and the message that says why it is on.

Auto-heal continues while it is on, because querying the bank moves no money.
See docs/decisions/batch-runs.md.
"""

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.tables import Switch

SWITCH_NAME = "transfers_halted"


class TransfersHalted(SeedTrustError):
    """The kill switch is on: no transfer may be sent."""


def get_halt_reason(session: Session, halted_by_environment: bool) -> str | None:
    """Return the message that says why nothing may be sent, or None if sending is allowed.

    Any row of `ops.switches` stops all sending (docs/rules.md, section 4), regardless of its name.
    """
    if halted_by_environment:
        return "Transfers are halted: SEEDTRUST_TRANSFERS_HALTED is set. Unset it and restart to resume sending."
    switch = session.scalars(select(Switch).order_by(Switch.set_at).limit(1)).first()
    if switch is None:
        return None
    return (
        f"Transfers were halted at {switch.set_at:%Y-%m-%d %H:%M} UTC by {switch.set_by}: {switch.reason}. "
        "Run `seedtrust-ops transfers resume` to resume sending."
    )


def halt(session: Session, reason: str, set_by: str) -> None:
    """Stop all sending; if the switch is already on, its first reason is kept."""
    session.execute(insert(Switch).values(name=SWITCH_NAME, reason=reason, set_by=set_by).on_conflict_do_nothing())


def resume(session: Session) -> bool:
    """Allow sending again; return whether the switch was on."""
    return bool(session.scalars(delete(Switch).returning(Switch.name)).all())
