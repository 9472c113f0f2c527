"""`receive` returns or raises one of ours, whatever arrives, and leaves nothing behind but a consumed generation.

The mutator changes bytes of whole messages, and bytes of what is inside before it is signed and encrypted again.
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.errors import CoterieError, StorageError
from coterie.mls.framing import FramedContent, MLSMessage
from coterie.mls.group import Group
from coterie.mls.group_context import PreSharedKeyID
from coterie.mls.proposal import Add, Commit, PreSharedKey, Proposal, Remove, Update
from coterie.mls.tree_math import LeafIndex
from tests.fuzz.mutation import mutated
from tests.rules.check import consume, dump
from tests.rules.forging import PRIVATE, PUBLIC, Forger, Sent
from tests.rules.world import NOW, make

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "15"))
WORLD = make()


def _bodies() -> list[bytes | Proposal | Commit]:
    forger = WORLD.forger()
    psk = PreSharedKeyID.external(b"shared", WORLD.rng(WORLD.suite.hash_length))
    contents = (
        Add(WORLD.bundle("zoe").key_package),
        Update(forger.update_leaf()),
        Remove(LeafIndex(3)),
        PreSharedKey(psk),
    )
    clear = WORLD.forger("alice", PUBLIC)
    lists: tuple[tuple[Any, ...], ...] = ((), contents[2:])
    commits = [MLSMessage.read(clear.commit(each).data).body for each in lists]
    return [
        b"application data",
        *(Proposal.of(content) for content in contents),
        *(commit.content.body for commit in commits),  # type: ignore[union-attr]
    ]


BODIES = _bodies()


def _receive(sent: Sent) -> None:
    victim, twin = WORLD.member("bob"), WORLD.member("bob")
    try:
        victim.receive(sent.data, now=NOW)
    except CoterieError:
        after = dump(victim)
        if sent.generation is not None and after != dump(twin):
            consume(twin, sent.generation)
        assert after == dump(twin)


@st.composite
def broken_content(draw: st.DrawFn) -> tuple[FramedContent, bytes | None]:
    """Content with changes inside; the second is what is encrypted where it is no struct any more."""
    forger = WORLD.forger()
    content = forger.content(draw(st.sampled_from(BODIES)))
    data = draw(mutated(content.encode()))
    try:
        return FramedContent.decode(data), None
    except CoterieError:
        return content, data


@settings(max_examples=20 * EXAMPLES)
@given(broken_content(), st.sampled_from([PRIVATE, PUBLIC]), st.booleans())
def test_content_that_was_changed_before_it_was_signed(
    broken: tuple[FramedContent, bytes | None], framing: Any, of_bob: bool
) -> None:
    content, raw = broken
    forger = WORLD.forger("carol" if of_bob else "alice", framing)
    forger.context = WORLD.member("alice").context
    _receive(_framed(forger, content, raw))


def _framed(forger: Forger, content: FramedContent, raw: bytes | None) -> Sent:
    if forger.framing == PUBLIC:
        return forger.public(content)
    if content.sender.leaf_index is not None and content.sender.leaf_index > 5:
        content = content.replace(sender=forger.me)
    return forger.private(content, body=raw)


@settings(max_examples=20 * EXAMPLES)
@given(st.data(), st.sampled_from([PRIVATE, PUBLIC]))
def test_messages_that_were_changed_on_the_way(data: st.DataObject, framing: Any) -> None:
    forger = WORLD.forger("alice", framing)
    sent = forger.send(forger.content(data.draw(st.sampled_from(BODIES[1:]))))
    _receive(Sent(data.draw(mutated(sent.data)), sent.generation))


@settings(max_examples=10 * EXAMPLES)
@given(st.data())
def test_welcomes_whose_tree_was_changed(data: st.DataObject) -> None:
    forger, bundle = WORLD.forger(), WORLD.bundle("zoe")
    tree, _ = forger.epoch.tree.with_added([bundle.key_package.leaf_node])
    welcome = forger.welcome(bundle, data.draw(mutated(tree.encode())))
    refusal = None
    try:
        Group.join(MLSMessage.read(welcome), bundle, WORLD.config)
    except CoterieError as error:
        refusal = error
    assert refusal is None or refusal.rule


@settings(max_examples=10 * EXAMPLES)
@given(st.data())
def test_saved_state_that_was_damaged(data: st.DataObject) -> None:
    store = dict(WORLD.stores["bob"])
    key = data.draw(st.sampled_from(sorted(store)))
    store[key] = data.draw(mutated(store[key]))
    entries = {k: v for k, v in store.items() if k[:2] not in {b"n/", b"i/"}}
    try:
        group = Group.load(entries, store, WORLD.config)
        group.receive(WORLD.forger().commit().data, now=NOW)
    except (CoterieError, StorageError):
        pass
