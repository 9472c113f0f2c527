"""The service rules for logs, one by one."""

from __future__ import annotations

from functools import partial

import pytest

from coterie.delivery.limits import LOCAL, Requester
from coterie.delivery.settings import Rate, Rates, Settings
from coterie.transport.api import (
    ZERO32,
    Append,
    Bundle,
    Chunk,
    CreateLog,
    CreateLogRequest,
    EntryHeader,
    EntryKind,
    EpochState,
    ErrorCode,
    FetchEntry,
    PutChunksRequest,
)
from tests.delivery_bench import Bench, Raises
from tests.delivery_model import V1, ModelEpoch, fresh_id, new_log, verify_receipt

# -- receipts


def test_receipts_are_numbered_from_one_and_chain_to_the_opening_receipt(bench: Bench) -> None:
    epoch, create = new_log()
    opening = bench.run(lambda tx: bench.logs.create(tx, create, LOCAL)).receipt
    assert (opening.number, opening.previous) == (0, ZERO32)
    assert opening.entry_hash == create.create.hash()
    previous = opening
    for number in (1, 2, 3):
        request = epoch.message()
        receipt = bench.append(request).receipt
        verify_receipt(receipt, bench.receipt_key)
        assert (receipt.number, receipt.previous) == (number, previous.hash())
        assert (receipt.epoch, receipt.entry_hash) == (epoch.name, request.entry.hash())
        previous = receipt


def test_a_bundle_opens_the_epoch_it_claims_with_a_receipt_that_names_it(
    bench: Bench, epoch: ModelEpoch
) -> None:
    child = epoch.child()
    answer = bench.append(epoch.bundle(child))
    assert answer.opened is not None
    verify_receipt(answer.opened, bench.receipt_key)
    assert (answer.opened.epoch, answer.opened.number) == (child.name, 0)
    assert answer.opened.previous == answer.receipt.hash()
    assert answer.opened.entry_hash == answer.receipt.entry_hash
    assert bench.append(child.message()).receipt.previous == answer.opened.hash()


# -- access


def test_an_append_under_another_key_is_refused(bench: Bench, epoch: ModelEpoch) -> None:
    other = epoch.child("stranger")
    entry = epoch.message().entry
    signature = other.message().signature
    with Raises(ErrorCode.BAD_SIGNATURE, "D-ENT-1"):
        bench.append(Append(epoch.log_id, entry, signature))


def test_an_epoch_is_read_with_its_own_token_only(bench: Bench, epoch: ModelEpoch) -> None:
    child = epoch.child()
    bench.append(epoch.bundle(child))
    request = epoch.read().replace(epoch=child.name)
    with Raises(ErrorCode.BAD_TOKEN, "D-ACC-5"):
        bench.run(lambda tx: bench.logs.read(tx, request))


def test_who_was_removed_reads_the_commit_and_nothing_after_it(
    bench: Bench, epoch: ModelEpoch
) -> None:
    child = epoch.child()
    bench.append(epoch.bundle(child))
    bench.append(child.message(b"after the removal"))
    assert bench.sealed(epoch) == [b"commit"]
    for request in (epoch.read(), epoch.child("guess").read()):
        with Raises(ErrorCode.BAD_TOKEN, "D-ACC-5"):
            bench.run(partial(bench.logs.read, request=request.replace(epoch=child.name)))


def test_an_unknown_epoch_or_a_log_that_does_not_fit_is_unknown(
    bench: Bench, epoch: ModelEpoch
) -> None:
    with Raises(ErrorCode.UNKNOWN_EPOCH, "D-REC-8"):
        bench.append(epoch.child().message())
    with Raises(ErrorCode.UNKNOWN_EPOCH, "D-REC-8"):
        bench.append(epoch.message().replace(log_id=fresh_id()))


def test_the_append_key_of_an_ancestor_is_refused(bench: Bench, epoch: ModelEpoch) -> None:
    child = epoch.child()
    bench.append(epoch.bundle(child))
    again = ModelEpoch(epoch.log_id, child.name, epoch.seed)
    with Raises(ErrorCode.BAD_ACCESS, "D-ACC-6"):
        bench.append(child.bundle(again))


def test_the_append_key_of_a_sibling_is_no_obstacle(bench: Bench, epoch: ModelEpoch) -> None:
    """Or an insider could take the right key of an honest epoch first and block the correction."""
    first = bench.append(epoch.bundle(epoch.child(1))).receipt
    sibling = epoch.child(1)
    stolen = sibling.access.replace(read_hash=fresh_id())
    request = epoch.bundle(epoch.child(2), first.hash())
    header = request.entry.header
    header = header.replace(bundle=Bundle(first.hash(), stolen, ()))
    assert bench.append(epoch.sign(header, b"commit")).opened is not None


# -- idempotence


def test_a_repeated_append_gets_the_first_receipt_and_changes_nothing(
    bench: Bench, epoch: ModelEpoch
) -> None:
    request = epoch.message()
    first = bench.append(request)
    bench.append(epoch.message())
    assert bench.append(request) == first
    assert len(bench.read(epoch).entries) == 2


def test_a_repeated_bundle_gets_both_receipts_also_when_the_epoch_has_ended(
    bench: Bench, epoch: ModelEpoch
) -> None:
    request = epoch.bundle(epoch.child())
    assert bench.append(request) == bench.append(request)


def test_another_entry_under_a_used_id_is_refused(bench: Bench, epoch: ModelEpoch) -> None:
    id = fresh_id()
    bench.append(epoch.message(b"one", id))
    with Raises(ErrorCode.ID_REUSED, "D-ENT-3"):
        bench.append(epoch.message(b"two", id))


def test_the_same_id_serves_in_another_epoch(bench: Bench, epoch: ModelEpoch) -> None:
    id, child = fresh_id(), epoch.child()
    bench.append(epoch.message(b"one", id))
    bench.append(epoch.bundle(child))
    assert bench.append(child.message(b"two", id)).receipt.number == 1


# -- order


def test_a_message_to_an_ended_epoch_is_refused_with_where_to_read_on(
    bench: Bench, epoch: ModelEpoch
) -> None:
    bench.append(epoch.message())
    bench.append(epoch.bundle(epoch.child()))
    with Raises(ErrorCode.EPOCH_ENDED, "D-ENT-5") as caught:
        bench.append(epoch.message())
    assert caught.race.read_from == 2


def test_who_loses_the_race_gets_the_winner_and_where_to_read_on(
    bench: Bench, epoch: ModelEpoch
) -> None:
    winner = epoch.bundle(epoch.child(1))
    receipt = bench.append(winner).receipt
    with Raises(ErrorCode.LOST_RACE, "D-BUN-3") as caught:
        bench.append(epoch.bundle(epoch.child(2)))
    race = caught.race
    assert (race.winner.entry, race.winner.receipt) == (winner.entry, receipt)
    assert race.read_from == receipt.number


def test_a_further_candidate_names_the_newest_one(bench: Bench, epoch: ModelEpoch) -> None:
    first = bench.append(epoch.bundle(epoch.child(1))).receipt
    second = bench.append(epoch.bundle(epoch.child(2), first.hash())).receipt
    with Raises(ErrorCode.LOST_RACE, "D-BUN-3") as caught:
        bench.append(epoch.bundle(epoch.child(3), first.hash()))
    assert caught.race.read_from == second.number == 2
    assert bench.append(epoch.bundle(epoch.child(3), second.hash())).opened is not None


def test_a_bundle_cannot_open_a_name_that_exists(bench: Bench, epoch: ModelEpoch) -> None:
    first = bench.append(epoch.bundle(epoch.child())).receipt
    with Raises(ErrorCode.BAD_ACCESS, "D-BUN-6"):
        bench.append(epoch.bundle(epoch.child(), first.hash()))


def test_a_refused_bundle_leaves_nothing_behind(bench: Bench, epoch: ModelEpoch) -> None:
    chunk = Chunk(b"state")
    missing = epoch.bundle(epoch.child(), chunks=(chunk,), added=(chunk.address(), fresh_id()))
    with Raises(ErrorCode.MISSING_CHUNK, "D-BUN-5"):
        bench.append(missing)
    assert bench.read(epoch).entries == ()
    assert bench.read(epoch).state is EpochState.OPEN
    with Raises(ErrorCode.UNKNOWN_EPOCH, "D-REC-8"):
        bench.read(epoch.child())
    chunks = bench.run(lambda tx: bench.logs.fetch_chunks(tx, epoch.fetch_chunks(chunk.address())))
    assert chunks.chunks == (None,)


# -- corrections and successors


def test_a_correction_opens_a_sibling_beside_the_wrong_claim(
    bench: Bench, epoch: ModelEpoch
) -> None:
    candidate = bench.append(epoch.bundle(epoch.child("false"))).receipt
    right = epoch.child("derived")
    answer = bench.append(epoch.correction(candidate.entry_hash, right))
    assert answer.opened is not None
    assert answer.opened.previous == answer.receipt.hash()
    assert bench.append(right.message()).receipt.number == 1


def test_many_members_who_correct_all_succeed(bench: Bench, epoch: ModelEpoch) -> None:
    candidate = bench.append(epoch.bundle(epoch.child("false"))).receipt
    right = epoch.child("derived")
    first = bench.append(epoch.correction(candidate.entry_hash, right))
    assert bench.append(epoch.correction(candidate.entry_hash, right)) == first
    assert len(bench.read(epoch).entries) == 2


def test_a_correction_is_no_candidate(bench: Bench, epoch: ModelEpoch) -> None:
    candidate = bench.append(epoch.bundle(epoch.child("false"))).receipt
    bench.append(epoch.correction(candidate.entry_hash, epoch.child("derived")))
    assert bench.append(epoch.bundle(epoch.child("next"), candidate.hash())).opened is not None


def test_a_correction_of_what_is_no_candidate_is_refused(bench: Bench, epoch: ModelEpoch) -> None:
    message = bench.append(epoch.message()).receipt
    with Raises(ErrorCode.UNKNOWN_CANDIDATE, "D-COR-2"):
        bench.append(epoch.correction(message.entry_hash, epoch.child()))


def test_a_successor_is_accepted_in_an_ended_epoch_and_ends_none(
    bench: Bench, epoch: ModelEpoch
) -> None:
    bench.append(epoch.successor())
    bench.append(epoch.message())
    bench.append(epoch.bundle(epoch.child()))
    assert bench.append(epoch.successor()).receipt.number == 4


# -- reading


def test_a_read_goes_on_where_the_page_ended(bench: Bench, epoch: ModelEpoch) -> None:
    bodies = [bytes([n]) * 300 for n in range(1, 8)]
    for body in bodies:
        bench.append(epoch.message(body))
    got, number = [], 0
    while True:
        page = bench.read(epoch, number, max_bytes=1200)
        got += [e.entry.sealed for e in page.entries if e.entry is not None]
        number = page.next_number
        if number > page.head.number:
            break
    assert got == bodies
    assert bench.read(epoch, number).entries == ()


def test_a_large_entry_is_fetched_in_parts(bench: Bench, epoch: ModelEpoch) -> None:
    body = bytes(range(256)) * 400
    request = epoch.bundle(epoch.child(), sealed=body)
    bench.append(request)
    stored = bench.read(epoch).entries[0]
    assert stored.entry is None
    parts = b""
    while len(parts) < stored.size:
        fetch = FetchEntry(epoch.log_id, epoch.name, epoch.read_token, 1, len(parts), 40_000)
        parts += bench.run(partial(bench.logs.fetch_entry, request=fetch)).part
    assert parts == request.entry.encode()


# -- creating


def test_creating_a_log_twice_gives_the_first_answer(bench: Bench) -> None:
    _, create = new_log()
    first = bench.run(lambda tx: bench.logs.create(tx, create, LOCAL))
    assert bench.run(lambda tx: bench.logs.create(tx, create, LOCAL)) == first


def test_another_log_under_a_known_id_is_refused(bench: Bench, epoch: ModelEpoch) -> None:
    other = ModelEpoch(epoch.log_id, ZERO32, fresh_id())
    create = CreateLog(V1, epoch.log_id, other.access, 86400 * 30)
    request = CreateLogRequest(create, other.key.sign(create.to_be_signed()))
    with Raises(ErrorCode.ID_REUSED, "D-LOG-2"):
        bench.run(lambda tx: bench.logs.create(tx, request, LOCAL))


def test_a_log_is_made_by_who_holds_its_first_key(bench: Bench) -> None:
    _, create = new_log()
    with Raises(ErrorCode.BAD_SIGNATURE, "D-LOG-1"):
        bench.run(lambda tx: bench.logs.create(tx, create.replace(signature=bytes(64)), LOCAL))


@pytest.mark.parametrize("retention", [3600, 86400 * 4000])
def test_a_retention_out_of_bounds_is_refused(bench: Bench, retention: int) -> None:
    _, create = new_log(retention=retention)
    with Raises(ErrorCode.BAD_RETENTION, "D-LOG-3"):
        bench.run(lambda tx: bench.logs.create(tx, create, LOCAL))


# -- chunks


def test_a_bundle_may_list_chunks_that_are_stored(bench: Bench, epoch: ModelEpoch) -> None:
    chunk = Chunk(b"kept subtree")
    child, grandchild = epoch.child(), epoch.child().child()
    bench.append(epoch.bundle(child, chunks=(chunk,)))
    bench.append(child.bundle(grandchild, added=(chunk.address(),)))
    fetch = grandchild.fetch_chunks(fresh_id(), chunk.address())
    assert bench.run(lambda tx: bench.logs.fetch_chunks(tx, fetch)).chunks == (None, chunk)


def test_a_chunk_that_the_header_does_not_list_is_refused(bench: Bench, epoch: ModelEpoch) -> None:
    with Raises(ErrorCode.MALFORMED, "D-BUN-5"):
        bench.append(epoch.bundle(epoch.child(), chunks=(Chunk(b"x"),), added=()))


def test_chunks_come_with_bundles_only(bench: Bench, epoch: ModelEpoch) -> None:
    with Raises(ErrorCode.MALFORMED, "D-ENT-6"):
        bench.append(epoch.message().replace(chunks=(Chunk(b"x"),)))


def test_chunks_are_uploaded_again_and_renewed_by_who_is_in_the_open_epoch(
    bench: Bench, epoch: ModelEpoch
) -> None:
    chunk, unknown = Chunk(b"again"), fresh_id()
    request = epoch.put_chunks((chunk,), chunk.address(), unknown)
    answer = bench.run(lambda tx: bench.logs.put_chunks(tx, request, LOCAL))
    assert answer.missing == (unknown,)
    bench.append(epoch.bundle(epoch.child()))
    with Raises(ErrorCode.EPOCH_ENDED, "D-CHK-7"):
        bench.run(lambda tx: bench.logs.put_chunks(tx, epoch.put_chunks(()), LOCAL))


def test_an_upload_of_chunks_is_signed(bench: Bench, epoch: ModelEpoch) -> None:
    put = epoch.put_chunks((Chunk(b"x"),)).put
    with Raises(ErrorCode.BAD_SIGNATURE, "D-CHK-7"):
        bench.run(lambda tx: bench.logs.put_chunks(tx, PutChunksRequest(put, bytes(64)), LOCAL))


# -- boxes


def test_a_request_reaches_readers_of_the_epoch_and_of_its_descendants(
    bench: Bench, epoch: ModelEpoch
) -> None:
    child = epoch.child()
    bench.append(epoch.bundle(child))
    sibling = epoch.child("other")
    first = bench.read(epoch).entries[0].receipt
    bench.append(epoch.bundle(sibling, first.hash()))
    bench.run(lambda tx: bench.logs.post_request(tx, epoch.request(), LOCAL))
    bench.run(lambda tx: bench.logs.post_request(tx, child.request(), LOCAL))

    def box(reader: ModelEpoch) -> list[bytes]:
        result = bench.run(lambda tx: bench.logs.read_box(tx, reader.read_box()))
        return [item.epoch for item in result.items]

    assert box(epoch) == [epoch.name]
    assert box(child) == [epoch.name, child.name]
    assert box(sibling) == [epoch.name]


def test_a_box_is_read_from_a_cursor(bench: Bench, epoch: ModelEpoch) -> None:
    for _ in range(3):
        bench.run(lambda tx: bench.logs.post_request(tx, epoch.request(), LOCAL))
    first = bench.run(lambda tx: bench.logs.read_box(tx, epoch.read_box()))
    rest = bench.run(lambda tx: bench.logs.read_box(tx, epoch.read_box(2)))
    assert first.items[1:] == rest.items
    assert rest.next_number == 4


def test_a_box_is_written_with_its_token_only(bench: Bench, epoch: ModelEpoch) -> None:
    request = epoch.request().replace(box_token=epoch.read_token)
    with Raises(ErrorCode.BAD_TOKEN, "D-BOX-1"):
        bench.run(lambda tx: bench.logs.post_request(tx, request, LOCAL))


def test_a_link_reads_nothing(bench: Bench, epoch: ModelEpoch) -> None:
    token = epoch.box_token
    with Raises(ErrorCode.BAD_TOKEN, "D-ACC-5"):
        bench.run(lambda tx: bench.logs.read(tx, epoch.read().replace(token=token)))
    with Raises(ErrorCode.BAD_TOKEN, "D-ACC-5"):
        bench.run(lambda tx: bench.logs.read_box(tx, epoch.read_box().replace(token=token)))


def test_a_request_that_is_not_padded_is_refused(bench: Bench, epoch: ModelEpoch) -> None:
    with Raises(ErrorCode.BAD_SIZE, "D-BOX-2"):
        bench.run(lambda tx: bench.logs.post_request(tx, epoch.request(5000), LOCAL))


def test_a_full_box_refuses(bench: Bench) -> None:
    bench = bench.with_settings(max_requests=2)
    epoch = bench.new_log()
    for _ in range(2):
        bench.run(lambda tx: bench.logs.post_request(tx, epoch.request(), LOCAL))
    with Raises(ErrorCode.QUOTA, "D-BOX-1"):
        bench.run(lambda tx: bench.logs.post_request(tx, epoch.request(), LOCAL))


# -- limits


def test_sizes_are_limited(bench: Bench) -> None:
    bench = bench.with_settings(max_entry=1000, max_chunk=100, max_chunks=2)
    epoch = bench.new_log()
    bench.append(epoch.message(bytes(500)))
    with Raises(ErrorCode.TOO_LARGE, "D-TRA-4"):
        bench.append(epoch.message(bytes(1000)))
    with Raises(ErrorCode.TOO_LARGE, "D-TRA-4"):
        bench.append(epoch.bundle(epoch.child(), chunks=(Chunk(bytes(101)),)))
    with Raises(ErrorCode.TOO_LARGE, "D-TRA-4"):
        bench.append(epoch.bundle(epoch.child(), added=(fresh_id(), fresh_id(), fresh_id())))


def test_sealed_content_is_absent_exactly_in_corrections(bench: Bench, epoch: ModelEpoch) -> None:
    with Raises(ErrorCode.MALFORMED, "D-ENT-6"):
        bench.append(epoch.message(b""))
    header = epoch.correction(fresh_id(), epoch.child()).entry.header
    with Raises(ErrorCode.MALFORMED, "D-ENT-6"):
        bench.append(epoch.sign(header, b"talk"))


def test_a_flood_of_bundles_is_charged_to_its_sender_alone(bench: Bench) -> None:
    bench = Bench(Settings(rates=Rates(bundles=Rate(2, 10.0))))
    epoch = bench.new_log()
    flooder, honest = Requester(b"flooder"), Requester(b"honest")
    head = ZERO32
    for n in range(2):
        head = bench.append(epoch.bundle(epoch.child(n), head), flooder).receipt.hash()
    with Raises(ErrorCode.RATE_LIMITED, "D-TRA-4") as caught:
        bench.append(epoch.bundle(epoch.child(9), head), flooder)
    assert caught.error.retry_after is not None
    assert 0 < caught.error.retry_after <= 10
    bench.append(epoch.bundle(epoch.child(9), head), honest)


def test_neither_repetitions_nor_lost_races_are_charged() -> None:
    bench = Bench(Settings(rates=Rates(bundles=Rate(2, 1000.0))))
    epoch = bench.new_log()
    request = epoch.bundle(epoch.child(1))
    first = bench.append(request)
    for n in range(5):
        assert bench.append(request) == first
        with Raises(ErrorCode.LOST_RACE, "D-BUN-3"):
            bench.append(epoch.bundle(epoch.child("lost", n)))
    assert bench.append(epoch.bundle(epoch.child(2), first.receipt.hash())).opened is not None


def test_a_correction_has_a_rate_of_its_own() -> None:
    bench = Bench(Settings(rates=Rates(bundles=Rate(1, 1000.0), corrections=Rate(1, 1000.0))))
    epoch = bench.new_log()
    candidate = bench.append(epoch.bundle(epoch.child(1))).receipt.entry_hash
    bench.append(epoch.correction(candidate, epoch.child(2)))
    with Raises(ErrorCode.RATE_LIMITED, "D-TRA-4"):
        bench.append(epoch.correction(candidate, epoch.child(3)))


def test_an_unknown_kind_of_entry_does_not_decode(epoch: ModelEpoch) -> None:
    header = EntryHeader(V1, EntryKind.MESSAGE, epoch.name, fresh_id()).encode()
    broken = header[:2] + b"\x09" + header[3:]
    with pytest.raises(Exception, match="EntryKind has no value 9"):
        EntryHeader.decode(broken)


def test_chunks_that_do_not_fit_into_one_answer_are_asked_for_again(bench: Bench) -> None:
    bench = bench.with_settings(max_read=2500)
    epoch = bench.new_log()
    chunks = tuple(Chunk(bytes([n]) * 1000) for n in range(5))
    put = epoch.put_chunks(chunks)
    bench.run(lambda tx: bench.logs.put_chunks(tx, put, LOCAL))
    addresses = [chunk.address() for chunk in chunks]
    got: list[Chunk | None] = []
    while len(got) < len(chunks):
        fetch = epoch.fetch_chunks(*addresses[len(got) :])
        page = bench.run(partial(bench.logs.fetch_chunks, request=fetch)).chunks
        assert 0 < len(page) <= 2
        got += page
    assert got == list(chunks)


def test_a_bundle_that_names_a_candidate_where_there_is_none_is_refused(
    bench: Bench, epoch: ModelEpoch
) -> None:
    with Raises(ErrorCode.LOST_RACE, "D-BUN-3") as caught:
        bench.append(epoch.bundle(epoch.child(), fresh_id()))
    assert caught.error.lost_race is None
