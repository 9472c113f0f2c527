"""§10: key packages that must not be added."""

from __future__ import annotations

from coterie.interop.negative import EXTENSION
from coterie.mls.credential import Credential
from coterie.mls.extension import Extension
from coterie.mls.framing import MLSMessage
from coterie.mls.key_package import KeyPackage
from coterie.mls.proposal import Add
from coterie.mls.rules import Rule
from coterie.mls.types import CipherSuite, ExtensionType, ProtocolVersion
from tests.rules.cases.registry import BOTH, case
from tests.rules.forging import Forger, key_package
from tests.rules.world import Attack, Call, World


def _added(w: World, f: Forger, package: KeyPackage) -> Attack:
    return w.victim(f.propose(Add(package)))


@case(Rule.KEY_PACKAGE_VERSION, "an Add for protocol version 2", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return _added(w, f, key_package(w.suite, w.bundle("zoe"), version=ProtocolVersion(2)))


@case(Rule.KEY_PACKAGE_VERSION, "a key package of another version than its message")
def _(w: World, f: Forger) -> Attack:
    package = key_package(w.suite, w.bundle("zoe"), version=ProtocolVersion(2))
    data = MLSMessage.of(package).encode()
    return Call(lambda: MLSMessage.read(data))


@case(Rule.KEY_PACKAGE_CIPHER_SUITE, "an Add for another suite", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    other = CipherSuite(3 if w.suite.cipher_suite != 3 else 1)
    return _added(w, f, key_package(w.suite, w.bundle("zoe"), cipher_suite=other))


@case(Rule.KEY_PACKAGE_SIGNATURE, "a key package signed with another key", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return _added(w, f, key_package(w.suite, w.bundle("zoe"), signer=w.key("yan")))


@case(Rule.KEY_PACKAGE_SIGNATURE, "a key package whose init key was replaced", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    package = w.bundle("zoe").key_package
    return _added(w, f, package.replace(init_key=w.bundle("mallory").key_package.init_key))


@case(Rule.KEY_PACKAGE_INIT_KEY, "an init key that is the encryption key", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    bundle = w.bundle("zoe")
    key = bundle.key_package.leaf_node.encryption_key
    return _added(w, f, key_package(w.suite, bundle, init_key=key))


@case(Rule.HPKE_PUBLIC_KEY, "an init key that is no key", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    bundle = w.bundle("zoe")
    key = bytes(len(bundle.key_package.init_key))
    return _added(w, f, key_package(w.suite, bundle, init_key=key))


@case(Rule.HPKE_PUBLIC_KEY, "an init key that is too short", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    bundle = w.bundle("zoe")
    return _added(w, f, key_package(w.suite, bundle, init_key=bundle.key_package.init_key[:-1]))


@case(
    Rule.KEY_PACKAGE_EXTENSION_UNLISTED, "an extension that its leaf does not list", framings=BOTH
)
def _(w: World, f: Forger) -> Attack:
    extensions = (Extension(ExtensionType(0xF0F0), b""),)
    return _added(w, f, key_package(w.suite, w.bundle("zoe"), extensions=extensions))


@case(Rule.EXTENSION_DUPLICATE, "a key package with two extensions of a type", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    extensions = (Extension(EXTENSION, b"1"), Extension(EXTENSION, b"2"))
    return _added(w, f, key_package(w.suite, w.bundle("zoe"), extensions=extensions))


def _among_others(w: World, f: Forger, package: KeyPackage) -> Attack:
    """Committed by value, between two that are in order."""
    first, last = (Add(w.bundle(name).key_package) for name in ("first", "last"))
    return w.victim(f.commit([first, Add(package), last]))


@case(Rule.LEAF_SIGNATURE, "one of three Adds whose leaf is signed with another key", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    package = key_package(w.suite, w.bundle("zoe"), leaf_signer=w.key("yan"))
    return _among_others(w, f, package)


@case(Rule.KEY_PACKAGE_SIGNATURE, "one of three Adds signed with another key", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return _among_others(w, f, key_package(w.suite, w.bundle("zoe"), signer=w.key("yan")))


@case(Rule.KEY_PACKAGE_INIT_KEY, "one of three Adds with one key for two uses", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    bundle = w.bundle("zoe")
    key = bundle.key_package.leaf_node.encryption_key
    return _among_others(w, f, key_package(w.suite, bundle, init_key=key))


@case(Rule.CREDENTIAL, "one of three Adds that nobody vouches for", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    leaf = {"credential": Credential.basic(b"!mallory")}
    return _among_others(w, f, key_package(w.suite, w.bundle("zoe"), leaf=leaf))
