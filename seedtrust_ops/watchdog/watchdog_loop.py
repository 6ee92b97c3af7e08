"""The watchdog's round: look, judge, remember, record, tell; and the loop that goes on whatever befalls it."""

import fcntl
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

from sqlalchemy import Connection, select
from sqlalchemy.orm import Session

from seedtrust_ops.config.watchdog import WatchdogSettings
from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.severity import Severity
from seedtrust_ops.tables import Alert
from seedtrust_ops.watchdog import state_file
from seedtrust_ops.watchdog.alert_rows import record, recorded
from seedtrust_ops.watchdog.channels import open_channels
from seedtrust_ops.watchdog.evaluator import Past, judge
from seedtrust_ops.watchdog.notifier import tell
from seedtrust_ops.watchdog.probes import NoResponse, Prober
from seedtrust_ops.watchdog.state_file import Memory, Told, follow

FOLDER = Path(".seedtrust") / "watchdog"

Say = Callable[[str], None]
"""Prints one line for whoever reads the watchdog's output."""


class AnotherWatchdog(SeedTrustError):
    """A watchdog of the same DAGSTER_HOME runs already, and both would tell everything."""


class Watchdog:
    """What looks, and what it knows; made for one process."""

    def __init__(self, folder: Path, settings: WatchdogSettings, say: Say) -> None:
        """Take the folder of its memory, its patience, and what prints a line."""
        self._folder = folder
        self._settings = settings
        self._lookout = Prober(grace_seconds=settings.grace_seconds)
        self._channels, lacking = open_channels(self._worst_open)
        self._say = say
        self._said: set[str] = set()
        self._memory = state_file.read(folder)
        self._say_new(lacking)

    def look(self) -> list[Told]:
        """Do one round; return the trouble that lasts."""
        look = self._lookout.look()
        before = self._memory or self._recall(look.at)
        judgement = judge(look, before.past, self._settings)
        memory = follow(before, judgement, look.at)
        for key, one in memory.told.items():
            was = before.told.get(key)
            if was is None or (was.over_at is None) != (one.over_at is None):
                self._say(f"{'over' if one.over_at else one.trouble.severity}: {' '.join(key)}: {one.trouble.detail}")
        self._keep(memory)
        failures = []
        if look.application_trouble is None:
            try:
                self._lookout.application.ask(lambda connection: _record(connection, memory))
            except NoResponse as trouble:
                failures.append(f"Not recorded in ops.alerts: {trouble}")
        memory, untold = tell(memory, self._channels)
        self._keep(memory)
        self._say_new(failures + untold)
        return [one for one in memory.told.values() if one.over_at is None]

    def _recall(self, now: datetime) -> Memory:
        """Return what is known of before without the file: what `ops.alerts` has open was told to everybody."""
        heard = frozenset(channel.name for channel in self._channels)
        try:
            troubles = self._lookout.application.ask(lambda connection: recorded(Session(connection)))
        except NoResponse:
            troubles = []
        return Memory(Past(now), {one.key: Told(one, of_beginning=heard) for one in troubles})

    def _keep(self, memory: Memory) -> None:
        self._memory = memory
        state_file.write(self._folder, memory)

    def _worst_open(self) -> Severity | None:
        try:
            severities = self._lookout.application.ask(_open_severities)
        except NoResponse:
            return None
        return max(severities, key=lambda severity: severity.priority, default=None)

    def _say_new(self, sentences: list[str]) -> None:
        """Print what was not said at the look before."""
        for sentence in sentences:
            if sentence not in self._said:
                self._say(sentence)
        self._said = set(sentences)


def watch(watchdog: Watchdog, stop: Event, *, interval_seconds: float, say: Say) -> None:
    """Look again and again until `stop` is set; an error of the watchdog's own is printed, and the next look comes."""
    while not stop.is_set():
        try:
            watchdog.look()
        except Exception:  # noqa: BLE001  whatever it is: who watches must go on watching
            say(f"This look failed, and the next one comes in {interval_seconds:g} s:\n{traceback.format_exc()}")
        stop.wait(interval_seconds)


@contextmanager
def only_watchdog(folder: Path) -> Iterator[None]:
    """Hold the lock that one watchdog of a DAGSTER_HOME has; raises AnotherWatchdog where another holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+") as file:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AnotherWatchdog(
                f"A watchdog runs already for {folder.parent.parent}, and two would tell everything twice. Stop that "
                "one first, or leave it."
            ) from None
        yield


def now_in_words() -> str:
    """Return the time as the watchdog's lines begin."""
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _record(connection: Connection, memory: Memory) -> None:
    record(Session(connection), memory.told.values())


def _open_severities(connection: Connection) -> list[Severity]:
    urgent = (Severity.CRITICAL.value, Severity.HIGH.value)
    open_ones = select(Alert.severity).where(Alert.resolved_at.is_(None), Alert.severity.in_(urgent)).distinct()
    return [Severity(severity) for severity in connection.scalars(open_ones)]
