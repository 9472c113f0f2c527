"""Entries as members make and judge them (docs/delivery-protocol.md, sections 1 and 2)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from coterie.client import Client
from coterie.client.content import Content, read_binding
from coterie.client.epoch_keys import EpochKeys, padded
from coterie.client.events import Problem
from coterie.client.line import Line, _has_private_inputs
from coterie.client.outcomes import Data, Stuck, Void
from coterie.errors import DecryptionError, RuleViolation
from coterie.mls.group import CommitOptions
from coterie.mls.proposal import Add, GroupContextExtensions, Proposal
from coterie.transport import api
from tests.client_world import World, texts, world


def _run(tmp_path: Path, story: Callable[[World, Client, Client], Awaitable[None]]) -> None:
    async def go() -> None:
        async with world(tmp_path) as w:
            alice, bob = [await w.device(name) for name in ("alice", "bob")]
            await (await alice.create_group("Friends")).add("bob")
            await w.settle()
            await story(w, alice, bob)

    asyncio.run(go())


def _line(client: Client) -> Line:
    return client._conversations[client.groups()[0].id].line


def _text(line: Line, kind: api.ContentKind = api.ContentKind.APPLICATION) -> api.Append:
    return line.message(kind, line.group.encrypt(Content.text("hello", 1).encode()))


def _stored(line: Line, append: api.Append, w: World) -> api.StoredEntry:
    """The entry as the next one of the epoch, with a receipt of the service."""
    head = line.state.head
    receipt = w.delivery.logs._receipt(
        append.entry.header.epoch, head.number + 1, head.hash(), append.entry.hash()
    )
    return api.StoredEntry(receipt, append.entry, len(append.entry.encode()))


def test_a_log_id_is_random_and_not_the_groups(tmp_path: Path) -> None:
    async def story(_w: World, alice: Client, _bob: Client) -> None:
        other = await alice.create_group("Others")
        first, second = (
            read_binding(c.group.context.extensions).log_id for c in alice._conversations.values()
        )
        assert len({first, second, _line(alice).group.group_id, bytes.fromhex(other.id)}) == 4
        assert len(first) == 32

    _run(tmp_path, story)


def test_an_entrys_key_is_what_hkdf_expands_of_the_envelope_secret(tmp_path: Path) -> None:
    async def story(_w: World, alice: Client, bob: Client) -> None:
        entry, keys = _text(_line(alice)).entry, _line(bob).keys
        info = b"coterie entry v1" + entry.header.id
        key = HKDFExpand(SHA256(), 32, info).derive(keys.envelope_secret)
        plaintext = AESGCM(key).decrypt(bytes(12), entry.sealed, entry.header.encode())
        assert api.SealedContent.decode(plaintext) == keys.open(entry)

    _run(tmp_path, story)


def test_members_derive_one_access_and_each_epoch_and_log_another(tmp_path: Path) -> None:
    async def story(w: World, alice: Client, bob: Client) -> None:
        keys = _line(alice).keys
        assert keys.access == _line(bob).keys.access
        assert keys.name(_line(alice).state.parent) == _line(bob).state.epoch
        assert keys.access.read_hash == api.sha256(keys.read_token)
        assert keys.access.box_hash == api.sha256(keys.box_token)
        secrets = (
            keys.append_seed,
            keys.read_token,
            keys.envelope_secret,
            keys.box_seed,
            keys.box_token,
        )
        assert len({bytes(secret) for secret in secrets}) == len(secrets)
        other = EpochKeys.derive(_line(alice).group.export_secret, b"another log".ljust(32))
        assert other.access != keys.access
        await alice.groups()[0].renew_keys()
        await w.settle()
        assert _line(bob).keys.access == _line(alice).keys.access != keys.access

    _run(tmp_path, story)


def test_a_commit_that_changes_the_log_is_refused(tmp_path: Path) -> None:
    async def story(w: World, alice: Client, _bob: Client) -> None:
        line = _line(alice)
        changed = []
        for extension in line.group.context.extensions:
            if extension.extension_type == api.BINDING_EXTENSION:
                binding = line.binding.replace(retention=line.binding.retention * 2)
                changed.append(extension.replace(extension_data=binding.encode()))
            else:
                changed.append(extension)
        proposal = Proposal.of(GroupContextExtensions(tuple(changed)))
        with pytest.raises(RuleViolation) as refused:
            line.group.commit([proposal], now=w.now, options=CommitOptions())
        assert refused.value.rule == "profile/binding"

    _run(tmp_path, story)


@pytest.mark.parametrize("size", [1, 100, 500, 1000, 5000, 9000, 70_000])
def test_contents_are_padded_to_few_sizes_with_zeros(size: int) -> None:
    receipt = api.Receipt(bytes(32), 0, bytes(32), bytes(32), bytes(64))
    content = api.SealedContent(api.ContentKind.APPLICATION, receipt, bytes(size))
    filled = padded(content)
    length = len(filled.encode())
    assert length in {256, 512, 1024, 2048, 4096} or length % 4096 == 0
    assert not any(filled.padding)
    assert filled.content == content.content


def test_an_entry_opens_under_its_own_header_only(tmp_path: Path) -> None:
    async def story(_w: World, alice: Client, _bob: Client) -> None:
        line = _line(alice)
        entry = _text(line).entry
        assert line.keys.open(entry).kind == api.ContentKind.APPLICATION
        other = entry.header.replace(id=bytes(32))
        with pytest.raises(DecryptionError):
            line.keys.open(entry.replace(header=other))
        with pytest.raises(DecryptionError):
            line.keys.open(entry.replace(header=entry.header.replace(epoch=bytes(32))))

    _run(tmp_path, story)


def test_a_message_of_another_kind_than_it_says_is_void(tmp_path: Path) -> None:
    async def story(w: World, alice: Client, bob: Client) -> None:
        line = _line(bob)
        wrong = _stored(line, _text(_line(alice), api.ContentKind.PROPOSAL), w)
        assert isinstance(line.take(wrong, now=w.now), Void)
        right = _stored(line, _text(_line(alice)), w)
        assert isinstance(line.take(right, now=w.now), Data)

    _run(tmp_path, story)


def test_a_head_that_is_not_from_before_the_entry_is_void(tmp_path: Path) -> None:
    async def story(w: World, alice: Client, bob: Client) -> None:
        line = _line(bob)
        good = _text(_line(alice))
        later = w.delivery.logs._receipt(line.state.epoch, 7, bytes(32), bytes(32))
        content = _line(alice).keys.open(good.entry).replace(head=later, padding=b"")
        forged = _line(alice).keys.append(good.entry.header, content)
        assert isinstance(line.take(_stored(line, forged, w), now=w.now), Void)

    _run(tmp_path, story)


def test_an_unsigned_opening_receipt_is_no_head_even_for_who_has_it_unsigned(
    tmp_path: Path,
) -> None:
    async def story(w: World, alice: Client, bob: Client) -> None:
        line, maker = _line(bob), _line(alice)
        unsigned = line.state.opening.replace(signature=bytes(64))
        maker.state = maker.state.replace(head=unsigned)
        append = _text(maker)
        signed = _stored(line, append, w)
        for opening in (line.state.opening, unsigned):
            # Who reads on in an epoch has the signature, who has just adopted it has not: both judge alike.
            line.state = line.state.replace(opening=opening, head=line.state.opening)
            fresh = Line(line.group, line.state.replace(head=opening))
            assert isinstance(fresh.take(signed, now=w.now), Void)

    _run(tmp_path, story)


def test_a_sender_names_the_newest_receipt_that_it_has(tmp_path: Path) -> None:
    async def story(w: World, alice: Client, _bob: Client) -> None:
        line = _line(alice)
        assert line.keys.open(_text(line).entry).head == line.state.opening
        await alice.groups()[0].send("one")
        await w.settle()
        line = _line(alice)
        assert line.state.head.number == 1
        assert line.keys.open(_text(line).entry).head == line.state.head

    _run(tmp_path, story)


def test_void_messages_are_counted_and_blame_nobody(tmp_path: Path) -> None:
    async def story(_w: World, alice: Client, bob: Client) -> None:
        line = _line(alice)
        good = _text(line)
        junk = good.entry.replace(sealed=bytes(256))
        signature = line.keys.sign(api.append_to_be_signed(junk.hash()))
        await alice.tools.delivery.append(good.replace(entry=junk, signature=signature))
        await bob.sync()
        assert _line(bob).state.head.number == 1
        assert not [event for event in bob.pending_events() if isinstance(event, Problem)]

    _run(tmp_path, story)


def test_a_message_that_arrives_twice_is_shown_once(tmp_path: Path) -> None:
    async def story(w: World, alice: Client, bob: Client) -> None:
        line = _line(alice)
        content = Content.text("once", w.now)
        for _ in range(2):
            message = line.group.encrypt(content.encode())
            await alice.tools.delivery.append(line.message(api.ContentKind.APPLICATION, message))
        await bob.sync()
        assert texts(bob) == ["once"]
        assert _line(bob).state.head.number == 2

    _run(tmp_path, story)


def test_a_failed_tag_is_ones_own_failure_only_after_a_path_or_a_psk(tmp_path: Path) -> None:
    async def story(w: World, alice: Client, _bob: Client) -> None:
        line = _line(alice)
        with_path = line.group.commit([], now=w.now, options=CommitOptions())
        assert _has_private_inputs(with_path.message.encode())
        line.group.drop_pending()
        carol = await w.device("carol")
        package = carol.identity.new_package(w.now).bundle.key_package
        options = CommitOptions(path=False)
        bare = line.group.commit([Proposal.of(Add(package))], now=w.now, options=options)
        assert not _has_private_inputs(bare.message.encode())
        line.group.drop_pending()
        group, none = line.group, CommitOptions(path=False)
        verified = group.check_key_package(package, now=w.now)
        group.propose_add(verified, now=w.now)
        referring = group.commit([], now=w.now, options=none).message.encode()
        assert not _has_private_inputs(referring, group.pending_proposals)
        group.drop_pending()
        group.propose_psk(group.application_psk(group.epoch))
        referring = group.commit([], now=w.now, options=none).message.encode()
        assert _has_private_inputs(referring, group.pending_proposals)

    _run(tmp_path, story)


def test_of_two_valid_candidates_the_first_is_adopted(tmp_path: Path) -> None:
    async def story(w: World, alice: Client, bob: Client) -> None:
        carol = await w.device("carol")
        await alice.groups()[0].add("carol")
        await w.settle()
        line, options = _line(bob), CommitOptions()
        late = line.group.commit([], now=w.now, options=options)
        first = _line(alice)
        bundle = first.bundle(first.group.commit([], now=w.now, options=options))
        appended = await alice.tools.delivery.append(bundle)
        line.state = line.state.replace(last_candidate=appended.receipt.hash())
        await bob.tools.delivery.append(line.bundle(late))
        line.group.drop_pending()
        bob._conversations[bob.groups()[0].id]._line = None
        await carol.sync()
        await bob.sync()
        assert appended.opened is not None
        assert _line(carol).state.epoch == _line(bob).state.epoch == appended.opened.epoch

    _run(tmp_path, story)


@pytest.mark.parametrize("missed", [0, 1])
def test_an_unknown_reference_is_a_ground_only_for_who_holds_every_entry(
    tmp_path: Path, missed: int
) -> None:
    async def story(w: World, alice: Client, bob: Client) -> None:
        carol = await w.device("carol")
        await alice.groups()[0].add("carol")
        await w.settle()
        maker, line = _line(alice), _line(bob)
        leaf = _line(carol).group.own_leaf
        maker.group.propose_remove(leaf)  # Which is posted nowhere.
        bundle = maker.bundle(maker.group.commit([], now=w.now, options=CommitOptions()))
        line.state = line.state.replace(missed=missed)
        outcome = line.take(_stored(line, bundle, w), now=w.now)
        if missed:
            assert isinstance(outcome, Stuck)
        else:
            assert isinstance(outcome, Void)
            assert outcome.leaf == maker.group.own_leaf

    _run(tmp_path, story)
