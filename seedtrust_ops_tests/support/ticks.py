"""Ticks and heartbeats made by hand, through Dagster's own storage, as if a daemon had been there at the time."""

from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    ScheduleInstigatorData,
    SensorInstigatorData,
    TickData,
    TickStatus,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._daemon.types import DaemonHeartbeat
from dagster._utils.error import SerializableErrorInfo

from seedtrust_ops.dagster_db.heartbeats import PARTS

REPOSITORY = RemoteRepositoryOrigin(
    ManagedGrpcPythonEnvCodeLocationOrigin(
        loadable_target_origin=LoadableTargetOrigin(module_name="seedtrust_ops.definitions"),
        location_name="seedtrust_ops",
    ),
    "__repository__",
)


class Ticker:
    """One schedule or sensor, ticked by hand through Dagster's own storage."""

    def __init__(self, instance: dg.DagsterInstance, name: str, kind: InstigatorType) -> None:
        self._instance = instance
        self._origin = RemoteInstigatorOrigin(REPOSITORY, name)
        self._kind = kind
        self.name = name

    def known(
        self, data: ScheduleInstigatorData | SensorInstigatorData, status: str = "DECLARED_IN_CODE"
    ) -> InstigatorState:
        state = InstigatorState(self._origin, self._kind, InstigatorStatus(status), data)
        return self._instance.add_instigator_state(state)

    def tick(self, at: datetime, status: str = "SUCCESS", *, took: timedelta = timedelta(0)) -> None:
        tick = self._instance.create_tick(
            TickData(
                instigator_origin_id=self._origin.get_id(),
                instigator_name=self.name,
                instigator_type=self._kind,
                status=TickStatus.STARTED,
                timestamp=at.timestamp(),
                selector_id=self._origin.get_selector().get_id(),
            )
        )
        if status != "STARTED":
            error = SerializableErrorInfo("it failed", [], None) if status == "FAILURE" else None
            end = (at + took).timestamp()
            ended = tick.tick_data.with_status(TickStatus(status), error=error, end_timestamp=end)
            self._instance.update_tick(tick._replace(tick_data=ended))


def beat(instance: dg.DagsterInstance, *, at: datetime | None = None) -> None:
    """Store a heartbeat of every part of the daemon that is watched."""
    seconds = (at or datetime.now(UTC)).timestamp()
    for part in PARTS:
        instance.add_daemon_heartbeat(DaemonHeartbeat(seconds, part, "a-daemon"))
