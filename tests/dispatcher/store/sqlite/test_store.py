"""What only the SQLite store promises: it outlives its process, one process owns it, and it says what is wrong."""

import asyncio
import os
import signal
import sqlite3
import stat
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from random import Random

import pytest
from msgspec.structs import replace

from dispatcher.core.entries import StopEntry
from dispatcher.core.holds import Fits, Hold
from dispatcher.core.log import Head, Outcome, Record, Refused, Request, Settle
from dispatcher.core.tenant_limits import OverLimit, TenantLimit
from dispatcher.store.factory import open_store
from dispatcher.store.ports import Created, IdempotencyKey, Store, StoreMisconfigured, StoreUnavailable
from dispatcher.store.sqlite import checkpoints
from dispatcher.store.sqlite.store import FEW_JOBS, LARGE_BYTES, MAX_JOBS
from shared.records import Content, Message
from tests.contracts.sessions import (
    acquire,
    append,
    bodies,
    brought,
    call,
    finished,
    head_of,
    numbered,
    result,
    running,
    said,
    stop,
    waiting,
)
from tests.dispatcher.store.writing_process import SESSIONS

ROOT = Path(__file__).parents[4]
CANARY = "zx9canary7"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "sessions.db"


@asynccontextmanager
async def opened(path: Path, query: str = "") -> AsyncIterator[Store]:
    store = await open_store(f"sqlite:///{path}{query}")
    try:
        yield store
    finally:
        await store.close()


async def writing_process(path: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        Path(__file__).parents[1] / "writing_process.py",
        f"sqlite:///{path}",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


async def test_a_stop_waits_for_the_step_under_way_and_for_nothing_that_is_queued(path: Path) -> None:
    async with opened(path) as store:
        epoch = await running(store)
        under_way = store.submit("s", append(epoch, said(1)))
        await asyncio.sleep(0)  # the store hands a step over at the end of a turn of the loop
        await asyncio.sleep(0)
        queued = [store.submit("s", append(epoch, said(number))) for number in range(2, 6)]
        stopped = store.submit("s", Settle(stop()))
        await asyncio.gather(under_way, *queued, stopped)
        entries = (await store.read("s", 0, 20)).entries
    order = [type(entry.body).__name__ for entry in entries if isinstance(entry.body, Content | StopEntry)]
    assert order == ["Content", "StopEntry", *["Content"] * 4]
    assert not entries[-1].released


async def test_results_wait_their_turn(path: Path) -> None:
    """A session has many, and a neighbour's append waits for few of them."""
    async with opened(path) as store:
        epoch, other = await running(store), await running(store, "neighbour")
        await store.submit("s", append(epoch, *(call(n, f"c{n}") for n in range(1, 3 * MAX_JOBS))))
        results = [store.submit("s", Settle(result(f"c{n}"))) for n in range(1, 3 * MAX_JOBS)]
        await store.submit("neighbour", append(other, said(1)))
        assert sum(each.done() for each in results) < 2 * MAX_JOBS
        await asyncio.gather(*results)
        record = await store.load("s")
        assert record
        assert not record.head.calls


async def test_a_transaction_after_a_large_one_takes_few(path: Path) -> None:
    async with opened(path) as store:
        epoch, other = await running(store), await running(store, "neighbour")
        await store.submit("s", append(epoch, *(call(n, f"c{n}") for n in range(1, 3 * MAX_JOBS))))
        await store.submit("neighbour", append(other, said(1, "word " * LARGE_BYTES)))
        results = [store.submit("s", Settle(result(f"c{n}"))) for n in range(1, 3 * MAX_JOBS)]
        await results[0]
        assert sum(each.done() for each in results) == FEW_JOBS
        await results[FEW_JOBS]
        assert sum(each.done() for each in results) == FEW_JOBS + MAX_JOBS
        await asyncio.gather(*results)


async def test_new_sessions_wait_for_one_turn_of_each_that_is_busy(path: Path) -> None:
    """Not for each other: they are of many."""
    async with opened(path) as store:
        epoch = await running(store)
        await store.submit("s", append(epoch, *(call(n, f"c{n}") for n in range(1, 4 * MAX_JOBS))))
        results = [store.submit("s", Settle(result(f"c{n}"))) for n in range(1, 4 * MAX_JOBS)]

        async def settled_before(session_id: str) -> int:
            created = await store.create(waiting(session_id))
            assert created.fresh
            return sum(each.done() for each in results)  # now: with the next turn of the loop more is handed over

        settled = await asyncio.gather(*(settled_before(f"s{n}") for n in range(3 * MAX_JOBS)))
        assert max(settled) <= 2 * MAX_JOBS
        await asyncio.gather(*results)


async def test_what_is_submitted_at_once_sees_what_came_before_it(path: Path) -> None:
    async with opened(path) as store:
        await store.create(waiting("ended", created_at=1.0))
        await store.submit("ended", Settle(stop()))

        async def taken_by(session_id: str) -> Outcome:
            return await store.submit(session_id, acquire("c1", 0))

        made, again, taken, deleted, anew, unknown = await asyncio.gather(
            store.create(brought("s")),
            store.create(brought("s")),
            taken_by("s"),
            store.delete("ended"),
            store.create(waiting("ended", created_at=2.0)),
            taken_by("nobody"),
        )
        assert (made.fresh, again.fresh, again.record) == (True, False, made.record)
        assert head_of(taken).epoch == 1
        assert (deleted, anew.fresh) == (True, True)
        assert unknown == Refused("unknown_session")
        assert await store.load("ended") == anew.record
        record = await store.load("s")
        assert record
        assert record.head == head_of(taken)
        one, other = await asyncio.gather(store.create(waiting("t")), store.create(waiting("t", created_at=2.0)))
        assert (one.fresh, other.fresh, other.record) == (True, False, one.record)


async def test_what_cannot_be_stored_fails_alone(path: Path) -> None:
    lone = "\ud800"
    async with opened(path) as store:
        prompt = Record("bad", Request("default", (Message("user", lone),), 100.0), Head())
        outcomes = await asyncio.gather(
            store.create(waiting("good")),
            store.create(prompt),
            store.create(waiting(lone)),
            store.submit(lone, acquire()),
            store.create(waiting("good, too")),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes] == [Created, *[UnicodeEncodeError] * 3, Created]
        assert [record.session_id for record in await store.select(["waiting"], 10)] == ["good", "good, too"]


async def test_an_append_waits_for_few_large_prompts(path: Path) -> None:
    async with opened(path) as store:
        epoch = await running(store)
        request = Request("default", (Message("user", "x" * 1_000_000),), 100.0, prompt_bytes=1_000_000)
        creating = [asyncio.ensure_future(store.create(Record(f"s{n}", request, Head()))) for n in range(20)]
        await creating[0]
        await store.submit("s", append(epoch, said(1)))
        assert sum(each.done() for each in creating) < 10
        await asyncio.gather(*creating)


async def test_closing_waits_for_all_that_is_queued(path: Path) -> None:
    async with opened(path) as store:
        epoch = await running(store)
        queued = [store.submit("s", append(epoch, said(n))) for n in range(1, 101)]
        await store.close()
        assert [head_of(each.result()).sequence for each in queued] == list(range(1, 101))


# ---- it outlives its process


@pytest.mark.parametrize("query", ["", "?synchronous=full"])
async def test_everything_is_there_after_reopening(path: Path, query: str) -> None:
    key = IdempotencyKey("0123456789abcdef", b"body", 1000.0)
    async with opened(path, query) as store:
        epoch = await running(store)
        await store.submit("s", append(epoch, said(1), call(2), said(3)))
        await store.create(waiting("s2"), key)
        await store.offer("i1", ["default"], 100.0)
        record, entries = await store.load("s"), (await store.read("s", 0, 10)).entries
    async with opened(path, query) as store:
        assert await store.load("s") == record
        assert (await store.read("s", 0, 10)).entries == entries
        assert [record.session_id for record in await store.select(["running"], 10)] == ["s"]
        assert (await store.create(waiting("s3"), key)).record.session_id == "s2"
        assert await store.offered(100.0) == ["default"]
        head = head_of(await store.submit("s", acquire()))
        assert (head.sequence, head.epoch) == (3, epoch + 1)
        assert head_of(await store.submit("s", Settle(result()))).calls == {}
        assert head_of(await store.submit("s", append(head.epoch, finished(4)))).offset == 6


@pytest.mark.parametrize("answered", [1, 57, 400])
async def test_what_was_answered_survives_kill_9(path: Path, answered: int) -> None:
    process = await writing_process(path)
    assert process.stdout
    lines = [await process.stdout.readline() for _ in range(answered)]
    process.kill()
    rest, _ = await process.communicate()
    assert process.returncode == -signal.SIGKILL
    logged = dict.fromkeys((f"s{n}" for n in range(SESSIONS)), 0)
    for line in [*lines, *rest.splitlines(keepends=True)]:
        if line.endswith(b"\n"):
            name, sequence = line.decode().split()
            logged[name] = int(sequence)
    async with opened(path) as store:
        for name, answered_sequence in logged.items():
            entries = (await store.read(name, 0, 100_000)).entries
            assert len(entries) >= answered_sequence
            assert [entry.sequence for entry in entries] == list(range(1, len(entries) + 1))
            assert [entry.offset for entry in entries] == list(range(1, len(entries) + 1))
            record = await store.load(name)
            assert bool(record) or not answered_sequence
            if record:
                assert (record.head.sequence, record.head.offset) == (len(entries), len(entries))
                assert len(entries) % 2 == 0  # an append is there whole or not at all
                await store.submit(name, acquire("c1", 0))


async def test_the_wal_stays_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "CHECKPOINT_BYTES", 256 * 1024)
    monkeypatch.setattr(checkpoints, "MAX_WAL_BYTES", 1024 * 1024)
    async with opened(path) as store:
        epoch = await running(store)
        for n in range(1, 801):  # 16 MB, without a pause in which others would be done with it
            head_of(await store.submit("s", append(epoch, said(n, "x" * 20_000))))
        assert path.with_name("sessions.db-wal").stat().st_size < 6 * 1024 * 1024


async def test_a_checkpoint_that_fails_costs_no_append(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed, loop = asyncio.Event(), asyncio.get_running_loop()

    def fails(checkpointer: checkpoints.Checkpointer) -> bool:
        loop.call_soon_threadsafe(failed.set)
        raise StoreUnavailable("as the test says")

    monkeypatch.setattr(checkpoints, "CHECKPOINT_BYTES", 1)
    monkeypatch.setattr(checkpoints.Checkpointer, "run", fails)
    async with opened(path) as store:
        epoch = await running(store)
        head_of(await store.submit("s", append(epoch, said(1))))
        await asyncio.wait_for(failed.wait(), 10)
        head_of(await store.submit("s", append(epoch, said(2))))


async def test_a_stop_waits_for_no_queue(path: Path) -> None:
    """Neither one by itself nor one with the packet that a rule has stopped."""
    async with opened(path) as store:
        flood, epoch = await running(store, "flood"), await running(store, "ruled")
        await running(store, "asked")
        queued = [store.submit("flood", append(flood, said(n, "x" * 1000))) for n in range(1, 400)]
        stopped = [
            store.submit("asked", Settle(stop())),
            store.submit("ruled", append(epoch, said(1), numbered(StopEntry("x", "RiskControl", "policy"), 1))),
        ]
        assert [head_of(outcome).state for outcome in await asyncio.gather(*stopped)] == ["stopped", "stopped"]
        assert not queued[-1].done()
        assert head_of((await asyncio.gather(*queued))[-1]).sequence == 399


async def test_large_prompts_wait_for_a_checkpoint_and_appends_do_not(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one that finds the WAL too large."""
    runs, second = [False, False, True], threading.Event()

    def run(_: checkpoints.Checkpointer) -> bool:
        large = not runs.pop(0)
        if len(runs) == 1:
            second.wait(10)
        return not large

    request = Request("default", (Message("user", "x" * 100_000),), 100.0, prompt_bytes=100_000)
    async with opened(path) as store:
        epoch = await running(store)
        monkeypatch.setattr(checkpoints, "CHECKPOINT_BYTES", 1)
        monkeypatch.setattr(checkpoints.Checkpointer, "run", run)
        await store.submit("s", append(epoch, said(1)))
        async with asyncio.timeout(30):
            while len(runs) > 1:  # noqa: ASYNC110 - another thread's
                await asyncio.sleep(0.001)
        large = asyncio.ensure_future(store.create(Record("large", request, Head())))
        await store.create(waiting("small"))
        await store.submit("s", append(epoch, said(2)))
        assert not large.done()
        monkeypatch.setattr(checkpoints, "CHECKPOINT_BYTES", 1_000_000_000)
        second.set()
        await large


# ---- one process owns it


async def test_a_second_dispatcher_is_refused(path: Path) -> None:
    async with opened(path) as store:
        with pytest.raises(StoreMisconfigured, match=r"sessions\.db is in use by another Dispatcher$"):
            await open_store(f"sqlite:///{path}")
        other = await writing_process(path)
        output, errors = await asyncio.wait_for(other.communicate(), 30)
        assert b"is in use by another Dispatcher" in errors
        assert output == b""
        await store.create(waiting())
    async with opened(path) as store:
        assert await store.load("s")


async def test_a_second_dispatcher_is_refused_under_another_name_of_the_file_too(path: Path, tmp_path: Path) -> None:
    names = [tmp_path / "link.db", tmp_path / "folder" / "sessions.db"]
    names[0].symlink_to(path)
    names[1].parent.symlink_to(path.parent)
    for first, second in ((path, names[0]), (names[0], path), (path, names[1])):
        async with opened(first):
            with pytest.raises(StoreMisconfigured, match="is in use by another Dispatcher"):
                await open_store(f"sqlite:///{second}")


# ---- it says what is wrong


async def start_error(path: Path) -> str:
    with pytest.raises(StoreMisconfigured) as caught:
        await open_store(f"sqlite:///{path}")
    line = str(caught.value)
    assert str(path) in line
    assert "\n" not in line
    return line


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("These are my notes. " * 100)
    assert "file is not a database" in await start_error(path)
    assert path.read_text().startswith("These are my notes.")


async def test_a_database_of_another_program(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE sessions (id)")
    connection.close()
    assert "another program" in await start_error(path)


async def test_a_schema_of_another_version(path: Path) -> None:
    async with opened(path):
        pass
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    assert "schema version 99; this program works with 6" in await start_error(path)


def make_older(connection: sqlite3.Connection, version: int) -> None:
    """As it was before version 3."""
    connection.executescript(f"""
        DROP TABLE metered;
        DROP TABLE settled;
        DROP TABLE begun;
        DROP TABLE holds;
        DROP INDEX heads_by_place;
        ALTER TABLE sessions DROP COLUMN brief;
        PRAGMA user_version = {version};
    """)


async def test_an_older_schema_is_migrated_and_a_copy_is_kept(path: Path) -> None:
    """Version 1 left what it deleted on free pages."""
    async with opened(path) as store:
        await store.create(brought("kept"))
    with sqlite3.connect(path, isolation_level=None) as older:
        make_older(older, 1)
        older.execute("PRAGMA secure_delete = OFF")
        older.execute("CREATE TABLE gone (word TEXT)")
        older.executemany("INSERT INTO gone VALUES (?)", [(f"{CANARY} {number}" * 50,) for number in range(50)])
        older.execute("DROP TABLE gone")
        older.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    older.close()
    assert remains(path) == [path.name]
    async with opened(path) as store:
        assert await store.load("kept")
        assert remains(path) == ["sessions.db.version-1"]
    copy = path.with_name("sessions.db.version-1")
    with sqlite3.connect(copy) as kept:
        assert kept.execute("PRAGMA user_version").fetchone() == (1,)
        assert kept.execute("SELECT id FROM sessions").fetchall() == [("kept",)]
    kept.close()
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600


async def test_requests_of_version_2_get_their_briefs(path: Path) -> None:
    async with opened(path) as store:
        await store.create(waiting("s"))
        await store.create(waiting("unreadable"))
        fresh, known = await store.select(["waiting"], 1), await store.load("s")
    with sqlite3.connect(path, isolation_level=None) as older:
        make_older(older, 2)
        older.execute("UPDATE sessions SET request = x'c1' WHERE id = 'unreadable'")
    older.close()
    async with opened(path) as store:
        assert await store.select(["waiting"], 1) == await store.page(["waiting"], 2, (100.0, "t")) == fresh
        assert await store.load("s") == known
        with pytest.raises(StoreUnavailable):
            await store.load("unreadable")


async def test_version_3_gets_room_for_holds(path: Path) -> None:
    hold = Hold("hold", Fits(agent="a"), 1.0, 2.0, "RiskControl")
    async with opened(path) as store:
        await store.create(brought("kept"))
    with sqlite3.connect(path, isolation_level=None) as older:
        older.executescript(
            "DROP TABLE metered; DROP TABLE settled; DROP TABLE begun; DROP TABLE holds; PRAGMA user_version = 3;"
        )
    older.close()
    async with opened(path) as store:
        await store.hold(hold)
        assert (await store.holds(0.0), bool(await store.load("kept"))) == ([hold], True)


async def test_version_4_gets_room_for_limits(path: Path) -> None:
    async with opened(path) as store:
        await store.create(brought("kept"))
    with sqlite3.connect(path, isolation_level=None) as older:
        older.executescript("DROP TABLE metered; DROP TABLE settled; DROP TABLE begun; PRAGMA user_version = 4;")
    older.close()
    async with opened(path) as store:
        await store.create(waiting("s"), limit=TenantLimit("*", 1))
        assert await store.load("kept")


async def test_version_5_gets_room_for_tokens(path: Path) -> None:
    async with opened(path) as store:
        await store.create(brought("kept"))
    with sqlite3.connect(path, isolation_level=None) as older:
        older.executescript("DROP TABLE metered; DROP TABLE settled; PRAGMA user_version = 5;")
    older.close()
    async with opened(path) as store:
        await store.create(waiting("s"), limit=TenantLimit("*", tokens_per_day=1))
        assert [record.session_id for record in await store.metered("")] == ["s"]
        assert await store.load("kept")


async def test_limits_outlive_the_process(path: Path) -> None:
    limit = TenantLimit("*", sessions_per_minute=1)
    async with opened(path) as store:
        await store.create(waiting("s1", 100.0), limit=limit)
    async with opened(path) as store:
        with pytest.raises(OverLimit):
            await store.create(waiting("s2", 159.0), limit=limit)
        await store.create(waiting("s2", 160.0), limit=limit)


def bytes_read() -> int:
    """By this process, from files."""
    return int(Path("/proc/self/io").read_text().partition("rchar: ")[2].split()[0])


async def test_a_list_reads_no_prompt(path: Path) -> None:
    """Of prompts of 1 MB: what it reads is a few pages of each session."""
    async with opened(path) as store:
        for number in range(20):
            request = Request("default", (Message("user", "x" * 1_000_000),), 100.0)
            await store.create(Record(f"s{number}", request, Head(since=100.0)))
        read = bytes_read()
        assert len(await store.page(["waiting"], 100)) == len(await store.select(["waiting"], 100)) == 20
        assert bytes_read() - read < 1_000_000


async def test_a_migration_that_fails_leaves_the_file_as_it_was(path: Path) -> None:
    async with opened(path):
        pass
    with sqlite3.connect(path) as older:
        older.execute("PRAGMA user_version = 1")
    older.close()
    path.with_name("sessions.db.version-1").mkdir()
    assert "cannot be brought from schema version 1 to 6" in await start_error(path)
    with sqlite3.connect(path) as unchanged:
        assert unchanged.execute("PRAGMA user_version").fetchone() == (1,)
    unchanged.close()


# ---- for whom


def modes(path: Path) -> dict[str, str]:
    return {found.name: f"{stat.S_IMODE(found.stat().st_mode):o}" for found in (path.parent, *path.parent.iterdir())}


async def test_only_the_owner_can_read_it_also_where_it_was_there(path: Path) -> None:
    ours = dict.fromkeys(("sessions.db", "sessions.db-wal", "sessions.db-shm", "sessions.db.lock"), "600")
    async with opened(path):
        assert modes(path) == ours | {"data": "700"}
    for found in (path.parent, *path.parent.iterdir()):
        found.chmod(0o755)
    async with opened(path):
        assert modes(path) == ours | {"data": "700"}


async def test_a_folder_that_holds_what_is_not_ours_stays_as_it_is(path: Path) -> None:
    path.parent.mkdir(mode=0o755)
    (path.parent / "page.html").touch(0o644)
    async with opened(path):
        found = modes(path)
    assert (found["data"], found["page.html"], found["sessions.db"]) == ("755", "644", "600")


# ---- deleted is deleted


def remains(path: Path) -> list[str]:
    """Which of its files hold the canary."""
    return [file.name for file in path.parent.iterdir() if CANARY.encode() in file.read_bytes()]


@pytest.mark.parametrize("retention", [False, True])
async def test_nothing_of_what_was_deleted_is_in_any_file(path: Path, retention: bool) -> None:
    """Sessions that grow side by side share pages, which split and are balanced meanwhile."""
    random = Random(7)
    ids = [f"s{number}" for number in range(40)]
    async with opened(path) as store:
        epochs = {session_id: await running(store, session_id) for session_id in ids}
        for sequence in range(1, 60):
            for session_id in random.sample(ids, len(ids)):
                text = (CANARY if session_id in ids[1:] else "kept") * random.choice((1, 20, 400))
                await store.submit(session_id, append(epochs[session_id], said(sequence, text)))
            if sequence % 20 == 0:
                await asyncio.sleep(0)
        assert remains(path)
        for session_id in ids[1:]:
            await store.submit(session_id, append(epochs[session_id], finished(60)))
        if retention:
            assert await store.expire(200.0) == len(ids) - 1
        else:
            for session_id in random.sample(ids[1:], len(ids) - 1):
                assert await store.delete(session_id)
        assert not remains(path)
        assert len(await bodies(store, ids[0])) >= 59


async def test_paths_that_cannot_be_opened(tmp_path: Path) -> None:
    assert "cannot be opened" in await start_error(tmp_path)
    (tmp_path / "file").write_text("")
    assert "cannot be opened" in await start_error(tmp_path / "file" / "sessions.db")
    folder = tmp_path / "folder.db"
    folder.mkdir()
    assert "cannot be opened" in await start_error(folder)
    loop = tmp_path / "loop.db"
    loop.symlink_to(loop)
    assert "cannot be opened" in await start_error(loop)


async def test_a_store_that_could_not_start_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    path.write_text("no database " * 100)
    await start_error(path)
    path.unlink()
    async with opened(path) as store:
        assert await store.select(["waiting"], 1) == []


# ---- failing writes


async def test_a_full_disk_fails_the_whole_step_and_passes(path: Path) -> None:
    async with opened(path) as store:
        epoch = await running(store)
        await running(store, "s2")
        await store.submit("s", append(epoch, said(1, "a")))
        disk = sqlite3.connect(path, isolation_level=None)
        disk.execute("CREATE TRIGGER full BEFORE INSERT ON entries BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
        creating = asyncio.ensure_future(store.create(waiting("s3")))
        await asyncio.sleep(0)  # it stands before the others, in the same step
        outcomes = await asyncio.gather(
            creating,
            store.submit("s", append(epoch, said(2, "b"))),
            store.submit("s", append(epoch, said(3, "c"))),
            store.submit("s2", Settle(stop())),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * 4
        assert "disk is full" in str(outcomes[0])
        assert await bodies(store) == [Content("a")]
        disk.execute("DROP TRIGGER full")
        disk.close()
        assert await store.load("s3") is None
        # The heads were read again: what failed left no trace in the writer's memory either.
        assert head_of(await store.submit("s", append(epoch, said(2, "b"), said(3, "c")))).sequence == 3
        assert head_of(await store.submit("s2", append(epoch, said(1)))).state == "running"
        assert await store.submit("s3", acquire()) == Refused("unknown_session")
        assert await bodies(store) == [Content("a"), Content("b"), Content("c")]


async def test_a_record_that_cannot_be_read_fails_alone(path: Path) -> None:
    async with opened(path) as store:
        await store.create(brought("good"))
        await store.create(brought("bad"))
    disk = sqlite3.connect(path, isolation_level=None)
    disk.execute("UPDATE heads SET head = x'c1' WHERE session = (SELECT key FROM sessions WHERE id = 'bad')")
    disk.close()
    async with opened(path) as store:
        good, bad = await asyncio.gather(
            store.submit("good", acquire("c1", 0)), store.submit("bad", acquire("c1", 0)), return_exceptions=True
        )
        assert isinstance(bad, StoreUnavailable)
        assert not isinstance(good, BaseException)
        assert head_of(good).epoch == 1
        with pytest.raises(StoreUnavailable):
            await store.load("bad")


@pytest.mark.parametrize(("limit", "kept"), [(TenantLimit("*", 1), 1), (TenantLimit("*", 1, 100), 6)])
async def test_who_is_over_a_limit_makes_it_look_at_little(path: Path, limit: TenantLimit, kept: int) -> None:
    """However many have begun and ended: at those that live, and where it counts them, at those of the last minute. And
    the refusal holds nothing of what was looked at.
    """

    def waits(name: str) -> Record:
        record = waiting(name, time.time())
        return replace(record, request=replace(record.request, tenant="acme"))

    async with opened(path) as store:
        for number in range(6):
            await store.create(waits(f"s{number}"), limit=limit)
            if number < 5:
                await store.submit(f"s{number}", Settle(stop()))
        with pytest.raises(OverLimit) as refused:
            await store.create(waits("one more"), limit=limit)
        assert "_admit" not in [frame.name for frame in traceback.extract_tb(refused.value.__traceback__)]
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT count(*) FROM begun").fetchone() == (kept,)
