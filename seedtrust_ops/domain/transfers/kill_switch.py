"""The switch that stops all sending of transfers, and the sentence that says why it is on.

Healing goes on while it is on: asking the bank moves no money.
"""

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.tables import Switch

TRANSFERS_HALTED = "transfers_halted"


class TransfersHalted(SeedTrustError):
    """Sending is switched off."""


def why_halted(session: Session, halted_by_environment: bool) -> str | None:
    """Return the sentence that says why nothing may be sent, None where sending is on.

    Any row of `ops.switches` stops all sending (design, section 4), whatever it is called.
    """
    if halted_by_environment:
        return "Transfers are halted: SEEDTRUST_TRANSFERS_HALTED is set. Unset it and restart to send again."
    switch = session.scalars(select(Switch).order_by(Switch.set_at).limit(1)).first()
    if switch is None:
        return None
    return (
        f"Transfers are halted since {switch.set_at:%Y-%m-%d %H:%M} UTC by {switch.set_by}: {switch.reason}. "
        "`seedtrust-ops transfers resume` sends again."
    )


def halt(session: Session, reason: str, set_by: str) -> None:
    """Stop all sending; a halt that is on already keeps its first reason."""
    session.execute(insert(Switch).values(name=TRANSFERS_HALTED, reason=reason, set_by=set_by).on_conflict_do_nothing())


def resume(session: Session) -> bool:
    """Send again; return whether the switch was on."""
    return bool(session.scalars(delete(Switch).returning(Switch.name)).all())
