"""What must hold in every simulation, each with the rules of docs/delivery-protocol.md that it rests on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from itertools import combinations, pairwise

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from coterie.client.receipts import verify_receipt
from coterie.delivery.store import Connection
from coterie.errors import CoterieError, VerificationError
from coterie.testing.simulator.observer import Adopted, name_of
from coterie.testing.simulator.world import World
from coterie.transport import api
from coterie.transport.refusal import Refused

_SHORTEST = 8
"""Byte strings below this length may agree by chance."""


class Broken(AssertionError):
    """An assertion does not hold; `name` is its function's."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"{name}: {what}")
        self.name = name
        self.what = what

    def __reduce__(self) -> tuple[type[Broken], tuple[str, str]]:
        """How it is handed from one process to another."""
        return Broken, (self.name, self.what)


def nobody_forks_without_evidence(world: World) -> None:
    """Two honest members never adopt different successors of an epoch without evidence (D-VAL-1, D-REC-9, D-REC-10).

    Evidence is what a member was stopped by, or two signed receipts for one number among those that the two verified.
    """
    honest = {device.label for device in world.honest}
    ways: dict[bytes, list[Adopted]] = defaultdict(list)
    for adopted in world.observer.adopted:
        if adopted.label in honest:
            ways[adopted.parent].append(adopted)
    for group in ways.values():
        first = group[0]
        for other in group[1:]:
            if other.authenticator != first.authenticator and not _convicted(world, first, other):
                what = f"{first.label} and {other.label} went on from one epoch to different ones"
                raise Broken("nobody_forks_without_evidence", what)


def _convicted(world: World, first: Adopted, other: Adopted) -> bool:
    stopped = {label for label, _ in world.observer.evidence}
    if {first.label, other.label} & stopped:
        return True
    mine, theirs = (world.observer.verified[a.label] for a in (first, other))
    key = Ed25519PublicKey.from_public_bytes(world.service.receipt_key)
    for place in mine.keys() & theirs.keys():
        signed = {r.hash() for r in (*mine[place], *theirs[place]) if _is_signed(key, r)}
        if len(signed) > 1:
            return True
    return False


def _is_signed(key: Ed25519PublicKey, receipt: api.Receipt) -> bool:
    try:
        verify_receipt(key, receipt)
    except VerificationError:
        return False
    return True


def nobody_mixes_histories(world: World) -> None:
    """What a member takes was sent by who had seen the same before it, or there is evidence (D-REC-11)."""
    if world.observer.mixed:
        raise Broken("nobody_mixes_histories", world.observer.mixed[0])


def forks_are_noticed(world: World) -> None:
    """In weeks, one of those who were led apart finds out, though nothing is relayed between them (D-REC-12)."""
    honest = {device.label for device in world.honest}
    ways: dict[bytes, set[bytes]] = defaultdict(set)
    for adopted in world.observer.adopted:
        if adopted.label in honest:
            ways[adopted.parent].add(adopted.authenticator)
    forked = any(len(found) > 1 for found in ways.values())
    if world.kit.for_weeks and forked and not world.observer.evidence:
        raise Broken("forks_are_noticed", "members were led apart for weeks and none has noticed")


def subscribers_miss_nothing(world: World) -> None:
    """A subscriber gets each entry once, in order, without gap, as a reader would (D-SUB-1, D-SUB-3, D-SUB-4)."""
    for watcher in world.service.subscribers.watchers:
        for seen in watcher.epochs.values():
            numbers = [receipt.number for receipt in seen.receipts]
            if numbers != list(range(numbers[0], numbers[0] + len(numbers)) if numbers else []):
                raise Broken("subscribers_miss_nothing", f"a subscriber got entries {numbers}")
            for before, after in pairwise(seen.receipts):
                if after.previous != before.hash():
                    what = f"entry {after.number} does not follow the one before it"
                    raise Broken("subscribers_miss_nothing", what)


def subscribers_have_everything(world: World) -> None:
    """When all is quiet a subscriber has what a reader has, or knows that there is more (D-SUB-1, D-SUB-2, D-SUB-5)."""
    if world.kit.lying_service:
        return
    subscribers = world.service.subscribers
    subscribers.settle()
    for watcher in subscribers.watchers:
        for seen in watcher.epochs.values():
            target = seen.target
            read = api.Read(target.log_id, target.epoch, target.token, seen.next_number)
            try:
                answer = world.service.handle("logs/read", read, b"")
            except Refused:
                continue
            result = api.ReadResult.decode(answer.encode())
            known = seen.woken if watcher.delivery is api.Delivery.WAKE_ONLY else seen.next_number
            if seen.ended is None and known != result.head.number + 1:
                what = f"a subscriber knows of entries before {known}, the head is {result.head.number}"
                raise Broken("subscribers_have_everything", what)


def one_head_means_one_history(world: World) -> None:
    """Two members with the same receipt have read the same before it in its epoch (D-REC-2, D-REC-9)."""
    labels = [device.label for device in world.honest]
    for first, other in combinations(labels, 2):
        mine, theirs = (world.observer.receipts.get(label, {}) for label in (first, other))
        shared = set(mine.keys() & theirs.keys())
        same = {place for place in shared if mine[place].hash() == theirs[place].hash()}
        for epoch, number in shared - same:
            if any(e == epoch and n > number for e, n in same):
                what = f"{first} and {other} have one receipt and two histories"
                raise Broken("one_head_means_one_history", what)


def nobody_reads_what_comes_after(world: World) -> None:
    """Who was removed reads nothing that was accepted after the removal, with whatever it kept (D-ENT-5, D-ACC-5).

    Checked with every epoch key that the removed device ever had, against everything that the service stores.
    """
    if world.kit.lying_service:
        return  # Nobody can make a service that lies refuse what is sent to an epoch that has ended.
    order = world.observer.accepted
    gone = _removed(world)
    for side in world.service.sides:
        for entry in _entries(side):
            if entry.header.kind == api.EntryKind.MESSAGE and not _is_forged(world, entry):
                when = order.get(entry.hash(), 0)
                readers = [
                    w for w, since in gone.items() if when > since and _opens(world, w, entry)
                ]
                if readers:
                    what = f"{readers[0]} opens an entry that came after its removal"
                    raise Broken("nobody_reads_what_comes_after", what)


def _removed(world: World) -> dict[str, int]:
    """Who is out, and since which accepted entry."""
    gone: dict[str, int] = {}
    for removal in world.observer.removals:
        device = world.devices.get(removal.whom)
        if device is not None and device.status in {"left", "none"}:
            when = world.observer.accepted.get(removal.entry_hash, 0)
            gone[removal.whom] = max(when, gone.get(removal.whom, 0))
    return gone


def _is_forged(world: World, entry: api.Entry) -> bool:
    return entry.hash() in world.observer.by_outsiders


def _opens(world: World, whom: str, entry: api.Entry) -> bool:
    keys = world.observer.keys.get(whom, {}).get(entry.header.epoch)
    if keys is None:
        return False
    try:
        keys.open(entry)
    except CoterieError:
        return False
    return True


def outsiders_get_nothing(world: World) -> None:
    """Who is in no epoch neither reads an entry of it nor appends one (D-ACC-5, D-ENT-1)."""
    if world.leaks:
        raise Broken("outsiders_get_nothing", world.leaks[0])


def the_service_reads_nothing(world: World) -> None:
    """No text stands anywhere in what the service stores (D-ENT-7, D-INB-5)."""
    stored = b"".join(b"".join(_values(db)) for db in (*world.service.sides, world.service.mail))
    for text in world.texts:
        if text in stored:
            raise Broken("the_service_reads_nothing", f"the service stores {text!r}")


def nobody_honest_is_blamed(world: World) -> None:
    """Blame falls on no honest member (D-VAL-3, D-VAL-6, D-VAL-9), and on no honest service (D-REC-10)."""
    honest = {device.label for device in world.honest}
    for blamed in world.observer.blamed:
        if blamed.by in honest and blamed.whom in honest:
            what = f"{blamed.by} blames {blamed.whom}: {blamed.why}"
            raise Broken("nobody_honest_is_blamed", what)
    if not world.kit.lying_service:
        for label, evidence in world.observer.evidence:
            if label in honest:
                raise Broken("nobody_honest_is_blamed", f"{label} blames the service: {evidence}")


def no_key_and_nonce_twice(world: World) -> None:
    """No generation of a ratchet, envelope, chunk or HPKE key seals twice (D-ENT-2, D-ENT-7, D-CHK-3, D-BOX-8)."""
    if world.kit.lying_service and world.observer.restored:
        return  # A service that withholds a copy's own messages hides that it is one: the reuse guard is left then.
    for what, used in world.observer.served.items():
        times = max(map(len, used.values()))
        if times > 1:
            raise Broken("no_key_and_nonce_twice", f"{what} served {times} times")
    twice = max(map(len, world.observer.sealed.values()), default=0)
    if twice > 1:
        what = f"{twice} contents were sealed under one key of a chunk, a box or an inbox"
        raise Broken("no_key_and_nonce_twice", what)


def nothing_unforeseen(world: World) -> None:
    """Whatever others do, a device fails with a `ServiceError` or not at all (D-ENT-11, D-TRA-5)."""
    if world.kit.lying_service:
        return
    for device in world.honest:
        if device.errors:
            raise Broken("nothing_unforeseen", f"{device.label}: {device.errors[0]!r}")


def work_per_leaf_is_bounded(world: World) -> None:
    """A member judges at most one Commit of a leaf in an epoch that it refuses (D-VAL-4)."""
    honest = {device.label for device in world.honest}
    for (label, _, leaf), times in world.observer.judged.items():
        if label in honest and times > 1 + world.observer.restored[label]:
            what = f"{label} judged {times} invalid Commits of leaf {leaf} in one epoch"
            raise Broken("work_per_leaf_is_bounded", what)


def a_moved_group_arrives(world: World) -> None:
    """When the storms are over nobody is left between a group and the one that follows it (D-SUC-1 to D-SUC-4)."""
    for device in world.honest:
        if device.status == "moving" and not world.kit.lying_service:
            raise Broken("a_moved_group_arrives", f"{device.label} is still on the way")


def a_jammed_group_goes_on_together(world: World) -> None:
    """Of the groups that honest members make in its place all are in the one that counts (D-SUC-6, D-SUC-7)."""
    if not world.reformed or world.kit.lying_service:
        return
    counts = min(world.reformed)
    for device in world.together:
        line = device.line()
        if device.status != "active" or line is None or line.binding.log_id != counts:
            what = (
                f"{device.label} is {device.status} and not in the group that counts: {device.why}"
            )
            raise Broken("a_jammed_group_goes_on_together", what)
        there = {name_of(member.node.credential) for member in line.group.members()}
        if there & world.kit.dishonest:
            raise Broken("a_jammed_group_goes_on_together", "the offender is in it")


def who_declines_is_let_go(world: World) -> None:
    """Whose user does not come into the group that replaces another one is out of it, and not added anew (D-BOX-13)."""
    if world.observer.brought_back:
        raise Broken("who_declines_is_let_go", world.observer.brought_back[0])
    if not world.reformed or world.kit.lying_service:
        return
    for device in world.together:
        line = device.line()
        members = line.group.members() if line is not None else ()
        if left := world.declining & {name_of(member.node.credential) for member in members}:
            what = f"{sorted(left)} declined, and {device.label} has them in the group"
            raise Broken("who_declines_is_let_go", what)


def later_devices_come_once(world: World) -> None:
    """What a user enrols later is added by one of the user's own devices, once; what left stays out (D-DIR-10)."""
    for label in world.later | world.unlinked:
        device, added = world.devices[label], world.observer.added.get(label, {})
        if strangers := set(added.values()) - {device.user}:
            raise Broken("later_devices_come_once", f"{label} was added by {strangers}")
        if len(added) > 1:
            raise Broken("later_devices_come_once", f"{label} was added {len(added)} times")
        if world.kit.lying_service:
            continue
        if label in world.later and device.status != "active":
            raise Broken("later_devices_come_once", f"{label} is {device.status}: {device.why}")
        if label in world.unlinked and device.status != "left":
            raise Broken("later_devices_come_once", f"{label} is {device.status} and had left")


def databases_do_not_join(world: World) -> None:
    """No byte string of 8 bytes or more, nor its hash, stands in both databases (D-DIR-9)."""
    mail = set()
    for value in _values(world.service.mail):
        if len(value) >= _SHORTEST:
            mail |= {value, api.sha256(value)}
    for side in world.service.sides:
        logs = [value for value in _values(side) if len(value) >= _SHORTEST]
        shared = mail & {*logs, *map(api.sha256, logs)}
        if shared:
            what = f"{len(shared)} byte strings stand in both databases"
            raise Broken("databases_do_not_join", what)


def nobody_is_moved_unasked(world: World) -> None:
    """An honest member removes and adds a client at once where it asked, once each time (D-BOX-7, D-BOX-10)."""
    for (whom, package), commits in world.observer.moved.items():
        if whom in world.kit.dishonest:
            continue
        if package not in world.observer.asked.get(whom, ()):
            raise Broken("nobody_is_moved_unasked", f"{whom} was added again and did not ask")
        if (
            len(commits) > 1 and not world.kit.lying_service
        ):  # Which may have two logs that answer it.
            what = f"{whom} was added again {len(commits)} times for one request"
            raise Broken("nobody_is_moved_unasked", what)


def nobody_is_locked_out(world: World) -> None:
    """Who is a member can take part again, and all are in one epoch (D-BOX-8, D-BOX-14, D-INB-8, D-BUN-11, D-COR-1).

    Holds after the storms while the service is honest and another honest member is there.
    """
    if world.kit.lying_service:
        return
    for device in world.missing():
        what = f"{device.label} is {device.status}: {device.why}; {device.refused[-1:]}"
        raise Broken("nobody_is_locked_out", what)
    lines = {d.label: line for d in world.together if d.status == "active" and (line := d.line())}
    if len({(line.group.epoch, line.group.epoch_authenticator) for line in lines.values()}) > 1:
        epochs = {label: line.group.epoch for label, line in lines.items()}
        refused = {d.label: d.refused[-1:] for d in world.honest}
        raise Broken("nobody_is_locked_out", f"members are in epochs {epochs}: {refused}")


def what_was_wanted_is_done(world: World) -> None:
    """Nothing that a member wanted waits for ever (D-BUN-10)."""
    if world.kit.lying_service:
        return
    for device in world.honest:
        if device.status == "active" and device.handle is not None and device.handle.waiting():
            what = f"{device.label} waits with {device.handle.waiting()}: {device.refused[-1:]}"
            raise Broken("what_was_wanted_is_done", what)


def the_group_moves_on(world: World) -> None:
    """While an attacker posts as fast as its rate allows, what a member wants is done in bounded time (D-BUN-8)."""
    if world.pressed and not world.moved_on:
        what = f"no new epoch in {world.MOVING} s, with an attacker at its rate"
        raise Broken("the_group_moves_on", what)


ALWAYS: tuple[Callable[[World], None], ...] = (
    nobody_forks_without_evidence,
    nobody_mixes_histories,
    subscribers_miss_nothing,
    nobody_honest_is_blamed,
    no_key_and_nonce_twice,
    outsiders_get_nothing,
    nothing_unforeseen,
)
"""Looked at after every action."""

AT_THE_END: tuple[Callable[[World], None], ...] = (
    a_moved_group_arrives,
    a_jammed_group_goes_on_together,
    who_declines_is_let_go,
    later_devices_come_once,
    one_head_means_one_history,
    nobody_reads_what_comes_after,
    the_service_reads_nothing,
    work_per_leaf_is_bounded,
    databases_do_not_join,
    nobody_is_moved_unasked,
    forks_are_noticed,
    subscribers_have_everything,
    the_group_moves_on,
    nobody_is_locked_out,
    what_was_wanted_is_done,
)
"""Looked at when the storms are over."""


def _entries(db: Connection) -> list[api.Entry]:
    rows = db.execute("SELECT body FROM entry WHERE body IS NOT NULL ORDER BY key").fetchall()
    return [api.Entry.decode(body) for (body,) in rows if isinstance(body, bytes)]


def _values(db: Connection) -> list[bytes]:
    values = []
    tables = db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    for (table,) in tables:
        for row in db.execute(f"SELECT * FROM {table}").fetchall():  # noqa: S608 - our own tables
            values += [value for value in row if isinstance(value, bytes)]
    return values
