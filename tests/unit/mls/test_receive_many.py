"""A run of messages, verified ahead on all cores, gives what one by one gives: results, errors, stored bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.shapes import build
from coterie.client.cores import on_all_cores
from coterie.errors import CoterieError, DecryptionError, VerificationError
from coterie.mls.crypto import Suite
from coterie.mls.framing import FramedContentAuthData, MLSMessage, PrivateMessage
from coterie.mls.group import Group, Limits, Received, StagedCommit
from coterie.mls.group.receiving import MAX_AHEAD
from coterie.mls.group.sending import send
from coterie.mls.rules import Rule
from coterie.mls.secret_tree import RatchetKind, RatchetLimits, SecretTree
from coterie.mls.tree_math import LeafIndex
from coterie.mls.types import ContentType

Run = Callable[..., Iterable[Any]]
SHAPE = build(8, "warm")
TIGHT = replace(SHAPE.config.limits, ratchets=RatchetLimits(max_forward=6, max_skipped=30))
NOW = 1_000


def through_threads(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterable[Any]:
    """As on a machine with two cores."""
    return on_all_cores(function, items, threads=2)


def member(leaf: int, run: Run = map, limits: Limits = SHAPE.config.limits) -> Group:
    """A member of the group; the same each time."""
    return SHAPE.member(leaf, replace(SHAPE.config, limits=limits, run=run))


def body_of(message: MLSMessage) -> PrivateMessage:
    body = message.body
    assert isinstance(body, PrivateMessage)
    return body


def badly_signed(sender: Group) -> MLSMessage:
    """A message that opens and whose signature does not hold; it takes a generation of its sender's ratchet."""
    content = sender._epoch.content(ContentType.APPLICATION, b"forged", b"")
    return send(
        sender._epoch, sender._keys, sender._config, content, FramedContentAuthData(bytes(64))
    )


def otherwise(message: MLSMessage, kind: str) -> MLSMessage:
    """The message with something wrong."""
    body = body_of(message)
    last = bytes((body.ciphertext[-1] ^ 1,))
    changed = {
        "ciphertext": lambda: body.replace(ciphertext=body.ciphertext[:-1] + last),
        "sender data": lambda: body.replace(encrypted_sender_data=bytes(28)),
        "epoch": lambda: body.replace(epoch=body.epoch + 1),
        "group": lambda: body.replace(group_id=b"another"),
        "frame": lambda: body.replace(authenticated_data=b"other"),
    }
    return MLSMessage.of(changed[kind]())


def said(received: Received | CoterieError) -> object:
    """What can be compared of a result."""
    if isinstance(received, CoterieError):
        return type(received), received.rule, str(received)
    return received


def one_by_one(group: Group, messages: Iterable[MLSMessage | bytes]) -> list[object]:
    results: list[object] = []
    for message in messages:
        try:
            results.append(said(group.receive(message, now=NOW)))
        except CoterieError as error:
            results.append(said(error))
    return results


def assert_same(
    messages: Sequence[MLSMessage | bytes], limits: Limits = SHAPE.config.limits
) -> list[object]:
    """Receives the messages in both ways."""
    single, many = member(0, limits=limits), member(0, through_threads, limits)
    single.save()
    many.save()
    expected = one_by_one(single, messages)
    assert [said(result) for result in many.receive_many(messages, now=NOW)] == expected
    assert many.save() == single.save()
    assert not many._opener._ahead
    assert many._keys._present.secret_tree._ahead is None
    return expected


WRONG = ("ciphertext", "sender data", "epoch", "group", "frame")


@st.composite
def runs(draw: st.DrawFn) -> list[MLSMessage | bytes]:
    """Messages of several senders: some lost, repeated, out of order, forged, own, junk, as objects and as bytes."""
    senders = [member(leaf) for leaf in range(4)]
    sent: list[MLSMessage] = []
    for leaf, kind in draw(
        st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=1, max_size=24)
    ):
        if kind == 0:
            sent.append(badly_signed(senders[leaf]))
            continue
        message = senders[leaf].encrypt(bytes((leaf, kind)), authenticated_data=b"seen")
        if kind != 1:  # Otherwise it is lost.
            sent.append(message)
        if kind <= 6 and kind > 1:
            sent.append(otherwise(message, WRONG[kind - 2]))
    order = draw(st.lists(st.integers(0, max(len(sent) - 1, 0)), max_size=30)) if sent else []
    chosen: list[MLSMessage | bytes] = [*(sent[index] for index in order), *sent]
    if draw(st.booleans()):
        chosen.insert(len(chosen) // 2, b"no message")
    if draw(st.booleans()):
        return [each if isinstance(each, bytes) else each.encode() for each in chosen]
    return chosen


@settings(max_examples=150)
@given(runs(), st.sampled_from([SHAPE.config.limits, TIGHT]))
def test_a_run_gives_what_one_by_one_gives(
    messages: list[MLSMessage | bytes], limits: Limits
) -> None:
    assert_same(messages, limits)


def test_what_looks_ahead_is_used() -> None:
    """Otherwise all of this would show nothing."""
    senders = [member(1), member(2)]
    messages = [senders[n % 2].encrypt(b"%d" % n) for n in range(100)]
    group = member(0, through_threads)
    with mock.patch.object(Suite, "verify_with_label", side_effect=AssertionError):
        results = group.receive_many(messages, now=NOW)
    assert [getattr(result, "data", None) for result in results] == [b"%d" % n for n in range(100)]


def test_on_one_core_nothing_is_done_ahead() -> None:
    group, message = member(0), member(1).encrypt(b"hello")
    with group.looking_ahead([message]):
        assert not group._opener._ahead


def test_looking_ahead_changes_nothing() -> None:
    group, sender = member(0, through_threads), member(1)
    messages = [sender.encrypt(b"hello") for _ in range(5)]
    group.save()
    with group.looking_ahead(messages):
        assert len(group._opener._ahead) == 5
        assert not group.save().puts
    assert not group._opener._ahead
    assert not group.save().puts


def test_a_long_run_is_taken_in_parts() -> None:
    sender = member(1)
    messages: list[MLSMessage | bytes] = [sender.encrypt(b"x") for _ in range(MAX_AHEAD * 2 + 10)]
    assert_same(messages)
    group = member(0, through_threads)
    with group.looking_ahead(messages):
        assert len(group._opener._ahead) <= MAX_AHEAD
        steps = group._keys._present.secret_tree._ahead
        assert steps is not None
        assert len(steps.steps) == MAX_AHEAD


def test_a_forged_message_consumes_nothing() -> None:
    sender = member(1)
    forged = badly_signed(sender)
    expected = assert_same([forged, sender.encrypt(b"after it"), forged])
    assert expected[0] == expected[2]
    assert expected[0] is not None
    first = expected[0]
    assert isinstance(first, tuple)
    assert first[:2] == (VerificationError, Rule.CONTENT_SIGNATURE)


def test_a_message_that_comes_twice_is_received_once() -> None:
    message = member(1).encrypt(b"hello")
    second = assert_same([message, message])[1]
    assert isinstance(second, tuple)
    assert second[:2] == (DecryptionError, Rule.GENERATION_USED)


def test_a_commit_ends_the_run_and_what_came_before_it_is_opened_late() -> None:
    sender = member(1)
    before = [sender.encrypt(b"one"), sender.encrypt(b"two")]
    pending = sender.commit([], now=NOW)
    single, many = member(0), member(0, through_threads)
    for group in (single, many):
        group.save()
    first = [said(result) for result in many.receive_many([before[0], pending.message, before[1]])]
    assert len(first) == 2
    staged = first[1]
    assert isinstance(staged, StagedCommit)
    many.adopt(staged, now=NOW)
    rest = [said(result) for result in many.receive_many([before[1], before[0]], now=NOW)]
    expected = one_by_one(single, [before[0], pending.message])
    assert isinstance(expected[1], StagedCommit)
    single.adopt(expected[1], now=NOW)
    assert rest == one_by_one(single, [before[1], before[0]])
    assert many.save() == single.save()


def test_an_epoch_that_ends_meanwhile_is_a_past_one() -> None:
    sender, group = member(1), member(0, through_threads)
    message = sender.encrypt(b"late")
    pending = sender.commit([], now=NOW)
    with group.looking_ahead([message]):
        staged = group.receive(pending.message)
        assert isinstance(staged, StagedCommit)
        group.adopt(staged, now=NOW)
        received = group.receive(message, now=NOW)
    assert getattr(received, "data", None) == b"late"
    assert group._keys._past[pending.commit.epoch].secret_tree._ahead is None


@pytest.mark.parametrize(("forward", "skipped"), [(6, 30), (30, 6)])
def test_keys_ahead_are_bounded(forward: int, skipped: int) -> None:
    ratchets = RatchetLimits(max_forward=forward, max_skipped=skipped)
    tree = SecretTree.of_epoch(SHAPE.suite, 8, SHAPE.encryption_secret, ratchets)
    for generation in (7, 60):
        assert tree.look_ahead(LeafIndex(1), RatchetKind.APPLICATION, generation) is None
    for generation in (4, 5):
        key = tree.look_ahead(LeafIndex(1), RatchetKind.APPLICATION, generation)
        found = tree.find(LeafIndex(1), RatchetKind.APPLICATION, generation)
        assert key == (found.key, found.nonce)
