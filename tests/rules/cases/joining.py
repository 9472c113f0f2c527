"""§12.4.3: Welcomes and GroupInfos that lead nowhere good."""

from __future__ import annotations

from typing import Any

from coterie.mls.credential import Credential
from coterie.mls.extension import Extension, ExternalSender, ExternalSenders
from coterie.mls.framing import MLSMessage
from coterie.mls.group import Group
from coterie.mls.group.welcoming import read_welcome
from coterie.mls.group_context import PreSharedKeyID
from coterie.mls.key_package import KeyPackageBundle
from coterie.mls.ratchet_tree import RatchetTree
from coterie.mls.rules import Rule
from coterie.mls.secret import Secret
from coterie.mls.types import CipherSuite, ExtensionType, ProtocolVersion, ResumptionPSKUsage
from coterie.mls.validation import read_group_info
from tests.rules.cases.registry import case
from tests.rules.forging import PSK, Forger
from tests.rules.world import Attack, Call, Join, JoinExternal, World

LAST_EPOCH = (1 << 64) - 1


def newcomer(w: World, f: Forger) -> tuple[KeyPackageBundle, RatchetTree]:
    """A client with the tree of the group that it was added to."""
    bundle = w.bundle("zoe")
    tree, _ = f.epoch.tree.with_added([bundle.key_package.leaf_node])
    return bundle, tree


def _welcome(w: World, f: Forger, **changes: Any) -> Attack:
    bundle, tree = newcomer(w, f)
    return Join(bundle, f.welcome(bundle, tree, **changes))


@case(Rule.WELCOME_KEY_PACKAGE, "a Welcome for somebody else")
def _(w: World, f: Forger) -> Attack:
    return _welcome(w, f, reference=bytes(w.suite.hash_length))


@case(Rule.WELCOME_KEY_PACKAGE, "a Welcome for an older key package of the same client")
def _(w: World, f: Forger) -> Attack:
    return _welcome(w, f, reference=w.bundle("zoe").key_package.reference())


@case(Rule.WELCOME_CIPHER_SUITE, "a Welcome of another suite")
def _(w: World, f: Forger) -> Attack:
    return _welcome(w, f, cipher_suite=3)


@case(Rule.WELCOME_CIPHER_SUITE, "a GroupInfo of another suite")
def _(w: World, f: Forger) -> Attack:
    return _welcome(w, f, context={"cipher_suite": CipherSuite(3)})


@case(Rule.WELCOME_SECRETS, "secrets that are sealed to another init key")
def _(w: World, f: Forger) -> Attack:
    return _welcome(w, f, sealed_to=w.bundle("zoe").key_package.init_key)


@case(Rule.WELCOME_SECRETS, "secrets that are sealed to the encryption key")
def _(w: World, f: Forger) -> Attack:
    bundle, tree = newcomer(w, f)
    key = bundle.key_package.leaf_node.encryption_key
    return Join(bundle, f.welcome(bundle, tree, sealed_to=key))


@case(Rule.WELCOME_GROUP_INFO, "a GroupInfo under another key")
def _(w: World, f: Forger) -> Attack:
    return _welcome(w, f, info_key=w.rng(w.suite.key_length))


@case(Rule.WELCOME_GROUP_INFO, "a joiner secret of another epoch")
def _(w: World, f: Forger) -> Attack:
    return _welcome(w, f, secrets={"joiner_secret": Secret(w.rng(w.suite.hash_length))})


@case(Rule.WELCOME_GROUP_INFO, "a pre-shared key with another value")
def _(w: World, f: Forger) -> Attack:
    psk = PreSharedKeyID.external(b"shared", w.rng(w.suite.hash_length))
    return _welcome(w, f, psks=[(psk, b"another value")])


@case(Rule.PSK_UNKNOWN, "a Welcome with a pre-shared key that the joiner has not")
def _(w: World, f: Forger) -> Attack:
    psk = PreSharedKeyID.external(b"unheard of", w.rng(w.suite.hash_length))
    return _welcome(w, f, psks=[(psk, PSK)])


@case(Rule.PSK_NONCE, "a Welcome with a short nonce")
def _(w: World, f: Forger) -> Attack:
    return _welcome(w, f, psks=[(PreSharedKeyID.external(b"shared", b"short"), PSK)])


@case(Rule.LIST_TWO_PSKS, "a Welcome with one pre-shared key twice")
def _(w: World, f: Forger) -> Attack:
    psk = PreSharedKeyID.external(b"shared", w.rng(w.suite.hash_length))
    return _welcome(w, f, psks=[(psk, PSK), (psk, PSK)])


def _continuing(w: World, usage: ResumptionPSKUsage) -> tuple[PreSharedKeyID, bytes]:
    nonce = w.rng(w.suite.hash_length)
    return PreSharedKeyID.resumption(usage, b"the group", 1, nonce), PSK


@case(Rule.WELCOME_ONE_RESUMPTION, "a Welcome that continues a group twice")
def _(w: World, f: Forger) -> Attack:
    usage = ResumptionPSKUsage.REINIT
    return _welcome(w, f, psks=[_continuing(w, usage), _continuing(w, usage)])


@case(Rule.WELCOME_ONE_RESUMPTION, "a Welcome that continues a group in both ways")
def _(w: World, f: Forger) -> Attack:
    usages = (ResumptionPSKUsage.REINIT, ResumptionPSKUsage.BRANCH)
    return _welcome(w, f, psks=[_continuing(w, usage) for usage in usages])


@case(Rule.GROUP_INFO_SIGNATURE, "a GroupInfo signed with another key")
def _(w: World, f: Forger) -> Attack:
    return _welcome(w, f, info={"key": w.key("zoe")})


@case(Rule.GROUP_INFO_SIGNATURE, "a GroupInfo in another member's name")
def _(w: World, f: Forger) -> Attack:
    return _welcome(w, f, info={"signer": 2})


@case(Rule.GROUP_INFO_SIGNER, "a GroupInfo signed by a blank leaf")
def _(w: World, f: Forger) -> Attack:
    return _welcome(w, f, info={"signer": 7})


@case(Rule.GROUP_INFO_SIGNER, "a GroupInfo signed by a leaf outside of the tree")
def _(w: World, f: Forger) -> Attack:
    return _welcome(w, f, info={"signer": (1 << 32) - 1})


@case(Rule.GROUP_ID_UNIQUE, "a Welcome to a group that the client is in")
def _(w: World, f: Forger) -> Attack:
    bundle, tree = newcomer(w, f)
    return Join(bundle, f.welcome(bundle, tree), groups=frozenset({b"the group"}))


@case(Rule.WELCOME_OWN_LEAF, "a tree without the joiner's leaf")
def _(w: World, f: Forger) -> Attack:
    bundle = w.bundle("zoe")
    return Join(bundle, f.welcome(bundle))


@case(Rule.WELCOME_OWN_LEAF, "a tree with another leaf of the joiner's")
def _(w: World, f: Forger) -> Attack:
    bundle = w.bundle("zoe")
    tree, _ = f.epoch.tree.with_added([w.bundle("zoe").key_package.leaf_node])
    return Join(bundle, f.welcome(bundle, tree))


@case(Rule.TREE_MISSING, "a Welcome without a tree")
def _(w: World, f: Forger) -> Attack:
    return _welcome(w, f, info={"extensions": ()})


@case(Rule.TREE_MISSING, "a GroupInfo without a tree")
def _(w: World, f: Forger) -> Attack:
    return _external(f, extensions=())


@case(Rule.TREE_HASH, "a tree that is not the GroupInfo's")
def _(w: World, f: Forger) -> Attack:
    return _welcome(w, f, context={"tree_hash": bytes(w.suite.hash_length)})


@case(Rule.TREE_HASH, "a tree of the epoch before, given beside the Welcome")
def _(w: World, f: Forger) -> Attack:
    bundle, tree = newcomer(w, f)
    welcome = f.welcome(bundle, tree, info={"extensions": ()})
    return Join(bundle, welcome, tree=f.epoch.tree.encode())


@case(Rule.CONFIRMATION_TAG, "a Welcome with another confirmation tag")
def _(w: World, f: Forger) -> Attack:
    return _welcome(w, f, tag=bytes(w.suite.hash_length))


@case(Rule.CONFIRMATION_TAG, "a Welcome with another transcript hash")
def _(w: World, f: Forger) -> Attack:
    bundle, tree = newcomer(w, f)
    tag = f.epoch.confirmation_tag
    context = {"confirmed_transcript_hash": bytes(w.suite.hash_length)}
    return Join(bundle, f.welcome(bundle, tree, context=context, tag=tag))


@case(Rule.GROUP_VERSION, "a Welcome to a group of protocol version 2")
def _(w: World, f: Forger) -> Attack:
    return _welcome(w, f, context={"version": ProtocolVersion(2)})


@case(Rule.GROUP_VERSION, "a GroupInfo of protocol version 0")
def _(w: World, f: Forger) -> Attack:
    return _external(f, context=f.context.replace(version=ProtocolVersion(0)))


@case(Rule.GROUP_EPOCH, "a GroupInfo of the last possible epoch")
def _(w: World, f: Forger) -> Attack:
    return _external(f, context=f.context.replace(epoch=LAST_EPOCH))


@case(Rule.GROUP_EPOCH, "a GroupInfo of the last possible epoch, its tree beside it")
def _(w: World, f: Forger) -> Attack:
    beside = [
        e for e in f.group_info().extensions if e.extension_type != ExtensionType.RATCHET_TREE
    ]
    changed = f.context.replace(epoch=LAST_EPOCH)
    info = f.group_info(context=changed, extensions=beside)
    return JoinExternal(MLSMessage.of(info).encode(), f.epoch.tree.encode())


@case(Rule.PATH_SECRET_MATCHES, "a path secret that is not the tree's")
def _(w: World, f: Forger) -> Attack:
    # The lowest common ancestor with the forger is the root, which has a key.
    return _welcome(w, f, path_secret=w.rng(w.suite.hash_length))


@case(Rule.PATH_SECRET_MATCHES, "a path secret of the wrong length")
def _(w: World, f: Forger) -> Attack:
    return _welcome(w, f, path_secret=b"short")


@case(Rule.PATH_SECRET_MATCHES, "a path secret for a node that is blank", warm=False)
def _(w: World, f: Forger) -> Attack:
    return _welcome(w, f, path_secret=w.rng(w.suite.hash_length))


@case(Rule.EXTENSION_DUPLICATE, "a GroupInfo with two extensions of a type")
def _(w: World, f: Forger) -> Attack:
    bundle, tree = newcomer(w, f)
    encoded = Extension(ExtensionType.RATCHET_TREE, tree.encode())
    return Join(bundle, f.welcome(bundle, tree, info={"extensions": (encoded, encoded)}))


@case(Rule.EXTENSION_DUPLICATE, "a group with two extensions of a type, in a Welcome")
def _(w: World, f: Forger) -> Attack:
    kept = f.context.extensions
    return _welcome(w, f, context={"extensions": (*kept, kept[-1])})


@case(Rule.EXTENSION_SUPPORT, "a group with an extension that the joiner does not support")
def _(w: World, f: Forger) -> Attack:
    extension = Extension(ExtensionType(0xF0F0), b"")
    return _welcome(w, f, context={"extensions": (*f.context.extensions, extension)})


@case(Rule.CREDENTIAL, "a group with an external sender that nobody vouches for")
def _(w: World, f: Forger) -> Attack:
    sender = ExternalSender(w.key("yan").public, Credential.basic(b"!yan"))
    senders = ExternalSenders((sender,)).encode()
    extension = Extension(ExtensionType.EXTERNAL_SENDERS, senders)
    return _welcome(w, f, context={"extensions": (extension, *f.context.extensions[1:])})


@case(Rule.GROUP_EPOCH, "a Commit by a member of the last possible epoch")
def _(w: World, f: Forger) -> Attack:
    bundle, tree = newcomer(w, f)
    welcome = f.welcome(bundle, tree, context={"epoch": LAST_EPOCH})
    group = Group.join(MLSMessage.read(welcome), bundle, w.config)
    return Call(group.commit)


# -- GroupInfo


@case(Rule.GROUP_ID_UNIQUE, "a GroupInfo of a group that the client is in")
def _(w: World, f: Forger) -> Attack:
    info = MLSMessage.of(f.group_info()).encode()
    return JoinExternal(info, groups=frozenset({b"the group"}))


def _external(f: Forger, **changes: Any) -> Attack:
    return JoinExternal(MLSMessage.of(f.group_info(**changes)).encode())


@case(Rule.GROUP_INFO_SIGNATURE, "a GroupInfo to join by that is signed with another key")
def _(w: World, f: Forger) -> Attack:
    return _external(f, key=w.key("yan"))


@case(Rule.GROUP_INFO_SIGNER, "a GroupInfo to join by that is signed by a blank leaf")
def _(w: World, f: Forger) -> Attack:
    return _external(f, signer=5)


@case(Rule.EXTERNAL_PUB_MISSING, "a GroupInfo without external_pub")
def _(w: World, f: Forger) -> Attack:
    extension = Extension(ExtensionType.RATCHET_TREE, f.epoch.tree.encode())
    return _external(f, extensions=(extension,))


@case(Rule.EXTERNAL_PUB_MISSING, "a GroupInfo without extensions, its tree beside it")
def _(w: World, f: Forger) -> Attack:
    info = MLSMessage.of(f.group_info(extensions=())).encode()
    return JoinExternal(info, f.epoch.tree.encode())


@case(Rule.HPKE_PUBLIC_KEY, "a GroupInfo whose external_pub is no key")
def _(w: World, f: Forger) -> Attack:
    return _external(f, external_pub=bytes(len(f.epoch.leaf_node.encryption_key)))


@case(Rule.CIPHER_SUITE, "a GroupInfo of an unknown suite")
def _(w: World, f: Forger) -> Attack:
    return _external(f, context=f.context.replace(cipher_suite=CipherSuite(0x0A0A)))


@case(Rule.CIPHER_SUITE, "a GroupInfo of suite zero")
def _(w: World, f: Forger) -> Attack:
    return _external(f, context=f.context.replace(cipher_suite=CipherSuite(0)))


@case(Rule.TREE_HASH, "a GroupInfo with another tree hash")
def _(w: World, f: Forger) -> Attack:
    return _external(f, context=f.context.replace(tree_hash=bytes(w.suite.hash_length)))


@case(Rule.LEAF_SIGNATURE, "a GroupInfo with the members of another group")
def _(w: World, f: Forger) -> Attack:
    return _external(f, context=f.context.replace(group_id=b"another"))


@case(Rule.ENUM_VALUE, "a Welcome where a GroupInfo should be")
def _(w: World, f: Forger) -> Attack:
    bundle, tree = newcomer(w, f)
    message = MLSMessage.read(f.welcome(bundle, tree))
    return Call(lambda: read_group_info(message))


@case(Rule.ENUM_VALUE, "a GroupInfo where a Welcome should be")
def _(w: World, f: Forger) -> Attack:
    message = MLSMessage.of(f.group_info())
    return Call(lambda: read_welcome(message))


def welcome_with_tree(w: World, f: Forger, nodes: Any) -> Attack:
    """A Welcome of any tree, encoded or as nodes; the joiner's leaf need not be in it."""
    bundle = w.bundle("zoe")
    return Join(bundle, f.welcome(bundle, nodes))
