"""§7.5, §7.6 and §12.4: Commits whose path, tag or kind is wrong."""

from __future__ import annotations

from coterie.mls.credential import Credential
from coterie.mls.group import Group
from coterie.mls.group.welcoming import read_welcome
from coterie.mls.group_context import PreSharedKeyID
from coterie.mls.key_package import KeyPackageBundle
from coterie.mls.proposal import (
    Add,
    ExternalInit,
    GroupContextExtensions,
    PreSharedKey,
    Proposal,
    ReInit,
    Remove,
    Update,
)
from coterie.mls.ratchet_tree import HPKECiphertext, UpdatePathNode
from coterie.mls.rules import Rule
from coterie.mls.tree_math import LeafIndex, NodeIndex
from coterie.mls.types import CipherSuite, ProtocolVersion
from coterie.mls.welcome import GroupSecrets, Welcome
from tests.rules.cases.leaves import referred
from tests.rules.cases.proposals import add
from tests.rules.cases.registry import BOTH, case
from tests.rules.forging import PUBLIC, Forger, PathChanges, Sent
from tests.rules.world import NOW, Attack, Call, World

BOB, CAROL, DAVE = LeafIndex(1), LeafIndex(2), LeafIndex(3)
Nodes = tuple[UpdatePathNode, ...]


@case(Rule.PATH_REQUIRED, "an empty Commit without a path", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.commit(path=None))


@case(Rule.PATH_REQUIRED, "a Remove without a path", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.commit([Remove(CAROL)], path=None))


@case(Rule.PATH_REQUIRED, "group extensions without a path", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.commit([GroupContextExtensions(f.context.extensions)], path=None))


@case(Rule.PATH_REQUIRED, "an Update beside an Add without a path", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    carol = w.forger("carol", f.framing)
    update = Update(carol.update_leaf())
    sent = carol.propose(update)
    commit = f.commit([add(w, "zoe"), referred(w, sent, update, CAROL)], path=None)
    return w.victim(commit, after=[sent.data])


@case(Rule.PATH_LEAF_KEY, "a path that keeps the leaf's key", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.commit(path=PathChanges(leaf_key=f.epoch.private.leaf_key)))


@case(Rule.PATH_LEAF_KEY, "an external Commit that keeps the key of the leaf it removes")
def _(w: World, f: Forger) -> Attack:
    carol = w.forger("carol")
    path = PathChanges(leaf_key=carol.epoch.private.leaf_key)
    leaf = {"credential": Credential.basic(b"carol")}
    return w.victim(f.external_commit(w.key("carol#2"), leaf, [Remove(CAROL)], path=path))


def _key_of(f: Forger, node: int) -> bytes:
    found = f.epoch.tree.node(NodeIndex(node))
    assert found is not None
    return found.encryption_key


@case(Rule.PATH_KEY_REUSED, "a path with another member's key", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.commit(path=PathChanges(public_keys={1: _key_of(f, 4)})))


@case(Rule.PATH_KEY_REUSED, "a path with the key of a parent", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.commit(path=PathChanges(public_keys={0: _key_of(f, 5)})))


@case(Rule.PATH_KEY_REUSED, "a path with one key twice", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    key = w.suite.generate_hpke_key(w.rng).public
    return w.victim(f.commit(path=PathChanges(public_keys={0: key, 1: key})))


@case(Rule.PATH_KEY_REUSED, "a path with its leaf's key above it", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    key = w.suite.generate_hpke_key(w.rng)
    return w.victim(f.commit(path=PathChanges(leaf_key=key, public_keys={0: key.public})))


@case(Rule.PATH_KEY_REUSED, "an external Commit with a key of the tree")
def _(w: World, f: Forger) -> Attack:
    path = PathChanges(public_keys={0: _key_of(f, 4)})
    leaf = {"credential": Credential.basic(b"zoe")}
    return w.victim(f.external_commit(w.key("zoe"), leaf, path=path))


@case(Rule.HPKE_PUBLIC_KEY, "a path with a key that is none", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    zeros = bytes(len(_key_of(f, 0)))
    return w.victim(f.commit(path=PathChanges(public_keys={1: zeros})))


@case(Rule.PATH_LENGTH, "a path that is too short", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.commit(path=PathChanges(nodes=lambda nodes: nodes[:-1])))


@case(Rule.PATH_LENGTH, "a path that is too long", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.commit(path=PathChanges(nodes=lambda nodes: (*nodes, nodes[-1]))))


@case(Rule.PATH_LENGTH, "a path without nodes", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.commit(path=PathChanges(nodes=lambda nodes: nodes[:0])))


def _with_ciphertexts(nodes: Nodes, position: int, *change: int) -> Nodes:
    """Other ciphertexts of one node: those at these places."""
    node = nodes[position]
    sealed = tuple(node.encrypted_path_secret[i] for i in change)
    return (
        *nodes[:position],
        node.replace(encrypted_path_secret=sealed),
        *nodes[position + 1 :],
    )


@case(Rule.PATH_CIPHERTEXTS, "a node without its ciphertext", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    path = PathChanges(nodes=lambda nodes: _with_ciphertexts(nodes, 1))
    return w.victim(f.commit(path=path))


@case(Rule.PATH_CIPHERTEXTS, "a node with a ciphertext too many", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    path = PathChanges(nodes=lambda nodes: _with_ciphertexts(nodes, 1, 0, 0))
    return w.victim(f.commit(path=path))


@case(Rule.PATH_CIPHERTEXTS, "a ciphertext for a member that the same Commit adds", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    path = PathChanges(nodes=lambda nodes: _with_ciphertexts(nodes, 2, 0, 0))
    return w.victim(f.commit([add(w, "zoe")], path=path))


@case(Rule.PATH_PARENT_HASH, "a leaf with the parent hash of zeros", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.commit(path=PathChanges(parent_hash=bytes(w.suite.hash_length))))


@case(Rule.PATH_PARENT_HASH, "a leaf with an empty parent hash", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.commit(path=PathChanges(parent_hash=b"")))


@case(Rule.PATH_PARENT_HASH, "an external Commit with another parent hash")
def _(w: World, f: Forger) -> Attack:
    leaf = {"credential": Credential.basic(b"zoe")}
    path = PathChanges(parent_hash=bytes(w.suite.hash_length))
    return w.victim(f.external_commit(w.key("zoe"), leaf, path=path))


def _junk(w: World, nodes: Nodes) -> Nodes:
    def replaced(node: UpdatePathNode) -> UpdatePathNode:
        sealed = tuple(
            HPKECiphertext(each.kem_output, w.rng(len(each.ciphertext)))
            for each in node.encrypted_path_secret
        )
        return node.replace(encrypted_path_secret=sealed)

    return tuple(replaced(node) for node in nodes)


@case(Rule.PATH_SECRET_OPENS, "a path secret that opens for nobody", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.commit(path=PathChanges(nodes=lambda nodes: _junk(w, nodes))))


@case(Rule.PATH_SECRET_OPENS, "a KEM output that is no key", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    def broken(nodes: Nodes) -> Nodes:
        sealed = nodes[0].encrypted_path_secret[0].replace(kem_output=b"\x01")
        return (nodes[0].replace(encrypted_path_secret=(sealed,)), *nodes[1:])

    return w.victim(f.commit(path=PathChanges(nodes=broken)))


@case(Rule.PATH_SECRET_OPENS, "an own Update that the receiver has lost", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    copy = w.forger("bob", PUBLIC)
    update = Update(copy.update_leaf())
    content = copy.content(Proposal.of(update))
    # The receiver has the proposal as one of its own, but not the keys that go with it.
    sent = copy.public(content)
    ref = referred(w, sent, update, BOB)
    attack = w.victim(f.commit([ref]))
    _remember(attack.store, w, sent)
    return attack


@case(Rule.PATH_SECRET_OPENS, "a Commit to who was welcomed without the path secret that was due")
def _(w: World, f: Forger) -> Attack:
    bundle, carol = w.bundle("zoe"), w.member("carol")
    # In bob's place, below parents whose keys alice's path renews.
    proposals = [Proposal.of(Remove(BOB)), Proposal.of(Add(bundle.key_package))]
    pending = w.member("alice").commit(proposals, now=NOW)
    carol.adopt(carol.receive(pending.message, now=NOW), now=NOW)  # type: ignore[arg-type]
    assert pending.welcome is not None
    welcome = _without_path_secret(read_welcome(pending.welcome), bundle, w)
    zoe = Group.join(welcome, bundle, w.config)
    commit = carol.commit(now=NOW).message
    return Call(lambda: zoe.receive(commit, now=NOW))


def _without_path_secret(welcome: Welcome, bundle: KeyPackageBundle, w: World) -> Welcome:
    context, (entry,) = welcome.encrypted_group_info, welcome.secrets
    sealed = entry.encrypted_group_secrets
    opened = w.suite.decrypt_with_label(
        bundle.init_key, "Welcome", context, sealed.kem_output, sealed.ciphertext
    )
    secrets = GroupSecrets.decode(bytes(opened)).replace(path_secret=None)
    again = w.suite.encrypt_with_label(
        bundle.init_key.public, "Welcome", context, secrets.encode(), w.rng
    )
    entry = entry.replace(encrypted_group_secrets=HPKECiphertext(*again))
    return welcome.replace(secrets=(entry,))


def _remember(store: dict[bytes, bytes], w: World, sent: Sent) -> None:
    """Puts a proposal into a member's saved state, as if it had sent it."""
    group = w.member("dave")
    group.save()
    group.receive(sent.data)
    delta = group.save()
    store.update({key: value for key, value in delta.puts.items() if key.startswith(b"p/")})


@case(Rule.PATH_SECRET_MATCHES, "a path secret that is another's", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    secret = w.rng(w.suite.hash_length)
    return w.victim(f.commit(path=PathChanges(secrets={0: secret})))


@case(Rule.PATH_SECRET_MATCHES, "a path secret of the wrong length", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.commit(path=PathChanges(first_secret=b"short")))


@case(Rule.PATH_SECRET_MATCHES, "a public key that is not the path's further up", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    key = w.suite.generate_hpke_key(w.rng).public
    return w.victim(f.commit(path=PathChanges(public_keys={2: key})))


# -- external Commits

ZOE = {"credential": Credential.basic(b"zoe")}


@case(Rule.EXTERNAL_COMMIT_PATH, "an external Commit without a path")
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.external_commit(w.key("zoe"), ZOE, path=None))


@case(Rule.EXTERNAL_COMMIT_PATH, "an external Commit without a path that removes a member")
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.external_commit(w.key("zoe"), ZOE, [Remove(CAROL)], path=None))


@case(Rule.EXTERNAL_COMMIT_REFERENCE, "an external Commit with a proposal by reference")
def _(w: World, f: Forger) -> Attack:
    sent = f.propose(Remove(CAROL))
    ref = referred(w, sent, Remove(CAROL), 0)
    return w.victim(f.external_commit(w.key("zoe"), ZOE, [ref]), after=[sent.data])


@case(Rule.EXTERNAL_COMMIT_REFERENCE, "an external Commit with a reference to nothing")
def _(w: World, f: Forger) -> Attack:
    ref = referred(w, f.propose(Remove(CAROL)), Remove(CAROL), 0)
    return w.victim(f.external_commit(w.key("zoe"), ZOE, [ref]))


@case(Rule.EXTERNAL_COMMIT_INIT, "an external Commit without an ExternalInit")
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.external_commit(w.key("zoe"), ZOE, init=False))


@case(Rule.EXTERNAL_COMMIT_INIT, "an external Commit with two ExternalInits")
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.external_commit(w.key("zoe"), ZOE, [ExternalInit(w.rng(32))]))


@case(Rule.EXTERNAL_COMMIT_REMOVE, "an external Commit that removes two members")
def _(w: World, f: Forger) -> Attack:
    removes = [Remove(CAROL), Remove(DAVE)]
    return w.victim(f.external_commit(w.key("zoe"), ZOE, removes))


@case(Rule.EXTERNAL_COMMIT_REMOVE, "an external Commit that removes one member twice")
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.external_commit(w.key("zoe"), ZOE, [Remove(CAROL), Remove(CAROL)]))


@case(Rule.EXTERNAL_COMMIT_TYPES, "an external Commit with an Add")
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.external_commit(w.key("zoe"), ZOE, [add(w, "yan")]))


@case(Rule.EXTERNAL_COMMIT_TYPES, "an external Commit with an Update")
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.external_commit(w.key("zoe"), ZOE, [Update(f.update_leaf())]))


@case(Rule.EXTERNAL_COMMIT_TYPES, "an external Commit with a ReInit")
def _(w: World, f: Forger) -> Attack:
    suite = CipherSuite(w.suite.cipher_suite)
    reinit = ReInit(b"next", ProtocolVersion.MLS10, suite, ())
    return w.victim(f.external_commit(w.key("zoe"), ZOE, [reinit]))


@case(Rule.EXTERNAL_COMMIT_TYPES, "an external Commit with group extensions")
def _(w: World, f: Forger) -> Attack:
    extensions = GroupContextExtensions(())
    return w.victim(f.external_commit(w.key("zoe"), ZOE, [extensions]))


@case(Rule.CREDENTIAL_SUCCESSOR, "an external Commit that removes somebody else")
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.external_commit(w.key("zoe"), ZOE, [Remove(CAROL)]))


@case(Rule.REMOVE_BLANK, "an external Commit that removes a blank leaf")
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.external_commit(w.key("zoe"), ZOE, [Remove(LeafIndex(6))]))


@case(Rule.PSK_NONCE, "an external Commit with a short nonce")
def _(w: World, f: Forger) -> Attack:
    psk = PreSharedKey(PreSharedKeyID.external(b"shared", b"short"))
    return w.victim(f.external_commit(w.key("zoe"), ZOE, [psk]))


@case(Rule.HPKE_CIPHERTEXT, "an ExternalInit whose KEM output is no key")
def _(w: World, f: Forger) -> Attack:
    sent = f.external_commit(w.key("zoe"), ZOE, [ExternalInit(b"\x01")], init=False)
    return w.victim(sent)


@case(Rule.HPKE_CIPHERTEXT, "an ExternalInit with an empty KEM output")
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.external_commit(w.key("zoe"), ZOE, [ExternalInit(b"")], init=False))


@case(Rule.CONFIRMATION_TAG, "an ExternalInit for another key")
def _(w: World, f: Forger) -> Attack:
    kem_output = w.suite.generate_hpke_key(w.rng).public
    return w.victim(f.external_commit(w.key("zoe"), ZOE, [ExternalInit(kem_output)], init=False))
