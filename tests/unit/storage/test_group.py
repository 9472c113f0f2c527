"""A group of the core lives in a profile: saved by deltas, loaded again, its tree read node by node."""

from __future__ import annotations

import os

from coterie.mls.credential import AcceptAnything, Credential
from coterie.mls.crypto import suite_of
from coterie.mls.extension import capabilities
from coterie.mls.framing import MLSMessage
from coterie.mls.group import ApplicationMessage, Config, Group, StagedCommit
from coterie.mls.key_package import create_key_package
from coterie.mls.leaf_node import Lifetime
from coterie.mls.proposal import Add, Proposal
from coterie.storage import PUBLIC_PREFIXES, Profile

SUITE = suite_of(1)
CONFIG = Config(AcceptAnything())
CAPABILITIES = capabilities(cipher_suites=[1], rng=os.urandom)
LIFETIME = Lifetime(0, 1000)


def create() -> Group:
    key = SUITE.generate_signature_key(os.urandom)
    return Group.create(
        b"group",
        SUITE,
        key,
        Credential.basic(b"alice"),
        CAPABILITIES,
        CONFIG,
        lifetime=LIFETIME,
    )


def add(group: Group, name: bytes) -> Group:
    key = SUITE.generate_signature_key(os.urandom)
    package = create_key_package(
        SUITE, key, Credential.basic(name), CAPABILITIES, LIFETIME, rng=os.urandom
    )
    validated = package.key_package.validate(SUITE, CONFIG.authenticator, now=5)
    pending = group.commit([Proposal.of(Add(validated.key_package))], now=5)
    group.adopt(pending)
    assert pending.welcome is not None
    return Group.join(MLSMessage.read(pending.welcome.encode()), package, CONFIG)


def store(profile: Profile, name: str, group: Group) -> None:
    with profile.transaction() as transaction:
        transaction.apply(name, group.save())


def load(profile: Profile, name: str) -> Group:
    reader = profile.reader(name)
    return Group.load(reader.entries(PUBLIC_PREFIXES), reader, CONFIG)


def test_a_group_goes_on_after_every_step_from_what_the_profile_holds(profile: Profile) -> None:
    alice = create()
    bob = add(alice, b"bob")
    for step in range(6):
        store(profile, "alice", alice)
        store(profile, "bob", bob)
        alice, bob = load(profile, "alice"), load(profile, "bob")
        assert alice.epoch_authenticator == bob.epoch_authenticator
        if step % 2:
            pending = alice.commit(now=6)
            staged = bob.receive(pending.message.encode(), now=6)
            assert isinstance(staged, StagedCommit)
            alice.adopt(pending)
            bob.adopt(staged)
        else:
            received = alice.receive(bob.encrypt(b"text %d" % step).encode(), now=6)
            assert isinstance(received, ApplicationMessage)
            assert received.data == b"text %d" % step


def test_a_group_whose_transaction_failed_is_loaded_as_it_was_before(profile: Profile) -> None:
    alice = create()
    bob = add(alice, b"bob")
    store(profile, "alice", alice)
    message = bob.encrypt(b"text").encode()
    alice.receive(message, now=6)

    def fail() -> None:
        with profile.transaction() as transaction:
            transaction.apply("alice", alice.save())
            raise ZeroDivisionError

    try:
        fail()
    except ZeroDivisionError:
        alice = load(profile, "alice")
    received = alice.receive(message, now=6)
    assert isinstance(received, ApplicationMessage)
    assert received.data == b"text"


def test_the_entries_that_are_kept_without_keys_of_their_own_are_the_public_ones(
    profile: Profile,
) -> None:
    alice = create()
    add(alice, b"bob")
    store(profile, "alice", alice)
    rows = profile._database.run("SELECT key, slot IS NULL FROM entry")
    assert {key[:2] in PUBLIC_PREFIXES for key, plain in rows if plain} == {True}
    assert {key[:2] in PUBLIC_PREFIXES for key, plain in rows if not plain} == {False}
