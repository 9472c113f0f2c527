"""§11.2 and §11.3: groups that end, and groups that continue another one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from coterie.mls.extension import Extension
from coterie.mls.framing import MLSMessage
from coterie.mls.group import Group
from coterie.mls.group_context import PreSharedKeyID
from coterie.mls.proposal import Commit, Proposal, ReInit, Remove
from coterie.mls.public_group import PublicCommit, PublicGroup
from coterie.mls.ratchet_tree import RatchetTree
from coterie.mls.rules import Rule
from coterie.mls.tree_math import LeafIndex
from coterie.mls.types import CipherSuite, ExtensionType, ProtocolVersion, ResumptionPSKUsage
from tests.rules.cases.registry import BOTH, case
from tests.rules.forging import PSK, PUBLIC, Forger
from tests.rules.world import NAMES, NOW, Attack, Call, Join, World, make

REINIT, BRANCH = ResumptionPSKUsage.REINIT, ResumptionPSKUsage.BRANCH


def announced(w: World) -> ReInit:
    """The group that follows."""
    suite = CipherSuite(w.suite.cipher_suite)
    extension = Extension(ExtensionType(0xF001), b"application data")
    return ReInit(b"the next group", ProtocolVersion.MLS10, suite, (extension,))


def ended(w: World) -> World:
    """The world in which a ReInit was committed."""
    return w.adopted(Proposal.of(announced(w)))


@case(Rule.AFTER_REINIT, "a Commit in a group that is over", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    over = ended(w)
    return over.victim(over.forger("alice", f.framing).commit())


@case(Rule.AFTER_REINIT, "a proposal in a group that is over", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    over = ended(w)
    return over.victim(over.forger("alice", f.framing).propose(Remove(LeafIndex(2))))


@case(Rule.AFTER_REINIT, "a Commit in a group that an observer knows to be over")
def _(w: World, f: Forger) -> Attack:
    return Call(lambda: _observe(w, Commit((), None)))


@case(Rule.AFTER_REINIT, "a proposal in a group that an observer knows to be over")
def _(w: World, f: Forger) -> Attack:
    return Call(lambda: _observe(w, Proposal.of(Remove(LeafIndex(2)))))


def _observe(w: World, body: Commit | Proposal) -> object:
    f = w.forger("alice", PUBLIC)
    observer = PublicGroup.follow(f.group_info(), w.config.policy())
    commit, epoch = f.commit_and_epoch([announced(w)])
    staged = observer.receive(commit.data, now=NOW)
    assert isinstance(staged, PublicCommit)
    observer.adopt(staged)
    f.context = epoch.context
    return observer.receive(f.public(f.content(body)).data, now=NOW)


def continuing(
    w: World,
    usage: ResumptionPSKUsage,
    *,
    names: Sequence[str] = NAMES,
    link: dict[str, Any] | None = None,
    old: World | None = None,
    **context: Any,
) -> Attack:
    """Bob is welcomed to a group that continues the old one, right but for what is said."""
    f, before = w.forger(), old or w
    bundles = {name: w.bundle(name) for name in names}
    bob = w.bundle("bob#2") if "bob" not in names else bundles["bob"]
    first, *others = (bundle.key_package.leaf_node for bundle in bundles.values())
    if "bob" not in names:
        others.append(bob.key_package.leaf_node)
    tree, _ = RatchetTree.of_one(w.suite, first).with_added(others)
    suite = CipherSuite(w.suite.cipher_suite)
    whole = {"group_id": b"the next group", "epoch": 1, "cipher_suite": suite, **context}
    psk = PreSharedKeyID.resumption(
        usage, b"the group", before.forger().context.epoch, w.rng(w.suite.hash_length)
    ).replace(**(link or {}))
    found = before.member("bob").resumption_psk(psk.psk_epoch or 0)
    key = PSK if found is None else bytes(found)
    welcome = f.welcome(bob, tree, context=whole, info={"key": w.key("alice")}, psks=[(psk, key)])
    return Join(bob, welcome, continues=before.stores["bob"], history=before.history)


def reinit(rule: Rule, title: str) -> Callable[[Callable[[World], dict[str, Any]]], None]:
    """A case in which a group after a ReInit is not what was announced."""

    def add(changes: Callable[[World], dict[str, Any]]) -> None:
        def attack(w: World, f: Forger) -> Attack:
            over = ended(w)
            fields = {"extensions": announced(w).extensions, **changes(w)}
            return continuing(over, REINIT, **fields)

        case(rule, title)(attack)

    return add


@reinit(Rule.REINIT_CONTEXT, "a group with another id than was announced")
def _(w: World) -> dict[str, Any]:
    return {"group_id": b"some other group"}


@reinit(Rule.REINIT_CONTEXT, "a group with other extensions than were announced")
def _(w: World) -> dict[str, Any]:
    return {"extensions": ()}


@reinit(Rule.REINIT_MEMBERS, "a group without one of the old members")
def _(w: World) -> dict[str, Any]:
    return {"names": NAMES[:-1]}


@reinit(Rule.REINIT_MEMBERS, "a group with a stranger in an old member's place")
def _(w: World) -> dict[str, Any]:
    return {"names": (*NAMES[:-1], "zoe")}


@reinit(Rule.SUCCESSOR_EPOCH, "a group that is in epoch 2 already")
def _(w: World) -> dict[str, Any]:
    return {"epoch": 2}


@reinit(Rule.SUCCESSOR_EPOCH, "a group that is in epoch 0 still")
def _(w: World) -> dict[str, Any]:
    return {"epoch": 0}


@reinit(Rule.REINIT_PSK, "a group that follows an earlier epoch of the old one")
def _(w: World) -> dict[str, Any]:
    return {"link": {"psk_epoch": w.forger().context.epoch}}


@case(Rule.REINIT_PSK, "a successor of a group that is not over")
def _(w: World, f: Forger) -> Attack:
    return continuing(w, REINIT, extensions=announced(w).extensions)


@case(Rule.REINIT_PSK, "a Welcome that names no group, for one that is to continue one")
def _(w: World, f: Forger) -> Attack:
    bundle = w.bundle("zoe")
    tree, _ = f.epoch.tree.with_added([bundle.key_package.leaf_node])
    return Join(bundle, f.welcome(bundle, tree), continues=w.stores["bob"])


@case(Rule.REINIT_PSK, "a branch of another group than the one that it is to continue")
def _(w: World, f: Forger) -> Attack:
    attack = continuing(
        w, BRANCH, link={"psk_group_id": b"another"}, extensions=announced(w).extensions
    )
    assert isinstance(attack, Join)
    old = w.member("bob")
    # The application finds keys of other groups, too.
    key = old.resumption_psk(old.epoch)
    how = replace(w.config, psk=lambda _psk: key)
    welcome = MLSMessage.read(attack.welcome)
    return Call(lambda: Group.join(welcome, attack.bundle, how, continues=old))


@case(Rule.BRANCH_MEMBERS, "a branch with somebody who is not in the old group")
def _(w: World, f: Forger) -> Attack:
    extensions = announced(w).extensions
    return continuing(w, BRANCH, names=("alice", "bob", "zoe"), extensions=extensions)


@case(Rule.BRANCH_MEMBERS, "a branch of strangers")
def _(w: World, f: Forger) -> Attack:
    extensions = announced(w).extensions
    return continuing(w, BRANCH, names=("alice", "zoe", "yan"), extensions=extensions)


@case(Rule.SUCCESSOR_EPOCH, "a branch that is in epoch 2 already")
def _(w: World, f: Forger) -> Attack:
    extensions = announced(w).extensions
    return continuing(w, BRANCH, names=("alice", "bob"), extensions=extensions, epoch=2)


@case(Rule.BRANCH_SUITE, "a branch with another suite than the old group's")
def _(w: World, f: Forger) -> Attack:
    return _branch_of(w, 3 if w.suite.cipher_suite != 3 else 1)


@case(Rule.BRANCH_SUITE, "a branch whose suite has keys of another kind")
def _(w: World, f: Forger) -> Attack:
    return _branch_of(w, 2 if w.suite.cipher_suite != 2 else 1)


def _branch_of(w: World, suite: int) -> Attack:
    """A branch of the world's group in another suite."""
    other = make(suite)
    extensions = announced(other).extensions
    return continuing(other, BRANCH, names=("alice", "bob"), extensions=extensions, old=w)


def _announced_otherwise(w: World, **changes: Any) -> Attack:
    over = w.adopted(Proposal.of(announced(w).replace(**changes)))
    return continuing(over, REINIT, extensions=announced(w).extensions)


@case(Rule.REINIT_CONTEXT, "a group with another suite than was announced")
def _(w: World, f: Forger) -> Attack:
    return _announced_otherwise(w, cipher_suite=CipherSuite(4))


@case(Rule.REINIT_CONTEXT, "a group with another version than was announced")
def _(w: World, f: Forger) -> Attack:
    return _announced_otherwise(w, version=ProtocolVersion(2))
