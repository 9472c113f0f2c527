"""Each check of what the service and others say of a log, by itself (docs/delivery-protocol.md, sections 1 to 7)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from coterie.client import Client
from coterie.client.content import Content
from coterie.client.line import Line, _bundle_of
from coterie.client.outcomes import Announced, Data, Evidence, Stuck, Void
from coterie.client.receipts import verify_opening
from coterie.errors import DecodeError, StateError, VerificationError
from coterie.mls.framing import MLSMessage, PublicMessage
from coterie.mls.group import Group
from coterie.transport import api
from tests.client_world import World, world

Receipts = dict[str, Any]
OTHER = b"another".ljust(32)
UNSIGNED = {"signature": bytes(64)}


@dataclass(frozen=True)
class Scene:
    """Alice and Bob in a group; Bob judges what is made here in the service's name or in Alice's."""

    world: World
    alice: Line
    bob: Line

    def receipt(self, **changes: Any) -> api.Receipt:
        """The next receipt of the epoch, signed by the service with the changes; `signature` is put in afterwards."""
        signature = changes.pop("signature", None)
        head = self.bob.state.head
        fields = {"epoch": head.epoch, "number": head.number + 1, "previous": head.hash()}
        made = api.Receipt(**{**fields, "entry_hash": OTHER, **changes}, signature=bytes(64))
        key = self.world.delivery.logs._receipt_key
        signed = key.sign(made.to_be_signed()) if signature is None else signature
        return made.replace(signature=signed)

    def next(self, append: api.Append, **changes: Any) -> api.StoredEntry:
        """An entry as the service gives it."""
        receipt = self.receipt(**{"entry_hash": append.entry.hash(), **changes})
        return api.StoredEntry(receipt, append.entry, len(append.entry.encode()))

    def text(self, **sealed: Any) -> api.Append:
        """What Alice sends, sealed with changes."""
        message = self.alice.group.encrypt(Content.text("hello", 1).encode())
        append = self.alice.message(api.ContentKind.APPLICATION, message)
        return self.resealed(append, **sealed) if sealed else append

    def resealed(self, append: api.Append, **changes: Any) -> api.Append:
        """An entry whose content is another one."""
        content = self.alice.keys.open(append.entry).replace(**{"padding": b"", **changes})
        return self.alice.keys.append(append.entry.header, content)

    def bundle(self) -> api.Append:
        """A Commit of Alice's."""
        self.alice.group.drop_pending()
        return self.alice.bundle(self.alice.group.commit([], now=self.world.now))

    def take(self, stored: api.StoredEntry) -> object:
        """What Bob makes of it."""
        return self.bob.take(stored, now=self.world.now)

    def refused(self, rule: str, call: Callable[..., object], *arguments: Any) -> None:
        """Asserts that a call is refused by the rule and leaves everything as it was."""
        before, epoch = self.bob.state, self.bob.group.epoch
        with pytest.raises((VerificationError, Evidence)) as caught:
            call(*arguments)
        assert caught.value.rule == rule
        assert (self.bob.state, self.bob.group.epoch) == (before, epoch)


def line_of(client: Client) -> Line:
    """The log of a client's only group."""
    return client._conversations[client.groups()[0].id].line


def play(tmp_path: Path, act: Callable[[Scene], None]) -> None:
    """Lets two become members, and acts."""

    async def run() -> None:
        async with world(tmp_path) as w:
            alice, bob = [await w.device(name) for name in ("alice", "bob")]
            await (await alice.create_group("Friends")).add("bob")
            await w.settle()
            act(Scene(w, line_of(alice), line_of(bob)))

    asyncio.run(run())


def test_receipts_follow_one_another_and_are_the_services(tmp_path: Path) -> None:
    def act(s: Scene) -> None:
        append, number = s.text(), s.bob.next_number
        wrong: list[tuple[str, Receipts]] = [
            ("D-REC-9", UNSIGNED),
            ("D-REC-9", {"epoch": OTHER}),
            ("D-REC-9", {"number": number + 1}),
            ("D-REC-9", {"number": number - 1}),
            ("D-REC-10", {"previous": OTHER}),
        ]
        for rule, changes in wrong:
            s.refused(rule, s.take, s.next(append, **changes))
        assert isinstance(s.take(s.next(append)), Data)

    play(tmp_path, act)


def test_an_entry_is_the_one_that_its_receipt_names(tmp_path: Path) -> None:
    def act(s: Scene) -> None:
        stored, other = s.next(s.text()), s.text()
        s.refused("D-REC-9", s.take, stored.replace(entry=other.entry))
        s.refused("D-REC-9", s.take, stored.replace(entry=None))
        assert isinstance(s.take(stored.replace(entry=None, size=0)), Void)
        assert s.bob.state.head == stored.receipt

    play(tmp_path, act)


def test_a_head_that_the_service_names_is_the_one_that_was_read(tmp_path: Path) -> None:
    def act(s: Scene) -> None:
        head = s.bob.state.head
        s.refused("D-REC-9", s.bob.see_head, head.replace(**UNSIGNED))
        s.refused("D-REC-10", s.bob.see_head, s.receipt(number=head.number))
        before = s.bob.state
        # Those of other epochs, and of other places in this one, say nothing about what was read.
        s.bob.see_head(s.receipt(epoch=OTHER, number=head.number))
        s.bob.see_head(s.receipt(number=head.number + 1))
        assert s.bob.state == before
        s.bob.state = s.bob.state.replace(head=head.replace(**UNSIGNED))
        s.bob.see_head(head)
        assert s.bob.state.head == head

    play(tmp_path, act)


def test_what_was_dropped_is_what_was_not_read(tmp_path: Path) -> None:
    def act(s: Scene) -> None:
        number = s.bob.next_number
        wrong: list[tuple[str, Receipts]] = [
            ("D-REC-9", UNSIGNED),
            ("D-REC-8", {"epoch": OTHER}),
            ("D-REC-8", {"number": number - 1}),
        ]
        for rule, changes in wrong:
            s.refused(rule, s.bob.skip_gone, s.receipt(**changes))
        s.bob.skip_gone(s.receipt(number=number))
        assert (s.bob.next_number, s.bob.state.missed) == (number + 1, 1)

    play(tmp_path, act)


def test_a_corrected_epoch_is_opened_by_its_opener(tmp_path: Path) -> None:
    def act(s: Scene) -> None:
        parent, epoch = s.bob.state.parent, s.bob.state.epoch
        opener = s.receipt(epoch=parent, number=7)
        first = {"epoch": epoch, "number": 0, "previous": opener.hash()}
        opened = s.receipt(**first)

        def answer(rule: str, by: api.Receipt, what: api.Receipt | None) -> None:
            s.refused(rule, s.bob.corrected, api.Appended(by, what))

        answer("D-COR-3", opener, None)
        answer("D-COR-3", opener, s.receipt(**{**first, "epoch": OTHER}))
        answer("D-COR-3", opener, s.receipt(**{**first, "number": 1}))
        answer("D-REC-9", opener, opened.replace(**UNSIGNED))
        unsigned = opener.replace(**UNSIGNED)
        answer("D-REC-9", unsigned, s.receipt(**{**first, "previous": unsigned.hash()}))
        elsewhere = s.receipt(epoch=OTHER, number=7)
        answer("D-REC-3", elsewhere, s.receipt(**{**first, "previous": elsewhere.hash()}))
        answer("D-REC-3", opener, s.receipt(**{**first, "previous": OTHER}))
        answer("D-REC-3", opener, s.receipt(**{**first, "entry_hash": b"e" * 32}))
        s.bob.corrected(api.Appended(opener, opened))
        assert s.bob.state.head == s.bob.state.opening == opened

    play(tmp_path, act)


def test_a_bundle_is_accepted_over_the_last_candidate_only(tmp_path: Path) -> None:
    def act(s: Scene) -> None:
        s.alice.state = s.alice.state.replace(last_candidate=OTHER)
        bundle = s.next(s.bundle())
        s.refused("D-REC-10", s.take, bundle)

    play(tmp_path, act)


def test_the_head_that_a_sender_saw_is_one_from_before(tmp_path: Path) -> None:
    def act(s: Scene) -> None:
        head = s.bob.state.head
        for seen in (
            {"epoch": OTHER, "number": 0},
            {},
            {"number": 5},
            {"number": head.number, **UNSIGNED},
        ):
            outcome = s.take(s.next(s.text(head=s.receipt(**seen))))
            assert isinstance(outcome, Void)
        other = s.receipt(number=head.number)
        s.refused("D-REC-10", s.take, s.next(s.text(head=other)))
        assert isinstance(s.take(s.next(s.text(head=head))), Data)

    play(tmp_path, act)


def test_a_head_that_this_member_never_saw_is_signed(tmp_path: Path) -> None:
    def act(s: Scene) -> None:
        # Retention dropped two entries before Bob read them: he has no receipt of the first.
        s.bob.skip_gone(s.receipt(number=s.bob.next_number + 1))
        unseen = s.receipt(number=s.bob.state.head.number - 1)
        assert isinstance(s.take(s.next(s.text(head=unseen.replace(**UNSIGNED)))), Void)
        assert isinstance(s.take(s.next(s.text(head=unseen))), Data)

    play(tmp_path, act)


def test_a_bundle_has_a_commit_in_it(tmp_path: Path) -> None:
    def act(s: Scene) -> None:
        bundle = s.bundle()
        outcome = s.take(s.next(s.resealed(bundle, kind=api.ContentKind.APPLICATION)))
        assert isinstance(outcome, Void)
        assert s.bob.state.used_leaves == ()

    play(tmp_path, act)


def _with_content(s: Scene, commit: MLSMessage, *, signed: bool = True) -> api.Append:
    """Alice's bundle with another message in it, and a manifest of hers that fits."""
    bundle = s.bundle()
    content = api.CommitContent.decode(s.alice.keys.open(bundle.entry).content)
    data = commit.encode()
    tbs = content.manifest.tbs.replace(commit_hash=api.sha256(data))
    signature = s.alice.group.sign(api.MANIFEST_LABEL.decode(), tbs.encode())
    manifest = api.Manifest(tbs, signature if signed else bytes(len(signature)))
    return s.resealed(bundle, content=api.CommitContent(manifest, data).encode())


def test_a_manifest_is_signed_by_its_leaf(tmp_path: Path) -> None:
    def act(s: Scene) -> None:
        commit = s.alice.group.commit([], now=s.world.now).message
        assert isinstance(s.take(s.next(_with_content(s, commit, signed=False))), Void)
        assert s.bob.state.used_leaves == ()

    play(tmp_path, act)


def test_a_bundle_that_is_no_commit_of_its_signer_is_void(tmp_path: Path) -> None:
    def act(s: Scene) -> None:
        private = s.alice.group.encrypt(b"text")
        proposal = s.alice.group.propose_remove(s.bob.group.own_leaf)
        assert isinstance(proposal.body, PublicMessage)
        by_bob = s.bob.group.commit([], now=s.world.now).message
        s.bob.group.drop_pending()
        for message, why in (
            (private, "no member's Commit"),
            (by_bob, "another leaf"),
            (proposal, "no Commit"),
        ):
            s.bob.state = s.bob.state.replace(used_leaves=())
            s.alice.state = s.alice.state.replace(last_candidate=s.bob.state.last_candidate)
            outcome = s.take(s.next(_with_content(s, message)))
            assert isinstance(outcome, Void)
            assert why in outcome.why

    play(tmp_path, act)


def test_a_commit_that_removes_its_maker_is_no_bundle(tmp_path: Path) -> None:
    def act(s: Scene) -> None:
        with pytest.raises(StateError, match="cannot be its own"):
            s.alice.bundle(SimpleNamespace(next=None))  # type: ignore[arg-type]

    play(tmp_path, act)


@pytest.mark.parametrize("remembered", [True, False])
def test_an_own_commit_that_this_client_cannot_adopt_is_a_copys(
    tmp_path: Path, remembered: bool
) -> None:
    def act(s: Scene) -> None:
        group = s.bob.group
        bundle = s.bob.bundle(group.commit([], now=s.world.now))
        group.drop_pending()
        if not remembered:
            group._keys._own.clear()
        assert isinstance(s.take(s.next(bundle)), Stuck)

    play(tmp_path, act)


def test_a_group_that_was_reinitialised_hears_of_its_successor_only(tmp_path: Path) -> None:
    def act(s: Scene) -> None:
        def judge(append: api.Append) -> object:
            return s.take(s.next(append))

        right = s.alice.successor(b"what follows")
        assert isinstance(judge(right), Void), "nobody needs it before"
        with mock.patch.object(Group, "reinitialized", property(lambda _: object())):
            assert isinstance(judge(s.text()), Void)
            later = s.receipt(number=s.bob.next_number + 5)
            assert isinstance(judge(s.resealed(right, head=later)), Void)
            kind = api.ContentKind.APPLICATION
            assert isinstance(judge(s.resealed(right, kind=kind)), Void)
            outcome = judge(s.alice.successor(b"what follows"))
        assert isinstance(outcome, Announced)
        assert outcome.content == b"what follows"

    play(tmp_path, act)


def test_an_epoch_has_ended_with_its_first_candidate_and_is_open_once_its_opener_is_known(
    tmp_path: Path,
) -> None:
    def act(s: Scene) -> None:
        assert (s.bob.ended, s.bob.uncorrected) == (False, False)
        void = s.resealed(s.bundle(), kind=api.ContentKind.APPLICATION)
        assert isinstance(s.take(s.next(void)), Void)
        assert s.bob.ended
        unknown = s.bob.state.opening.replace(entry_hash=api.ZERO32)
        s.bob.state = s.bob.state.replace(opening=unknown)
        assert s.bob.uncorrected

    play(tmp_path, act)


def test_an_entry_without_the_part_of_a_bundle_is_none() -> None:
    header = api.EntryHeader(
        api.DeliveryVersion.COTERIE1, api.EntryKind.BUNDLE, bytes(32), bytes(32), None, None
    )
    with pytest.raises(DecodeError) as caught:
        _bundle_of(api.Entry(header, b""))
    assert caught.value.rule == "D-ENT-5"


def test_the_opening_receipt_is_the_services_and_of_the_groups_epoch(tmp_path: Path) -> None:
    def act(s: Scene) -> None:
        state, binding, keys = s.bob.state, s.bob.binding, s.bob.keys
        opening = {"epoch": state.epoch, "number": 0}
        for rule, changes in (
            ("D-INB-7", {"epoch": OTHER}),
            ("D-INB-7", {"number": 1}),
            ("D-REC-9", UNSIGNED),
        ):
            wrong = s.receipt(**{**opening, **changes})
            s.refused(rule, verify_opening, binding, keys, state.parent, wrong)
        assert verify_opening(binding, keys, state.parent, s.receipt(**opening)) == state.epoch

    play(tmp_path, act)
