"""Running an attack: the rule that the error names, and the state that is left behind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from coterie.errors import CoterieError
from coterie.mls.framing import MLSMessage, PrivateMessage
from coterie.mls.group import Group
from coterie.mls.public_group import PublicGroup
from coterie.mls.rules import Rule
from tests.rules.forging import Generation
from tests.rules.world import NOW, Attack, Call, Join, JoinExternal, Receive, World, config, load


def check(attack: Attack, world: World, rule: str) -> None:
    """Asserts that the attack is refused by the rule and leaves nothing behind but a consumed generation."""
    if isinstance(attack, Receive):
        _check_receive(attack, world, rule)
    elif isinstance(attack, Join):
        old = None if attack.continues is None else load(attack.continues, world.config)
        before = None if old is None else dump(old)
        _refused(rule, lambda: join(attack, world, old))
        assert before == (None if old is None else dump(old))
    elif isinstance(attack, JoinExternal):
        _refused(rule, lambda: join_external(attack, world))
    else:
        assert isinstance(attack, Call)
        _refused(rule, attack.function)


def join(attack: Join, world: World, old: Group | None) -> Group:
    """Joins by the attack's Welcome."""
    return Group.join(
        MLSMessage.read(attack.welcome),
        attack.bundle,
        world.config,
        tree=attack.tree,
        groups=attack.groups,
        continues=old,
    )


def join_external(attack: JoinExternal, world: World) -> object:
    """Joins by the attack's GroupInfo."""
    leaf = world.bundle("zoe").key_package.leaf_node
    return Group.join_external(
        MLSMessage.read(attack.info),
        world.key("zoe"),
        leaf.credential,
        leaf.capabilities,
        world.config,
        tree=attack.tree,
        groups=attack.groups,
        now=NOW,
    )


def _refused(rule: str, call: Any) -> None:
    with pytest.raises(CoterieError) as caught:
        call()
    error = caught.value
    assert error.rule == rule, f"refused by {error!r} of {error.rule}, expected {rule}"


def _check_receive(attack: Receive, world: World, rule: str) -> None:
    how = config(world.rng, **attack.limits)
    victim, twin = load(attack.store, how), load(attack.store, how)
    _refused(rule, lambda: victim.receive(attack.data, now=NOW))
    if attack.consumed is not None:
        consume(twin, attack.consumed)
    assert dump(victim) == dump(twin), "the state in memory is not what it was"
    assert victim.save() == twin.save(), "what would be stored is not what it was"


SECRET_RULES = frozenset(
    {
        Rule.MEMBERSHIP_TAG,
        Rule.CONFIRMATION_TAG,
        Rule.OWN_MESSAGE_UNKNOWN,
        Rule.PSK_UNKNOWN,
        Rule.PATH_SECRET_OPENS,
        Rule.PATH_SECRET_MATCHES,
        Rule.HPKE_CIPHERTEXT,
    }
)
"""What only a member can see."""


def check_observer(attack: Attack, world: World, rule: str) -> bool:
    """Asserts that an observer refuses it by the same rule; False where there is nothing that it could see."""
    if not isinstance(attack, Receive) or rule in SECRET_RULES | {Rule.AFTER_REINIT}:
        return False
    if not all(map(_is_public, (*attack.after, attack.data))):
        return False
    most = attack.limits.get("max_proposals", 100)
    assert isinstance(most, int)
    observer = PublicGroup.follow(
        world.forger().group_info(), world.config.policy(), max_proposals=most
    )
    for data in attack.after:
        observer.receive(data, now=NOW)
    before = observer.context, observer.pending_proposals, dict(observer._index._counts)
    _refused(rule, lambda: observer.receive(attack.data, now=NOW))
    assert before == (observer.context, observer.pending_proposals, dict(observer._index._counts))
    return True


def _is_public(data: bytes) -> bool:
    try:
        body = MLSMessage.read(data).body
    except CoterieError:
        return False
    return not isinstance(body, PrivateMessage)


def consume(group: Group, generation: Generation) -> None:
    """Gives up exactly one generation of one ratchet of the present epoch."""
    keys = group._keys.of_epoch(group.epoch)
    assert keys is not None
    keys.secret_tree.consume(keys.secret_tree.find(*generation), NOW)


def dump(group: Group) -> Mapping[str, object]:
    """Everything that a group holds in memory, comparable."""
    epoch, keys = group._epoch, group._keys
    return {
        "context": epoch.context.encode(),
        "tree": epoch.tree.encode(),
        "secrets": bytes(epoch.secrets.encode()),
        "transcript": epoch.interim_transcript_hash,
        "private": _private(epoch),
        "message keys": [_message_keys(each) for each in (keys._present, *keys._past.values())],
        "resumption": {n: bytes(key) for n, key in keys._resumption.items()},
        "own messages": dict(keys._own),
        "proposals": [(entry.reference, entry.proposal) for entry in group.pending_proposals],
        "own updates": sorted(group._proposals.own_updates),
        "pending": group.pending_commit and group.pending_commit.message.encode(),
        "index": {
            name: n for name, n in group._index._counts.items() if name in group._index._changed
        },
        "active": group.is_active,
    }


def _private(epoch: Any) -> list[tuple[int, bytes]]:
    private = epoch.private
    parents = [(int(n), bytes(key.private_bytes())) for n, key in private.parents.items()]
    return [(int(private.leaf), bytes(private.leaf_key.private_bytes())), *sorted(parents)]


def _message_keys(keys: Any) -> tuple[object, ...]:
    tree = keys.secret_tree
    return (
        keys.context.epoch,
        {int(n): bytes(secret) for n, secret in tree._nodes.items()},
        {name: (n, bytes(secret)) for name, (n, secret) in tree._ratchets.items()},
        {name: (bytes(k), bytes(n), age) for name, (k, n, age) in tree._skipped.items()},
    )
