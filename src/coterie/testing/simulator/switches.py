"""Rules of the protocol, each with a way to switch it off and the scenario in which its absence shows.

A switch replaces one check in the real code while a simulation runs. `docs/simulator.md` lists what was found.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest import mock

from coterie.client import line as line_module
from coterie.client import receipts, returning
from coterie.client.calling import Calling
from coterie.client.conversation import Conversation
from coterie.client.line import Line
from coterie.client.outcomes import Evidence, Stuck, Void
from coterie.client.rereading import Rereading
from coterie.client.returning import Returning
from coterie.client.tending import Tending
from coterie.client.trail import Trail
from coterie.client.vault import Vault
from coterie.delivery import hub as hub_module
from coterie.delivery import logs as logs_module
from coterie.delivery.hub import Channel, Hub
from coterie.delivery.limits import Limiter
from coterie.delivery.logs import Logs
from coterie.errors import CoterieError, VerificationError
from coterie.mls.crypto import Suite
from coterie.mls.group import Group
from coterie.testing.simulator import later_devices, reformings, scenarios, successions
from coterie.testing.simulator.insider import Insider
from coterie.testing.simulator.liar import LyingService
from coterie.testing.simulator.outsiders import LinkHolder, RemovedMember
from coterie.testing.simulator.run import Scenario, Without
from coterie.testing.simulator.service import RETENTION
from coterie.testing.simulator.world import Kit, World
from coterie.transport import api

Adversary = Insider | LyingService | RemovedMember | LinkHolder
RACES = ("send", "renew", "rename", "start", "start", "step", "step", "step", "sync", "tick")


@dataclass(frozen=True, slots=True)
class Switch:
    """A rule, how to switch it off, and where it shows which assertion breaks."""

    rule: str
    off: Without
    scenario: Scenario
    breaks: frozenset[str]
    seeds: int = 12


def _patch(owner: Any, name: str, value: object) -> Without:  # noqa: ANN401 - a class or a module
    def off(_world: World) -> AbstractContextManager[object]:
        return mock.patch.object(owner, name, value)

    return off


def _only(scenario: Scenario, *names: str, actions: tuple[str, ...], length: int = 40) -> Scenario:
    """A scenario whose adversaries do nothing but certain attacks; nobody is waited for when they are over."""

    def prepare(world: World) -> None:
        scenario.prepare(world)
        for adversary in list(world.attackers):
            attacks = tuple(getattr(adversary, name) for name in names if hasattr(adversary, name))
            if attacks:
                adversary.attacks = attacks  # type: ignore[attr-defined]

    def kit(rng: random.Random) -> Kit:
        return dataclasses.replace(scenario.kit(rng), patience=0)

    return dataclasses.replace(scenario, kit=kit, prepare=prepare, actions=actions, length=length)


# -- members' rules


def _no_previous(self: Line, receipt: api.Receipt) -> None:
    """`Line._chain` without the comparison of `previous`."""
    receipts.verify_receipt(self._receipt_key, receipt)
    if receipt.epoch != self.state.epoch or receipt.number != self.next_number:
        msg = "another number than the next one"
        raise VerificationError(msg, rule="D-REC-9")


def _no_number(self: Line, receipt: api.Receipt) -> None:
    """`Line._chain` without the comparison of numbers."""
    receipts.verify_receipt(self._receipt_key, receipt)
    if receipt.previous != self.state.head.hash():
        raise Evidence(self.state.head, receipt, "a receipt names another one before it")


@contextmanager
def _any_candidate_before(_world: World) -> Iterator[None]:
    real = Line._judge  # noqa: SLF001 - the check that is switched off

    def judge(self: Line, entry: api.Entry, receipt: api.Receipt, now: int) -> Any:  # noqa: ANN401
        if entry.header.bundle is not None:
            self.state = self.state.replace(last_candidate=entry.header.bundle.last_candidate)
        return real(self, entry, receipt, now)

    with mock.patch.object(Line, "_judge", judge):
        yield


def _anything(*_args: object, **_options: object) -> None:
    """A check that checks nothing."""


def _fits(_token: bytes, _hash: bytes) -> bool:
    """`token_fits` for any token."""
    return True


@contextmanager
def _no_manifest_signature(_world: World) -> Iterator[None]:
    real = Line._check_manifest  # noqa: SLF001 - the check that is switched off

    def check(self: Line, entry: api.Entry, sealed: api.SealedContent) -> api.CommitContent:
        with mock.patch.object(Suite, "verify_with_label", _anything):
            return real(self, entry, sealed)

    with mock.patch.object(Line, "_check_manifest", check):
        yield


class _Nothing(CoterieError):
    """An error that nobody raises."""


@contextmanager
def _no_private_failure(_world: World) -> Iterator[None]:
    with (
        mock.patch.object(line_module, "PRIVATE_RULES", frozenset()),
        mock.patch.object(line_module, "DecryptionError", _Nothing),
        mock.patch.object(line_module, "_has_private_inputs", return_value=False),
    ):
        yield


@contextmanager
def _copies_go_on(_world: World) -> Iterator[None]:
    real = Line._judge  # noqa: SLF001 - the check that is switched off

    def judge(self: Line, entry: api.Entry, receipt: api.Receipt, now: int) -> Any:  # noqa: ANN401
        outcome = real(self, entry, receipt, now)
        if isinstance(outcome, Stuck) and "copy" in outcome.why:
            return Void(outcome.number, outcome.why)
        return outcome

    with mock.patch.object(Line, "_judge", judge):
        yield


@contextmanager
def _every_candidate_counts(_world: World) -> Iterator[None]:
    real = Line._judge_bundle  # noqa: SLF001 - the check that is switched off

    def judge(self: Line, *args: Any) -> Any:  # noqa: ANN401 - Outcome
        self.state = self.state.replace(used_leaves=())
        return real(self, *args)

    with mock.patch.object(Line, "_judge_bundle", judge):
        yield


@contextmanager
def _time_is_a_ground(world: World) -> Iterator[None]:
    real = Group.receive

    def receive(self: Group, message: Any, *, now: int | None = None) -> Any:  # noqa: ANN401
        del now
        return real(self, message, now=world.clock())

    with mock.patch.object(Group, "receive", receive):
        yield


@contextmanager
def _gaps_forgotten(_world: World) -> Iterator[None]:
    real = Line.skip_gone

    def skip(self: Line, gone: api.Receipt) -> None:
        real(self, gone)
        self.state = self.state.replace(missed=0)

    with mock.patch.object(Line, "skip_gone", skip):
        yield


async def _no_reading(_self: Conversation) -> None:
    """`Rereading._reread` that reads nothing."""


async def _no_correction(_self: Conversation, _line: Line) -> None:
    """`Conversation._correct` without a correction."""


def _same_id(_world: World) -> AbstractContextManager[object]:
    return mock.patch.object(line_module, "secrets", SimpleNamespace(token_bytes=bytes))


# -- the service's rules


@contextmanager
def _messages_after_the_end(_world: World) -> Iterator[None]:
    real = Logs._check_state  # noqa: SLF001 - the check that is switched off

    def check(self: Logs, tx: Any, epoch: Any, entry: api.Entry, state: Any) -> None:  # noqa: ANN401
        if entry.header.kind != api.EntryKind.MESSAGE:
            real(self, tx, epoch, entry, state)

    with mock.patch.object(Logs, "_check_state", check):
        yield


async def _one_page(self: Channel, subscription: Any, *, first: bool = False) -> None:  # noqa: ANN401
    """`Channel._catch_up` that reads once and does not look whether something came meanwhile."""
    frame, next_number, _ = await self._page(subscription)
    if first or next_number > subscription.next:
        self._send_page(subscription, frame, next_number)
    subscription.next, subscription.live = next_number, True


@contextmanager
def _from_the_start(_world: World) -> Iterator[None]:
    """Whoever resumes gets what it has once more."""
    with mock.patch.object(hub_module, "_from_number", return_value=1):
        yield


@contextmanager
def _over_with_the_epoch(_world: World) -> Iterator[None]:
    real = Hub.entry

    def entry(self: Hub, stored: api.StoredEntry, state: api.EpochState) -> None:
        real(self, stored, state)
        if state is not api.EpochState.OPEN:
            self._topics.pop((api.TargetType.LOG, stored.receipt.epoch), None)

    with mock.patch.object(Hub, "entry", entry):
        yield


def _asleep(self: Channel, subscription: Any) -> None:  # noqa: ANN401 - Subscription
    """`Channel.wake` that wakes nobody."""
    del self
    subscription.next = subscription.seen + 1


@contextmanager
def _no_rates(_world: World) -> Iterator[None]:
    real = Limiter.charge

    def charge(self: Limiter, kind: str, *parts: bytes) -> None:
        if kind != "bundles":
            real(self, kind, *parts)

    with mock.patch.object(Limiter, "charge", charge):
        yield


async def _call_nobody(_self: Calling) -> None:
    """`Calling._call_silent` that calls nobody."""


def _apart(world: World) -> None:
    """One who is away beyond retention, and one who forgets whom it added: they know only each other (D-BOX-14)."""
    forgetful, added = world.devices["m1"], world.devices["o0"]
    forgetful.back_up()
    _add(world, "m1", "o0")
    added.sync()
    forgetful.restore(0)
    world.observer.restored["m1"] += 1
    world.clock.advance(3 * RETENTION)
    world.service.sweep()


def _uninvited(world: World) -> None:
    """Somebody is added, and the invitation is lost (D-INB-8)."""
    world.loses_mail = 1
    _add(world, "m0", "o0")


def _add(world: World, by: str, whom: str) -> None:
    handle = world.devices[by].handle
    if handle is not None:
        world.devices[by].run(handle.add(world.devices[whom].user))


def _removing(rng: random.Random) -> Kit:
    return Kit(members=5 + rng.randrange(2), outsiders=0)


_RACING = Scenario("a race of honest members", _removing, RACES, 60)
_REMOVALS = Scenario(
    "removals while others write", _removing, ("remove", "start", "step", "send", "send"), 60
)
_COPIES = Scenario(
    "copies of profiles", _removing, ("send", "send", "back_up", "restore", "sync"), 50
)
_QUIET = Scenario(
    "copies in a quiet epoch",
    _removing,
    ("send", "send", "hours", "hours", "back_up", "restore", "sync"),
    60,
)
_WEEKS = Scenario(
    "two histories for weeks",
    lambda _rng: Kit(
        members=4, outsiders=0, lying_service=True, retention=30 * RETENTION, for_weeks=True
    ),
    ("send", "renew", "sync", "sync", "day"),
    80,
    prepare=lambda world: LyingService(world).parts(random.Random(world.seed)),  # noqa: S311 - repeats
)
_APART = Scenario(
    "two who know only each other",
    lambda _rng: Kit(members=2, outsiders=1, patience=26),
    ("tick",),
    3,
    prepare=_apart,
)
_REPLACED = dataclasses.replace(
    reformings.REFORMING,
    actions=("jam", "attack", "attack", "sync", "sync", "reform", "follow", "follow"),
    length=16,
)
_DECLINED = dataclasses.replace(
    reformings.DECLINING,
    actions=("jam", "attack", "sync", "sync", "reform", "follow", "follow"),
    length=16,
)
_ASKED_BEFORE = dataclasses.replace(
    reformings.DECLINING, actions=("tick",), length=3, prepare=reformings.asks_and_declines
)
_ENROLLED = dataclasses.replace(
    later_devices.LATER,
    actions=("enrol", "look", "look", "sync", "sync", "unlink", "renew"),
    length=24,
)
_UNINVITED = Scenario(
    "an invitation that is lost",
    lambda _rng: Kit(members=2, outsiders=1, patience=18),
    ("tick",),
    3,
    prepare=_uninvited,
)
_INSIDE = ("attack", "attack", "sync", "send", "tick")
_LIES = ("attack", "attack", "send", "renew", "sync", "sync")

SWITCHES: tuple[Switch, ...] = (
    Switch(
        "D-REC-9: the receipts chain by `previous`",
        _patch(Line, "_chain", _no_previous),
        _only(scenarios.WITH_LIAR, "rewrites", actions=_LIES, length=60),
        frozenset({"one_head_means_one_history", "nobody_forks_without_evidence"}),
        30,
    ),
    Switch(
        "D-REC-9: receipts are signed",
        _patch(receipts, "verify_receipt", _anything),
        _only(scenarios.WITH_LIAR, "signs_nothing", actions=_LIES),
        frozenset({"nobody_forks_without_evidence"}),
    ),
    Switch(
        "D-REC-9: what does not have the next number is no evidence",
        _patch(Line, "_chain", _no_number),
        _only(scenarios.WITH_TAMPERING, "skips", "swaps", actions=_LIES),
        frozenset({"nobody_honest_is_blamed"}),
    ),
    Switch(
        "D-REC-10: a bundle over a missing candidate stops",
        _any_candidate_before,
        _only(
            scenarios.WITH_LIAR_AND_INSIDER,
            "hides_candidates",
            "commits_over_junk",
            actions=("attack", "attack", "attack", "sync", "send", "tick"),
            length=60,
        ),
        frozenset({"nobody_mixes_histories"}),
        30,
    ),
    Switch(
        "D-REC-11: heads are compared with the whole chain",
        _patch(Trail, "at", lambda *_: None),
        _only(scenarios.WITH_LIAR, "parts", "relays", actions=("attack", "send", "sync", "sync")),
        frozenset({"nobody_mixes_histories"}),
        30,
    ),
    Switch(
        "D-REC-12: older epochs are read again",
        _patch(Rereading, "_reread", _no_reading),
        _WEEKS,
        frozenset({"forks_are_noticed"}),
    ),
    Switch(
        "D-VAL-3: the manifest is signed by the leaf that it names",
        _no_manifest_signature,
        _only(scenarios.WITH_INSIDER, "names_another", actions=_INSIDE),
        frozenset({"nobody_honest_is_blamed"}),
    ),
    Switch(
        "D-VAL-4: of each leaf only the first candidate counts",
        _every_candidate_counts,
        _only(scenarios.WITH_INSIDER, "invalid_commit", actions=("attack", "attack", "sync")),
        frozenset({"work_per_leaf_is_bounded"}),
    ),
    Switch(
        "D-VAL-6: time is no ground",
        _time_is_a_ground,
        _only(
            scenarios.WITH_INSIDER,
            "adds_what_expires",
            actions=("attack", "sync", "tick", "hours", "renew"),
        ),
        frozenset({"nobody_forks_without_evidence", "nobody_is_locked_out"}),
    ),
    Switch(
        "D-VAL-9: a private failure is not invalidity",
        _no_private_failure,
        _only(scenarios.WITH_INSIDER, "path_for_all_but_one", actions=(*_INSIDE, "renew")),
        frozenset({"nobody_forks_without_evidence", "nobody_is_locked_out"}),
    ),
    Switch(
        "D-COR-1: a wrong access is corrected",
        _patch(Conversation, "_correct", _no_correction),
        _only(scenarios.WITH_INSIDER, "wrong_access", actions=_INSIDE),
        frozenset({"nobody_is_locked_out", "what_was_wanted_is_done", "nothing_unforeseen"}),
    ),
    Switch(
        "D-COR-5: the answer to a correction begins the chain",
        _patch(Line, "corrected", _anything),
        _only(scenarios.WITH_INSIDER, "wrong_access", actions=_INSIDE),
        frozenset({"nobody_honest_is_blamed", "nobody_is_locked_out", "what_was_wanted_is_done"}),
    ),
    Switch(
        "D-BUN-11: refused candidates are followed by a further one",
        _patch(Line, "ended", property(lambda _line: False)),
        _only(scenarios.WITH_INSIDER, "junk_bundle", actions=_INSIDE),
        frozenset({"what_was_wanted_is_done", "nobody_is_locked_out"}),
    ),
    Switch(
        "D-BOX-8: a restored copy sends nothing",
        _copies_go_on,
        _COPIES,
        frozenset({"no_key_and_nonce_twice"}),
        30,
    ),
    Switch(
        "D-BOX-8: who missed entries commits before it sends",
        _gaps_forgotten,
        _QUIET,
        frozenset({"no_key_and_nonce_twice"}),
        40,
    ),
    Switch(
        "D-BOX-14: who was not heard of for weeks is called",
        _patch(Calling, "_call_silent", _call_nobody),
        _APART,
        frozenset({"nobody_is_locked_out"}),
    ),
    Switch(
        "D-INB-8: who never appears is replaced",
        _patch(Tending, "_silent", lambda _self: iter(())),
        _UNINVITED,
        frozenset({"nobody_is_locked_out"}),
    ),
    Switch(
        "D-BOX-10: who asks signs",
        _patch(returning, "check_request", _anything),
        _only(scenarios.WITH_INSIDER, "forges_return", actions=_INSIDE),
        frozenset({"nobody_is_moved_unasked"}),
    ),
    Switch(
        "D-BOX-7: a request is answered once",
        _patch(Vault, "added_with", lambda *_: 0),
        _only(
            scenarios.WITH_INSIDER,
            "replays_return",
            "path_for_all_but_one",
            actions=(*_INSIDE, "renew", "attack"),
        ),
        frozenset({"nobody_is_moved_unasked"}),
        20,
    ),
    Switch(
        "D-ENT-2: every entry has an id of its own",
        _same_id,
        _RACING,
        frozenset({"no_key_and_nonce_twice"}),
    ),
    Switch(
        "D-ENT-5: an ended epoch takes no messages",
        _messages_after_the_end,
        _REMOVALS,
        frozenset({"nobody_reads_what_comes_after"}),
        40,
    ),
    Switch(
        "D-ACC-5: a reader shows the epoch's token",
        _patch(logs_module, "token_fits", _fits),
        _only(scenarios.WITH_REMOVED, "reads_on", actions=("attack", "send", "renew")),
        frozenset({"outsiders_get_nothing"}),
    ),
    Switch(
        "D-ENT-1: an append is signed with the epoch's key",
        _patch(logs_module, "_verify", _anything),
        _only(scenarios.WITH_LINK, "writes_with_old_keys", actions=("attack", "send", "renew")),
        frozenset({"outsiders_get_nothing"}),
    ),
    Switch(
        "D-BUN-3: a candidate names the one before it",
        _patch(Logs, "_check_swap", _anything),
        _only(scenarios.WITH_INSIDER, "invalid_commit", actions=(*RACES, "attack", "attack")),
        frozenset({"nobody_honest_is_blamed", "nobody_forks_without_evidence"}),
        30,
    ),
    Switch(
        "D-SUB-1: what came while a page was read is read as well",
        _patch(Channel, "_catch_up", _one_page),
        scenarios.WITH_SUBSCRIBERS,
        frozenset({"subscribers_miss_nothing", "subscribers_have_everything"}),
    ),
    Switch(
        "D-SUB-2: each entry wakes",
        _patch(Channel, "wake", _asleep),
        scenarios.WITH_SUBSCRIBERS,
        frozenset({"subscribers_have_everything"}),
    ),
    Switch(
        "D-SUB-3: a subscription outlives its epoch",
        _over_with_the_epoch,
        _only(
            scenarios.WITH_INSIDER,
            "junk_bundle",
            actions=("attack", "attack", "send", "sync", "subscribe", "subscribe"),
        ),
        frozenset({"subscribers_have_everything"}),
    ),
    Switch(
        "D-SUB-4: who was cut off resumes after what it has",
        _from_the_start,
        scenarios.WITH_SUBSCRIBERS,
        frozenset({"subscribers_miss_nothing"}),
    ),
    Switch(
        "D-SUC-2: a successor is announced by who has the right",
        successions.anybody_succeeds,
        successions.MOVING,
        frozenset({"a_moved_group_arrives"}),
    ),
    Switch(
        "D-SUC-6: a jammed group is replaced by who has the right",
        reformings.anybody_replaces,
        _REPLACED,
        frozenset({"a_jammed_group_goes_on_together"}),
        20,
    ),
    Switch(
        "D-SUC-7: of several groups in its place the one with the smallest log id counts",
        reformings.none_counts,
        _REPLACED,
        frozenset({"a_jammed_group_goes_on_together"}),
        20,
    ),
    Switch(
        "D-BOX-13: who does not come into a re-formed group is removed from it",
        _patch(Returning, "_take_decline", lambda *_: False),
        _DECLINED,
        frozenset({"who_declines_is_let_go"}),
    ),
    Switch(
        "D-BOX-13: who does not come is not added anew because it asked to return before",
        reformings.declining_is_forgotten,
        _ASKED_BEFORE,
        frozenset({"who_declines_is_let_go"}),
    ),
    Switch(
        "D-DIR-10: who was in the group is not brought back",
        later_devices.all_are_missing,
        _ENROLLED,
        frozenset({"later_devices_come_once"}),
    ),
    Switch(
        "D-BUN-8: bundles have a rate",
        _no_rates,
        scenarios.WITH_FLOOD,
        frozenset({"the_group_moves_on"}),
    ),
)
