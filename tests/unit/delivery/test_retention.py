"""Retention: what is dropped, what is not, and that it is reported (section 15)."""

from __future__ import annotations

import pytest

from coterie.delivery import retention, sqlite_ledger
from coterie.delivery.limits import LOCAL
from coterie.transport.api import ZERO32, Chunk, EpochState, ErrorCode, FetchEntry
from tests.delivery_bench import Bench, Raises
from tests.delivery_model import ModelEpoch

DAY = 86400


def sweep(bench: Bench) -> None:
    while bench.run(lambda tx: retention.sweep(tx, bench.settings, bench.clock.now)):
        pass


def test_old_messages_are_dropped_and_reported_as_gone(bench: Bench, epoch: ModelEpoch) -> None:
    for n in range(3):
        bench.append(epoch.message(bytes([n + 1])))
    bench.clock.forward(20 * DAY)
    bench.append(epoch.message(b"young"))
    bench.clock.forward(11 * DAY)
    sweep(bench)
    result = bench.read(epoch)
    assert result.gone is not None
    assert result.gone.number == 3
    assert bench.sealed(epoch) == [b"young"]
    assert result.entries[0].receipt.previous == result.gone.hash()


def test_nothing_is_dropped_before_its_time(bench: Bench, epoch: ModelEpoch) -> None:
    bench.append(epoch.message())
    bench.append(epoch.bundle(epoch.child()))
    bench.clock.forward(30 * DAY)
    sweep(bench)
    assert len(bench.read(epoch).entries) == 2


def test_a_clock_set_back_drops_nothing(bench: Bench, epoch: ModelEpoch) -> None:
    bench.append(epoch.message())
    bench.clock.forward(-100 * DAY)
    sweep(bench)
    assert len(bench.read(epoch).entries) == 1


def test_an_id_outlives_its_entry(bench: Bench, epoch: ModelEpoch) -> None:
    request = epoch.message()
    first = bench.append(request)
    bench.clock.forward(31 * DAY)
    sweep(bench)
    assert bench.append(request) == first
    assert bench.read(epoch).gone == first.receipt


def test_an_ended_epoch_is_gone_and_says_so(bench: Bench, epoch: ModelEpoch) -> None:
    child = epoch.child()
    bench.append(epoch.bundle(child))
    bench.clock.forward(15 * DAY)
    bench.append(child.message())
    bench.clock.forward(16 * DAY)
    sweep(bench)
    with Raises(ErrorCode.GONE, "D-REC-8"):
        bench.read(epoch)
    with Raises(ErrorCode.GONE, "D-REC-8"):
        bench.append(epoch.message())
    with Raises(ErrorCode.GONE, "D-REC-8"):
        bench.run(lambda tx: bench.logs.post_request(tx, epoch.request(), LOCAL))
    with Raises(ErrorCode.BAD_TOKEN, "D-ACC-5"):
        bench.run(lambda tx: bench.logs.read(tx, epoch.read().replace(token=bytes(32))))
    assert len(bench.read(child).entries) == 1


def test_an_epoch_closes_when_its_first_candidate_is_old(bench: Bench, epoch: ModelEpoch) -> None:
    first = bench.append(epoch.bundle(epoch.child(1))).receipt
    bench.clock.forward(20 * DAY)
    second = bench.append(epoch.bundle(epoch.child(2), first.hash())).receipt
    bench.clock.forward(11 * DAY)
    sweep(bench)
    assert bench.read(epoch).state is EpochState.CLOSED
    with Raises(ErrorCode.EPOCH_CLOSED, "D-RET-2"):
        bench.append(epoch.bundle(epoch.child(3), second.hash()))
    assert len(bench.read(epoch).entries) == 2, "candidates are dropped together"
    bench.clock.forward(20 * DAY)
    sweep(bench)
    with Raises(ErrorCode.GONE, "D-REC-8"):
        bench.read(epoch)


def test_the_message_quota_drops_the_oldest_messages(bench: Bench) -> None:
    bench = bench.with_settings(message_quota=3000)
    epoch = bench.new_log()
    for n in range(6):
        bench.append(epoch.message(bytes([n]) * 1000))
    result = bench.read(epoch)
    assert [sealed[0] for sealed in bench.sealed(epoch)] == [4, 5]
    assert result.gone is not None
    assert result.gone.number == 4


def test_no_quota_drops_a_bundle_and_a_full_branch_refuses(bench: Bench) -> None:
    bench = bench.with_settings(bundle_quota=3000, message_quota=2000)
    epoch = bench.new_log()
    child = epoch.child()
    bench.append(epoch.bundle(child, sealed=bytes(2000)))
    for _ in range(5):
        bench.append(child.message(bytes(1000)))
    assert len(bench.read(epoch).entries) == 1
    with Raises(ErrorCode.QUOTA, "D-RET-3"):
        bench.append(child.bundle(child.child(), sealed=bytes(2000)))


def test_a_flood_under_one_candidate_takes_nothing_from_another(bench: Bench) -> None:
    bench = bench.with_settings(bundle_quota=3000)
    epoch = bench.new_log()
    junk = epoch.child("junk")
    first = bench.append(epoch.bundle(junk, sealed=bytes(2000))).receipt
    with Raises(ErrorCode.QUOTA, "D-RET-3"):
        bench.append(junk.bundle(junk.child(), sealed=bytes(2000)))
    honest = epoch.child("honest")
    bench.append(epoch.bundle(honest, first.hash(), sealed=bytes(1200)))
    bench.append(honest.bundle(honest.child(), sealed=bytes(1000)))


def test_what_is_dropped_frees_its_quota(bench: Bench) -> None:
    bench = bench.with_settings(bundle_quota=5000)
    epoch = bench.new_log()
    child = epoch.child()
    bench.append(epoch.bundle(child, sealed=bytes(3000), chunks=(Chunk(bytes(1000)),)))
    bench.clock.forward(31 * DAY)
    sweep(bench)
    bench.append(child.bundle(child.child(), sealed=bytes(4500)))


def test_chunks_live_by_age_since_they_were_renewed(bench: Bench, epoch: ModelEpoch) -> None:
    kept, lost = Chunk(b"kept"), Chunk(b"lost")
    bench.run(lambda tx: bench.logs.put_chunks(tx, epoch.put_chunks((kept, lost)), LOCAL))
    bench.clock.forward(20 * DAY)
    renew = epoch.put_chunks((), kept.address())
    bench.run(lambda tx: bench.logs.put_chunks(tx, renew, LOCAL))
    bench.clock.forward(12 * DAY)
    sweep(bench)
    fetch = epoch.fetch_chunks(kept.address(), lost.address())
    assert bench.run(lambda tx: bench.logs.fetch_chunks(tx, fetch)).chunks == (kept, None)


def test_requests_are_dropped_by_age(bench: Bench, epoch: ModelEpoch) -> None:
    bench.run(lambda tx: bench.logs.post_request(tx, epoch.request(), LOCAL))
    bench.clock.forward(8 * DAY)
    sweep(bench)
    assert bench.run(lambda tx: bench.logs.read_box(tx, epoch.read_box())).items == ()


def test_an_idle_log_is_dropped_with_everything_in_it(bench: Bench, epoch: ModelEpoch) -> None:
    bench.append(epoch.bundle(epoch.child(), chunks=(Chunk(b"x"),)))
    bench.clock.forward(402 * DAY)
    sweep(bench)
    for table in ("log", "epoch", "entry", "chunk", "branch", "request"):
        assert bench.db.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table
    with Raises(ErrorCode.UNKNOWN_EPOCH, "D-REC-8"):
        bench.read(epoch)


def test_usage_of_a_branch_is_what_its_rows_hold(bench: Bench, epoch: ModelEpoch) -> None:
    head = ZERO32
    for n in range(3):
        chunk = Chunk(bytes([n]) * 50)
        head = bench.append(epoch.bundle(epoch.child(n), head, chunks=(chunk,))).receipt.hash()
    bench.append(epoch.child(0).message(bytes(77)))
    bench.clock.forward(31 * DAY)
    sweep(bench)
    assert set(bench.db.execute("SELECT messages, bundles FROM branch")) == {(0, 0)}


@pytest.mark.parametrize("days", [1, 29])
def test_messages_of_an_ended_epoch_go_with_it(bench: Bench, epoch: ModelEpoch, days: int) -> None:
    bench.append(epoch.message())
    bench.clock.forward(days * DAY)
    bench.append(epoch.bundle(epoch.child()))
    bench.clock.forward(31 * DAY)
    sweep(bench)
    with Raises(ErrorCode.GONE, "D-REC-8"):
        bench.read(epoch)


def test_a_part_of_an_entry_that_is_not_there_is_refused(bench: Bench, epoch: ModelEpoch) -> None:
    def fetch(number: int) -> None:
        request = FetchEntry(epoch.log_id, epoch.name, epoch.read_token, number)
        bench.run(lambda tx: bench.logs.fetch_entry(tx, request))

    bench.append(epoch.message())
    fetch(1)
    with Raises(ErrorCode.MALFORMED, "D-REC-7"):
        fetch(2)
    bench.clock.forward(31 * DAY)
    sweep(bench)
    with Raises(ErrorCode.GONE, "D-REC-8"):
        fetch(1)


def test_uploaded_chunks_count_in_half_the_bundle_quota(bench: Bench) -> None:
    bench = bench.with_settings(bundle_quota=6000)
    epoch = bench.new_log()
    first = epoch.put_chunks((Chunk(bytes(2000)),))
    bench.run(lambda tx: bench.logs.put_chunks(tx, first, LOCAL))
    with Raises(ErrorCode.QUOTA, "D-CHK-7"):
        second = epoch.put_chunks((Chunk(bytes(2001)),))
        bench.run(lambda tx: bench.logs.put_chunks(tx, second, LOCAL))


@pytest.mark.parametrize("with_successor", [False, True])
def test_what_an_append_above_the_quota_costs_does_not_grow_with_what_is_stored(
    bench: Bench, *, with_successor: bool
) -> None:
    def cost(messages: int) -> int:
        filled = bench.with_settings(message_quota=100 * messages)
        epoch = filled.new_log()
        if with_successor:
            filled.append(epoch.successor())
        for _ in range(2 * messages):
            filled.append(epoch.message())
        assert filled.read(epoch, 2).gone is not None or with_successor
        steps = 0

        def count() -> bool:
            nonlocal steps
            steps += 1
            return False

        filled.db.set_progress_handler(count, 20)
        filled.append(epoch.message())
        return steps

    assert cost(400) < 1.5 * cost(40)


def test_a_round_of_retention_stops_others_for_a_short_time_only(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def held() -> int:
        tables = ("SELECT body FROM entry", "SELECT data FROM chunk")
        return sum(row[0] is not None for sql in tables for row in bench.db.execute(sql))

    def rounds() -> int:
        count = 0
        while True:
            before = held()
            more = bench.run(lambda tx: retention.sweep(tx, bench.settings, bench.clock.now))
            assert before - held() <= 10
            if not more:
                return count
            count += 1

    monkeypatch.setattr(sqlite_ledger, "_ROWS_AT_ONCE", 10)
    epoch = bench.new_log()
    for _ in range(35):
        bench.append(epoch.message())
    bench.clock.forward(31 * DAY)
    assert rounds() >= 4
    assert bench.read(epoch).gone is not None
    for _ in range(35):
        bench.append(epoch.message())
    chunks = tuple(Chunk(bytes([n])) for n in range(25))
    child = epoch.child()
    bench.append(epoch.bundle(child, chunks=chunks))
    bench.clock.forward(31 * DAY)
    bench.run(lambda tx: retention.sweep(tx, bench.settings, bench.clock.now))
    with Raises(ErrorCode.GONE, "D-REC-8"):
        bench.read(epoch)
    assert rounds() >= 5
    assert bench.db.execute("SELECT sum(messages), sum(bundles) FROM branch").fetchone() == (0, 0)
    bench.clock.forward(500 * DAY)
    rounds()
    for table in ("log", "branch", "epoch", "entry", "chunk", "request"):
        assert not bench.db.execute(f"SELECT * FROM {table}").fetchall(), table


def test_uploads_and_successors_leave_room_for_the_next_commit(bench: Bench) -> None:
    bench = bench.with_settings(bundle_quota=4000)
    epoch = bench.new_log()
    flood = epoch.put_chunks((Chunk(bytes(2000)),))
    bench.run(lambda tx: bench.logs.put_chunks(tx, flood, LOCAL))
    with Raises(ErrorCode.QUOTA, "D-RET-3"):
        bench.append(epoch.successor())
    with Raises(ErrorCode.QUOTA, "D-CHK-7"):
        more = epoch.put_chunks((Chunk(b"1"),))
        bench.run(lambda tx: bench.logs.put_chunks(tx, more, LOCAL))
    bench.append(epoch.bundle(epoch.child(), sealed=bytes(1500)))
