"""Records ticks and heartbeats through Dagster's own storage, as a daemon running at the time would have."""

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

from seedtrust_ops.dagster_db.daemon_activity import DAEMON_TYPES

REPOSITORY = RemoteRepositoryOrigin(
    ManagedGrpcPythonEnvCodeLocationOrigin(
        loadable_target_origin=LoadableTargetOrigin(module_name="seedtrust_ops.definitions"),
        location_name="seedtrust_ops",
    ),
    "__repository__",
)


class TickRecorder:
    """Records the state and the ticks of one schedule or sensor."""

    def __init__(self, instance: dg.DagsterInstance, name: str, kind: InstigatorType) -> None:
        self._instance = instance
        self._origin = RemoteInstigatorOrigin(REPOSITORY, name)
        self._kind = kind
        self.name = name

    def register(
        self, data: ScheduleInstigatorData | SensorInstigatorData, status: str = "DECLARED_IN_CODE"
    ) -> InstigatorState:
        """Store its state, as a daemon does when it first sees it."""
        state = InstigatorState(self._origin, self._kind, InstigatorStatus(status), data)
        return self._instance.add_instigator_state(state)

    def tick(self, at: datetime, status: str = "SUCCESS", *, duration: timedelta = timedelta(0)) -> None:
        """Store one tick; with status STARTED it does not end."""
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
            end = (at + duration).timestamp()
            ended = tick.tick_data.with_status(TickStatus(status), error=error, end_timestamp=end)
            self._instance.update_tick(tick._replace(tick_data=ended))


def record_heartbeat(instance: dg.DagsterInstance, *, at: datetime | None = None) -> None:
    """Store a heartbeat of every monitored daemon; `at` None for now."""
    seconds = (at or datetime.now(UTC)).timestamp()
    for part in DAEMON_TYPES:
        instance.add_daemon_heartbeat(DaemonHeartbeat(seconds, part, "a-daemon"))
