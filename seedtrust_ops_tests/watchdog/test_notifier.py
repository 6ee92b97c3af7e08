"""Trouble is told once on every way, and once that it is over, whatever fails, restarts and comes back meanwhile."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedtrust_ops.severity import Severity
from seedtrust_ops.watchdog import state_file
from seedtrust_ops.watchdog.evaluator import DAEMON_SILENT, DATABASE_DOWN, TICKS_STOPPED, Past, ProbeVerdict, Trouble
from seedtrust_ops.watchdog.notifier import News, NotTold, tell
from seedtrust_ops.watchdog.state_file import Memory, Told, follow

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
PAST = Past(NOON)


def trouble(rule: str = DAEMON_SILENT, subject: str = "daemon", *, since: datetime = NOON) -> Trouble:
    return Trouble(rule, subject, Severity.CRITICAL, "It is silent.", since)


class Listener:
    """A channel that keeps what it hears, unless it is deaf."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_deaf = False
        self.heard: list[str] = []

    def tell(self, news: News) -> None:
        if self.is_deaf:
            raise NotTold("Nobody is there.")
        self.heard += [f"begun {one.trouble.subject}" for one in news.begun]
        self.heard += [f"over {one.trouble.subject}" for one in news.over]


def looked(memory: Memory, *troubles: Trouble, unknown: Sequence[str] = ()) -> Memory:
    return follow(memory, ProbeVerdict(troubles, frozenset(unknown), PAST), NOON)


def test_each_channel_hears_once_of_the_beginning_and_once_of_the_end() -> None:
    letters, posts = Listener("letters"), Listener("posts")
    memory = Memory(PAST)
    for troubles in ([trouble()], [trouble()], [], []):
        memory, failures = tell(looked(memory, *troubles), [letters, posts])
        assert failures == []
    assert letters.heard == posts.heard == ["begun daemon", "over daemon"]
    assert memory.told == {}


def test_deaf_channel_hears_later_and_the_other_once() -> None:
    letters, posts = Listener("letters"), Listener("posts")
    letters.is_deaf = True
    memory, failures = tell(looked(Memory(PAST), trouble()), [letters, posts])
    assert failures == ["letters: Nobody is there. It is tried again at the next look."]
    letters.is_deaf = False
    memory, _ = tell(looked(memory, trouble()), [letters, posts])
    assert letters.heard == posts.heard == ["begun daemon"]


def test_trouble_that_was_over_before_anybody_could_hear_is_still_told() -> None:
    letters = Listener("letters")
    letters.is_deaf = True
    memory, _ = tell(looked(Memory(PAST), trouble()), [letters])
    letters.is_deaf = False
    memory, _ = tell(looked(memory), [letters])
    assert letters.heard == ["begun daemon", "over daemon"]
    assert memory.told == {}


def test_what_comes_back_before_its_end_was_told_is_no_news_to_whoever_knows_of_it() -> None:
    letters = Listener("letters")
    memory, _ = tell(looked(Memory(PAST), trouble()), [letters])
    memory = looked(memory)
    memory, _ = tell(looked(memory, trouble(since=NOON + timedelta(minutes=1))), [letters])
    assert letters.heard == ["begun daemon"]


def test_what_nobody_can_tell_now_lasts() -> None:
    silent, stopped, down = trouble(), trouble(TICKS_STOPPED, "some_sensor"), trouble(DATABASE_DOWN, "dagster")
    memory = looked(Memory(PAST), silent, stopped)
    memory = looked(memory, down, unknown=[DAEMON_SILENT, TICKS_STOPPED])
    assert all(one.over_at is None for one in memory.told.values())
    assert [one.over_at for one in looked(memory, silent).told.values()] == [None, NOON, NOON]


moments = st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001  the zone is beside
tolds = st.builds(
    Told,
    st.builds(
        Trouble,
        st.sampled_from([DAEMON_SILENT, TICKS_STOPPED]),
        st.text(),
        st.sampled_from(Severity),
        st.text(),
        moments,
    ),
    st.none() | moments,
    st.frozensets(st.text()),
    st.frozensets(st.text()),
)
memories = st.builds(
    Memory,
    st.builds(
        Past,
        moments,
        st.dictionaries(st.sampled_from(["application", "dagster"]), moments),
        st.booleans(),
        st.none() | moments,
    ),
    st.lists(tolds).map(lambda found: {one.trouble.key: one for one in found}),
)


@given(memory=memories)
def test_memory_is_read_as_it_was_written(memory: Memory, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "watchdog"
    state_file.write(folder, memory)
    assert state_file.read(folder) == memory


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"past": 3, "told": []}', '{"past": {"watching_since": "x"}}'])
def test_memory_that_can_not_be_read_is_none(content: str, tmp_path: Path) -> None:
    assert state_file.read(tmp_path) is None
    (tmp_path / state_file.FILE).write_text(content)
    assert state_file.read(tmp_path) is None


def test_what_was_told_stays_told_across_a_restart(tmp_path: Path) -> None:
    letters = Listener("letters")
    memory, _ = tell(looked(Memory(PAST), trouble()), [letters])
    state_file.write(tmp_path, memory)
    again = state_file.read(tmp_path)
    assert again is not None
    tell(looked(again, replace(trouble(), detail="It is still silent.")), [letters])
    assert letters.heard == ["begun daemon"]
