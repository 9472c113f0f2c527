"""§7.2 and §7.3: leaves that may not stand where they stand: in an Add, an Update, a Commit's path, a tree."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from coterie.interop.negative import EXTENSION, PROPOSAL
from coterie.mls.credential import AcceptAnything, Credential
from coterie.mls.extension import Extension
from coterie.mls.leaf_node import LeafNode, Lifetime
from coterie.mls.proposal import Add, Proposal, Update
from coterie.mls.rules import Rule
from coterie.mls.tree_math import LeafIndex, NodeIndex
from coterie.mls.types import (
    CipherSuite,
    CredentialType,
    ExtensionType,
    LeafNodeSource,
    ProposalType,
    ProtocolVersion,
)
from tests.rules.cases.registry import BOTH, case
from tests.rules.forging import Forger, PathChanges, Referred, Sent, key_package, sign_leaf
from tests.rules.world import LIFETIME, NOW, Attack, Call, Join, World

UNKNOWN = 0xF0F0
Changes = Mapping[str, Any]


def in_add(w: World, f: Forger, changes: Changes, *, by_value: bool = False) -> Attack:
    """The leaf in a proposal to add its client, or in a Commit that adds it."""
    add = Add(key_package(w.suite, w.bundle("zoe"), leaf=changes))
    return w.victim(f.commit([add]) if by_value else f.propose(add))


def in_update(w: World, f: Forger, changes: Changes) -> Attack:
    """The leaf in an Update of the forger's."""
    return w.victim(f.propose(Update(f.update_leaf(**changes))))


def in_path(w: World, f: Forger, changes: Changes) -> Attack:
    """The leaf in the path of the forger's Commit."""
    return w.victim(f.commit(path=PathChanges(leaf=changes)))


def in_tree(w: World, f: Forger, changes: Changes) -> Attack:
    """The leaf in the tree of a group that a newcomer is to join (it must be one without parents)."""
    victim = w.bundle("zoe")
    mallory = w.bundle("mallory")
    leaf = sign_leaf(w.suite, mallory.key_package.leaf_node, mallory.signature_key, **changes)
    tree, _ = f.epoch.tree.with_added([leaf, victim.key_package.leaf_node])
    return Join(victim, f.welcome(victim, tree))


def everywhere(
    rule: Rule, title: str, *, in_trees: bool = True
) -> Callable[[Callable[[World], Changes]], None]:
    """The same wrong leaf in all four places."""

    def add(changes: Callable[[World], Changes]) -> None:
        case(rule, f"{title}, in an Add", framings=BOTH)(lambda w, f: in_add(w, f, changes(w)))
        case(rule, f"{title}, in an Update", framings=BOTH)(
            lambda w, f: in_update(w, f, changes(w))
        )
        case(rule, f"{title}, in a path", framings=BOTH)(lambda w, f: in_path(w, f, changes(w)))
        if in_trees:
            case(rule, f"{title}, in the tree of a Welcome", warm=False)(
                lambda w, f: in_tree(w, f, changes(w))
            )

    return add


@everywhere(Rule.HPKE_PUBLIC_KEY, "a leaf with an encryption key that is none")
def _(w: World) -> Changes:
    return {"encryption_key": bytes(len(w.bundle("x").key_package.init_key))}


@everywhere(Rule.CAPABILITIES_DEFAULT, "a leaf that lists a default extension type")
def _(w: World) -> Changes:
    extensions = (EXTENSION, ExtensionType.RATCHET_TREE)
    return {"capabilities": w.capabilities.replace(extensions=extensions)}


@everywhere(Rule.CAPABILITIES_DEFAULT, "a leaf that lists a default proposal type")
def _(w: World) -> Changes:
    return {"capabilities": w.capabilities.replace(proposals=(PROPOSAL, ProposalType.ADD))}


@everywhere(Rule.CAPABILITIES_BOUND, "a leaf that lists 257 proposal types")
def _(w: World) -> Changes:
    types = (PROPOSAL, *(ProposalType(0xF100 + n) for n in range(256)))
    return {"capabilities": w.capabilities.replace(proposals=types)}


@everywhere(Rule.LEAF_EXTENSION_UNLISTED, "a leaf with an extension that it does not list")
def _(w: World) -> Changes:
    return {"extensions": (Extension(ExtensionType(UNKNOWN), b""),)}


@everywhere(
    Rule.LEAF_CREDENTIAL_UNLISTED, "a leaf that does not list its credential type", in_trees=False
)
def _(w: World) -> Changes:
    return {"capabilities": w.capabilities.replace(credentials=(CredentialType.X509,))}


@everywhere(Rule.LEAF_VERSION, "a leaf that does not speak MLS 1.0")
def _(w: World) -> Changes:
    return {"capabilities": w.capabilities.replace(versions=(ProtocolVersion(2),))}


@everywhere(Rule.LEAF_CIPHER_SUITE, "a leaf that does not support the group's suite")
def _(w: World) -> Changes:
    return {"capabilities": w.capabilities.replace(cipher_suites=(CipherSuite(UNKNOWN),))}


@everywhere(Rule.EXTENSION_DUPLICATE, "a leaf with two extensions of a type")
def _(w: World) -> Changes:
    return {"extensions": (Extension(EXTENSION, b"1"), Extension(EXTENSION, b"2"))}


@case(Rule.CREDENTIAL, "a leaf that nobody vouches for, in an Add", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return in_add(w, f, {"credential": Credential.basic(b"!mallory")})


@case(Rule.CREDENTIAL, "a leaf that nobody vouches for, in a tree", warm=False)
def _(w: World, f: Forger) -> Attack:
    return in_tree(w, f, {"credential": Credential.basic(b"!mallory")})


@case(Rule.CREDENTIAL, "a new credential that nobody vouches for, in an external Commit")
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.external_commit(w.key("zoe"), {"credential": Credential.basic(b"!mallory")}))


@case(Rule.CREDENTIAL_SUCCESSOR, "a credential of another client, in an Update", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return in_update(w, f, {"credential": Credential.basic(b"mallory")})


@case(Rule.CREDENTIAL_SUCCESSOR, "a credential of another client, in a path", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return in_path(w, f, {"credential": Credential.basic(b"mallory")})


@case(Rule.CREDENTIAL_SUCCESSOR, "another credential, where every credential is its own client")
def _(w: World, f: Forger) -> Attack:
    old, new = Credential.basic(b"alice"), Credential.basic(b"alice#2")
    return Call(lambda: AcceptAnything().valid_successor(old, new))


def _short_key(w: World) -> Changes:
    return {"signature_key": w.key("zoe").public[:-1]}


@case(Rule.SIGNATURE_PUBLIC_KEY, "a signature key that is too short, in an Add", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return in_add(w, f, _short_key(w))


@case(Rule.SIGNATURE_PUBLIC_KEY, "a signature key that is too short, in an Update", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return in_update(w, f, _short_key(w))


@case(Rule.SIGNATURE_PUBLIC_KEY, "a signature key that is too short, in a path", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return in_path(w, f, _short_key(w))


@case(Rule.SIGNATURE_PUBLIC_KEY, "a signature key that is too short, in a tree", warm=False)
def _(w: World, f: Forger) -> Attack:
    return in_tree(w, f, _short_key(w))


YEARS = Lifetime(NOW - 1000, NOW + 3 * 365 * 86400)
BACKWARDS = Lifetime(NOW + 10, NOW - 10)


@case(Rule.LEAF_LIFETIME_MAXIMUM, "a key package that is valid for years", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return in_add(w, f, {"lifetime": YEARS})


@case(Rule.LEAF_LIFETIME_MAXIMUM, "a lifetime of all numbers there are", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return in_add(w, f, {"lifetime": Lifetime(0, (1 << 64) - 1)}, by_value=True)


@case(Rule.LEAF_LIFETIME_MAXIMUM, "a lifetime that ends before it begins", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return in_add(w, f, {"lifetime": BACKWARDS})


@case(Rule.LEAF_LIFETIME_MAXIMUM, "a leaf that is valid for years, in a tree", warm=False)
def _(w: World, f: Forger) -> Attack:
    return in_tree(w, f, {"lifetime": YEARS})


@case(Rule.LEAF_LIFETIME, "a key package that has expired", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return in_add(w, f, {"lifetime": Lifetime(NOW - 1000, NOW - 1)})


@case(Rule.LEAF_LIFETIME, "a key package that is not valid yet", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return in_add(w, f, {"lifetime": Lifetime(NOW + 1, NOW + 1000)}, by_value=True)


@case(Rule.LEAF_SIGNATURE, "a key package's leaf signed with another key", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    package = key_package(w.suite, w.bundle("zoe"), leaf_signer=w.key("yan"))
    return w.victim(f.propose(Add(package)))


@case(Rule.LEAF_SIGNATURE, "an Update signed for another group", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return in_update(w, f, {"group_id": b"another"})


@case(Rule.LEAF_SIGNATURE, "an Update signed for another leaf", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return in_update(w, f, {"leaf_index": 2})


@case(Rule.LEAF_SIGNATURE, "a path's leaf signed with the key that it replaces", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    old = f.epoch.signature_key
    return w.victim(f.commit(path=PathChanges(signature_key=w.key("alice2"), leaf_signer=old)))


@case(Rule.LEAF_SIGNATURE, "a path's leaf signed for another leaf", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.commit(path=PathChanges(leaf_index=2)))


@case(Rule.LEAF_SIGNATURE, "a leaf of a tree signed with another key", warm=False)
def _(w: World, f: Forger) -> Attack:
    victim, mallory = w.bundle("zoe"), w.bundle("mallory").key_package.leaf_node
    leaf = sign_leaf(w.suite, mallory, w.key("yan"))
    tree, _ = f.epoch.tree.with_added([leaf, victim.key_package.leaf_node])
    return Join(victim, f.welcome(victim, tree))


SOURCES: Mapping[LeafNodeSource, Changes] = {
    LeafNodeSource.KEY_PACKAGE: {"lifetime": LIFETIME, "parent_hash": None},
    LeafNodeSource.UPDATE: {"lifetime": None, "parent_hash": None},
    LeafNodeSource.COMMIT: {"lifetime": None, "parent_hash": b""},
}


def _sourced(source: LeafNodeSource, w: World, index: int = 0) -> Changes:
    if source == LeafNodeSource.KEY_PACKAGE:
        return {"leaf_node_source": source, **SOURCES[source]}
    place = {"group_id": b"the group", "leaf_index": index}
    return {"leaf_node_source": source, **SOURCES[source], **place}


for _source in LeafNodeSource:
    _word = _source.name.lower()
    if _source != LeafNodeSource.KEY_PACKAGE:
        case(Rule.LEAF_SOURCE, f"a leaf of source {_word} in an Add", framings=BOTH)(
            lambda w, f, s=_source: in_add(w, f, _sourced(s, w, 5))  # type: ignore[misc]
        )
    if _source != LeafNodeSource.UPDATE:
        case(Rule.LEAF_SOURCE, f"a leaf of source {_word} in an Update", framings=BOTH)(
            lambda w, f, s=_source: in_update(w, f, _sourced(s, w))  # type: ignore[misc]
        )
    if _source != LeafNodeSource.COMMIT:
        case(Rule.LEAF_SOURCE, f"a leaf of source {_word} in a path", framings=BOTH)(
            lambda w, f, s=_source: in_path(w, f, _sourced(s, w))  # type: ignore[misc]
        )


def _without(w: World, field: str) -> Changes:
    return {"capabilities": w.capabilities.replace(**{field: ()})}


@case(Rule.LEAF_REQUIRED_CAPABILITIES, "an Add without a required proposal type", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return in_add(w, f, _without(w, "proposals"), by_value=True)


@case(Rule.LEAF_REQUIRED_CAPABILITIES, "a path without a required proposal type", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return in_path(w, f, _without(w, "proposals"))


def _committed_update(w: World, f: Forger, changes: Changes) -> Attack:
    """Carol's Update, committed by the forger: what depends on the group is judged with the Commit."""
    carol = w.forger("carol", f.framing)
    leaf = carol.update_leaf(**changes)
    sent = carol.propose(Update(leaf))
    return w.victim(f.commit([referred(w, sent, Update(leaf), 2)]), after=[sent.data])


def referred(w: World, sent: Sent, content: Any, sender: int | None) -> Referred:
    """A proposal that the receiver has, as a Commit refers to it."""
    group = w.member("dave")
    received: Any = group.receive(sent.data, now=NOW)
    place = None if sender is None else LeafIndex(sender)
    return Referred(received.reference, Proposal.of(content), place)


@case(Rule.LEAF_REQUIRED_CAPABILITIES, "an Update without a required type", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return _committed_update(w, f, _without(w, "proposals"))


@case(Rule.LEAF_GROUP_EXTENSION, "an Update that drops an extension of the group", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return _committed_update(w, f, _without(w, "extensions"))


@case(Rule.LEAF_GROUP_EXTENSION, "an Add of a client without the group's extension", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return in_add(w, f, _without(w, "extensions"), by_value=True)


@case(Rule.LEAF_GROUP_EXTENSION, "a path without the group's extension", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return in_path(w, f, _without(w, "extensions"))


@case(Rule.REQUIRED_CAPABILITIES_SUPPORT, "a member of a tree without a required type", warm=False)
def _(w: World, f: Forger) -> Attack:
    return in_tree(w, f, _without(w, "proposals"))


@case(Rule.EXTENSION_SUPPORT, "a member of a tree without the group's extension", warm=False)
def _(w: World, f: Forger) -> Attack:
    return in_tree(w, f, _without(w, "extensions"))


def _new_credential(w: World) -> Changes:
    kind = CredentialType(UNKNOWN)
    kinds = (CredentialType.BASIC, CredentialType.X509, kind)
    return {
        "credential": Credential(kind, b"zoe"),
        "capabilities": w.capabilities.replace(credentials=kinds),
    }


@case(Rule.LEAF_CREDENTIAL_SUPPORT, "a credential that others do not support", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return in_add(w, f, _new_credential(w), by_value=True)


@case(Rule.LEAF_CREDENTIAL_SUPPORT, "an external joiner's credential that others do not support")
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.external_commit(w.key("zoe"), _new_credential(w)))


def _only_x509(w: World) -> Changes:
    return {
        "credential": Credential.x509((b"zoe",)),
        "capabilities": w.capabilities.replace(credentials=(CredentialType.X509,)),
    }


@case(Rule.LEAF_CREDENTIAL_IN_USE, "an Add of a client that cannot read the others", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return in_add(w, f, _only_x509(w), by_value=True)


@case(Rule.LEAF_CREDENTIAL_IN_USE, "an external joiner that cannot read the others")
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.external_commit(w.key("zoe"), _only_x509(w)))


@case(Rule.LEAF_CREDENTIAL_IN_USE, "a member of a tree that cannot read the others", warm=False)
def _(w: World, f: Forger) -> Attack:
    return in_tree(w, f, _only_x509(w))


@case(Rule.UPDATE_SAME_KEY, "an Update that keeps its encryption key", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return in_update(w, f, {"encryption_key": f.epoch.leaf_node.encryption_key})


def _leaf_of(f: Forger, index: int) -> LeafNode:
    leaf = f.epoch.tree.leaf(index)
    assert leaf is not None
    return leaf


@case(Rule.UNIQUE_SIGNATURE_KEY, "an Add with a member's signature key", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    package = key_package(
        w.suite,
        w.bundle("zoe"),
        leaf={"signature_key": w.key("carol").public},
        leaf_signer=w.key("carol"),
        signer=w.key("carol"),
    )
    return w.victim(f.commit([Add(package)]))


@case(Rule.UNIQUE_SIGNATURE_KEY, "a path with another member's signature key", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.commit(path=PathChanges(signature_key=w.key("carol"))))


@case(Rule.UNIQUE_SIGNATURE_KEY, "an external joiner with a member's signature key")
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.external_commit(w.key("carol"), {"credential": Credential.basic(b"zoe")}))


@case(Rule.UNIQUE_SIGNATURE_KEY, "two members of a tree with one signature key", warm=False)
def _(w: World, f: Forger) -> Attack:
    victim, mallory = w.bundle("zoe"), w.bundle("mallory").key_package.leaf_node
    carol = w.key("carol")
    leaf = sign_leaf(w.suite, mallory, carol, signature_key=carol.public)
    tree, _ = f.epoch.tree.with_added([leaf, victim.key_package.leaf_node])
    return Join(victim, f.welcome(victim, tree))


@case(Rule.UNIQUE_ENCRYPTION_KEY, "an Add with a member's encryption key", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return in_add(w, f, {"encryption_key": _leaf_of(f, 2).encryption_key}, by_value=True)


@case(Rule.UNIQUE_ENCRYPTION_KEY, "an Add with a parent's encryption key", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    parent = f.epoch.tree.node(NodeIndex(5))
    assert parent is not None
    return in_add(w, f, {"encryption_key": parent.encryption_key}, by_value=True)


@case(Rule.UNIQUE_ENCRYPTION_KEY, "an Update with another's encryption key", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return _committed_update(w, f, {"encryption_key": _leaf_of(f, 3).encryption_key})


@case(Rule.UNIQUE_ENCRYPTION_KEY, "two members of a tree with one encryption key", warm=False)
def _(w: World, f: Forger) -> Attack:
    return in_tree(w, f, {"encryption_key": _leaf_of(f, 2).encryption_key})
