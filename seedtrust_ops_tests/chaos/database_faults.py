"""The database's worst day: connections that end, conflicts, a full disk, too many connections, a restart in mid-batch.

Conflicts and the full disk are raised by the server itself, by a statement that the test puts in the place of the
product's: the code and the lost transaction are PostgreSQL's own, the cause is not.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path

import psutil
from sqlalchemy import create_engine, text

from seedtrust_ops.database import embedded_postgres
from seedtrust_ops_tests.chaos.crash_points import leave_everything_open
from seedtrust_ops_tests.chaos.environment import Ground
from seedtrust_ops_tests.chaos.environment_setup import TEMPLATE, prepare_server
from seedtrust_ops_tests.chaos.faults import Strike
from seedtrust_ops_tests.chaos.injection_points import Moment
from seedtrust_ops_tests.chaos.shards import Group, Lane, Outcome, group, in_lanes, open_lane
from seedtrust_ops_tests.chaos.tasks import Errand
from seedtrust_ops_tests.chaos.template_batch import template_with_batch
from seedtrust_ops_tests.chaos.transfer_cases import TRIES, Play, Scene, judge, moments_in, scene
from seedtrust_ops_tests.chaos.worker_processes import run, sent_on
from seedtrust_ops_tests.support.databases import folder_for_a_server
from seedtrust_ops_tests.support.waiters import wait_until

EVERY_STATEMENT = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")
WRITING = ("INSERT", "UPDATE")
BEFORE = (False,)

PLAYS = (
    Play(
        "connection is ended before each statement of processing",
        "process",
        statements=EVERY_STATEMENT,
        strike=Strike.SEVER,
        verb="lost its connection",
        sides=BEFORE,
    ),
    Play(
        "connection is ended before each statement of healing",
        "heal",
        arrange=leave_everything_open,
        statements=EVERY_STATEMENT,
        strike=Strike.SEVER,
        verb="lost its connection",
        sides=BEFORE,
    ),
    Play(
        "serialization failure at each commit",
        "process",
        strike=Strike.SERIALIZATION,
        verb="met a serialization failure",
        sides=BEFORE,
        only="commit",
    ),
    Play(
        "deadlock at each commit",
        "process",
        strike=Strike.DEADLOCK,
        verb="met a deadlock",
        sides=BEFORE,
        only="commit",
    ),
    Play(
        "disk is full from each insert or update on",
        "process",
        statements=WRITING,
        strike=Strike.DISK_FULL,
        goes_on=True,
        verb="found the disk full",
        sides=BEFORE,
    ),
)

MOST_CONNECTIONS = 5
"""The size of the product's pool: with so many, none is refused."""


def too_few_connections(ground: Ground) -> Group:
    """Process and heal as a role that the server allows 0 to 5 connections."""
    cases = list(product(("process", "heal"), range(MOST_CONNECTIONS + 1)))
    with template_with_batch(ground) as template:
        return group(
            "server refuses connections beyond a limit",
            in_lanes(ground, cases, lambda lane, case: _with_few(lane, template, *case)),
        )


def _with_few(lane: Lane, template: str, work: str, limit: int) -> Outcome:
    with (
        scene(lane, template, concurrency=8) as set_up,
        _limited_role(lane.ground, limit) as role,
    ):
        if work == "heal":
            leave_everything_open(set_up)
        place = set_up.place
        run(Errand(work, replace(place, database=place.database.set(username=role, password=role))))
        return Outcome(f"{work} with {limit} connections", judge(set_up))


@contextmanager
def _limited_role(ground: Ground, limit: int) -> Iterator[str]:
    """A role that may read and write everything, with so many connections at a time."""
    # A superuser, as the tests' own role is, is never refused.
    role = f"chaos_{os.urandom(6).hex()}"
    control = create_engine(
        ground.postgres_server.set(drivername="postgresql+psycopg", database="postgres"),
        isolation_level="AUTOCOMMIT",
    )
    with control.connect() as connection:
        connection.execute(text(f"create role {role} login password '{role}' connection limit {limit}"))
        connection.execute(text(f"grant pg_read_all_data, pg_write_all_data to {role}"))
        try:
            yield role
        finally:
            connection.execute(text(f"drop role {role}"))
    control.dispose()


RESTART = Play(
    "server is restarted at each commit of a batch",
    "process",
    concurrency=8,
    strike=Strike.TELL,
    verb="saw the server restart",
    sides=BEFORE,
    only="commit",
)


def restarts_in_mid_batch(ground: Ground) -> Group:
    """Crash a server of this part's own (SIGQUIT) and start it again, at each commit of a batch."""
    with folder_for_a_server() as folder:
        data = folder / "postgres"
        server = embedded_postgres.start(data)
        try:
            prepare_server(server)
            own = replace(ground, postgres_server=server, template=TEMPLATE)
            with template_with_batch(own) as template, open_lane(own) as lane:
                moments = moments_in(lane, template, RESTART)
                return group(RESTART.fault, [_restart(lane, template, moment, data) for moment in moments])
        finally:
            embedded_postgres.stop(data)


def _restart(lane: Lane, template: str, moment: Moment, data: Path) -> Outcome | str:
    name = f"{RESTART.verb} {moment}"
    for _ in range(TRIES):
        with (
            scene(lane, template, concurrency=RESTART.concurrency) as set_up,
            _on_disk(set_up),
            sent_on(Errand(RESTART.work, set_up.place, moment, strike=RESTART.strike)) as runner,
        ):
            if runner.hear() != "here":
                continue
            _crash_and_start(data)
            runner.go_on()
            runner.end()
            return Outcome(name, judge(set_up))
    return name


@contextmanager
def _on_disk(set_up: Scene) -> Iterator[None]:
    """Have the fresh copy of the database written out before anything crashes.

    PostgreSQL writes ahead 32 values of a sequence and takes those of a copied one for written, although that was
    the original's: until the next checkpoint a crash would give numbers out twice.
    """
    with set_up.sessions() as session:
        session.execute(text("checkpoint"))
    yield


def _crash_and_start(data: Path) -> None:
    postmaster = psutil.Process(int((data / "postmaster.pid").read_text().split("\n", 1)[0]))
    # Immediate shutdown: every backend is cut off, and the next start recovers from the log.
    postmaster.send_signal(signal.SIGQUIT)
    wait_until(lambda: not embedded_postgres.is_running(data), what="the server to end")
    embedded_postgres.start(data)


def server_troubles(ground: Ground) -> Iterator[Group]:
    """Run what befalls the server and not a single statement."""
    yield too_few_connections(ground)
    yield restarts_in_mid_batch(ground)
