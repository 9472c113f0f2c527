"""Groups that continue another one: all of it in a new group (§11.2), or a part of it beside it (§11.3)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coterie.errors import DecryptionError, RuleViolation, StateError
from coterie.mls.extension import Extension
from coterie.mls.framing import MLSMessage
from coterie.mls.group import Group, PendingCommit
from coterie.mls.key_package import KeyPackageBundle
from coterie.mls.proposal import Add, PreSharedKey, Proposal, ReInit
from coterie.mls.rules import Rule
from coterie.mls.types import (
    CipherSuite,
    ExtensionType,
    ProtocolVersion,
    ResumptionPSKUsage,
)
from tests.scenario.circle import NAME, Circle, Person

AFTER = (Extension(ExtensionType(NAME), b"the circle, again"),)


def ended(suite: int = 1) -> Circle:
    """A circle that has adopted a ReInit."""
    circle = Circle("alice", "bob", "carol")
    reinit = ReInit(b"again", ProtocolVersion.MLS10, CipherSuite(suite), AFTER)
    circle.tell(circle["carol"].group.propose_reinit(reinit), besides="carol")
    circle.commit("bob")
    return circle


def others(circle: Circle, by: str) -> list[tuple[Person, KeyPackageBundle]]:
    return [(p, p.bundle()) for name, p in circle.people.items() if name != by]


def join(old: Group, person: Person, bundle: KeyPackageBundle, commit: PendingCommit) -> Group:
    assert commit.welcome is not None
    welcome = MLSMessage.read(commit.welcome.encode())
    return Group.join(welcome, bundle, person.config, continues=old)


@pytest.mark.parametrize("suite", [1, 2, 7])
def test_any_member_continues_a_reinitialised_group_in_the_announced_suite(suite: int) -> None:
    circle = ended(suite)
    old = {name: person.group for name, person in circle.people.items()}
    if suite != 1:
        new_suite = Circle("x", suite=suite).suite
        for person in circle.people.values():
            person.suite, person.key = new_suite, new_suite.generate_signature_key(person.rng)
    alice = circle["alice"]
    rest = others(circle, "alice")
    group, commit = old["alice"].reinit(
        [person.verified(bundle) for person, bundle in rest],
        lifetime=alice.lifetime,
        now=circle.clock(),
        signature_key=alice.key,
        capabilities=alice.capabilities(),
    )
    for person, bundle in rest:
        person.group = join(old[person.name], person, bundle, commit)
    alice.group = group
    assert circle.agrees()
    assert (group.group_id, group.epoch, group.context.extensions) == (b"again", 1, AFTER)
    assert group.suite.cipher_suite == suite
    assert circle["bob"].hears(group.encrypt(b"anew")) == b"anew"


def test_nothing_is_sent_in_a_group_that_was_reinitialised() -> None:
    alice = ended()["alice"].group
    assert alice.reinitialized is not None
    assert not alice.is_active
    for attempt in (
        lambda: alice.encrypt(b"?"),
        alice.propose_update,
        alice.commit,
        alice.group_info,
    ):
        with pytest.raises(StateError, match="reinitialised"):
            attempt()


def test_what_was_said_before_a_reinit_is_read_after_it() -> None:
    circle = Circle("alice", "bob")
    late = circle["bob"].group.encrypt(b"just before")
    reinit = Proposal.of(ReInit(b"again", ProtocolVersion.MLS10, CipherSuite(1), ()))
    circle.commit("alice", [reinit])
    assert circle["alice"].hears(late) == b"just before"


def test_a_reinit_needs_all_members_and_nobody_else() -> None:
    circle = ended()
    alice = circle["alice"]
    bob, carol = (circle[name].verified(circle[name].bundle()) for name in ("bob", "carol"))
    stranger = circle.person("mallory")
    wrong = [[bob], [bob, carol, stranger.verified(stranger.bundle())]]
    for packages in wrong:
        with pytest.raises(StateError):
            alice.group.reinit(packages, lifetime=alice.lifetime, now=circle.clock())


def test_a_group_that_was_not_reinitialised_is_not_continued() -> None:
    circle = Circle("alice")
    with pytest.raises(StateError, match="commit a ReInit"):
        circle["alice"].group.reinit([], lifetime=circle["alice"].lifetime, now=circle.clock())


@pytest.mark.parametrize("field", ["group_id", "extensions"])
def test_a_successor_that_differs_from_the_announcement_is_refused(field: str) -> None:
    circle = ended()
    alice, old = circle["alice"], circle["bob"].group
    changed = {"group_id": b"elsewhere"} if field == "group_id" else {"extensions": ()}
    announced = alice.group._epoch.reinit
    assert announced is not None
    object.__setattr__(alice.group._epoch, "reinit", announced.replace(**changed))
    rest = others(circle, "alice")
    _, commit = alice.group.reinit(
        [person.verified(bundle) for person, bundle in rest],
        lifetime=alice.lifetime,
        now=circle.clock(),
    )
    bundle = next(bundle for person, bundle in rest if person.name == "bob")
    with pytest.raises(RuleViolation) as caught:
        join(old, circle["bob"], bundle, commit)
    assert caught.value.rule == Rule.REINIT_CONTEXT


def test_some_members_branch_off_and_the_group_goes_on() -> None:
    circle = Circle("alice", "bob", "carol")
    alice, bob = circle["alice"], circle["bob"]
    bundle = bob.bundle()
    branch, commit = alice.group.branch(
        b"in private", [bob.verified(bundle)], lifetime=alice.lifetime, now=circle.clock(),
        extensions=AFTER,
    )  # fmt: skip
    joined = join(bob.group, bob, bundle, commit)
    assert joined.epoch_authenticator == branch.epoch_authenticator
    secret = branch.encrypt(b"between us").encode()
    assert joined.receive(secret).data == b"between us"  # type: ignore[union-attr]
    with pytest.raises(RuleViolation):
        circle["carol"].group.receive(secret)
    circle.commit("carol")
    assert circle.agrees()


def test_a_branch_has_members_of_its_group_only_and_an_id_of_its_own() -> None:
    circle = Circle("alice", "bob")
    alice, stranger = circle["alice"], circle.person("mallory")
    bob = circle["bob"].verified(circle["bob"].bundle())
    package = stranger.verified(stranger.bundle())
    with pytest.raises(StateError, match="not another member"):
        alice.group.branch(b"x", [bob, package], lifetime=alice.lifetime, now=circle.clock())
    with pytest.raises(StateError, match="id of its own"):
        alice.group.branch(b"the circle", [bob], lifetime=alice.lifetime, now=circle.clock())


def test_who_joins_a_branch_must_be_in_the_group_it_comes_from() -> None:
    circle = Circle("alice", "bob")
    alice, bob = circle["alice"], circle["bob"]
    bundle = bob.bundle()
    _, commit = alice.group.branch(
        b"x", [bob.verified(bundle)], lifetime=alice.lifetime, now=circle.clock()
    )
    assert commit.welcome is not None
    welcome = MLSMessage.read(commit.welcome.encode())
    with pytest.raises(StateError, match="give that group"):
        Group.join(welcome, bundle, bob.config)
    knowing = replace(bob.config, psk=lambda psk: bob.group.resumption_psk(psk.psk_epoch or 0))
    with pytest.raises(StateError, match="give that group"):
        Group.join(welcome, bundle, knowing)
    with pytest.raises(DecryptionError):
        Group.join(
            welcome, bundle, bob.config, continues=Circle("alice", "dave", "bob")["bob"].group
        )
    assert Group.join(welcome, bundle, bob.config, continues=bob.group).epoch == 1


def test_a_welcome_that_continues_nothing_is_refused_where_a_group_is_given() -> None:
    circle = Circle("alice", "bob")
    other, bob = Circle("alice"), circle["bob"]
    bundle = bob.bundle()
    commit = other["alice"].group.commit([Proposal.of(Add(bundle.key_package))], now=circle.clock())
    with pytest.raises(RuleViolation) as caught:
        join(bob.group, bob, bundle, commit)
    assert caught.value.rule == Rule.REINIT_PSK


@pytest.mark.parametrize("usage", [ResumptionPSKUsage.REINIT, ResumptionPSKUsage.BRANCH])
def test_the_keys_of_reinit_and_branch_are_good_for_nothing_else(usage: ResumptionPSKUsage) -> None:
    alice = Circle("alice", "bob")["alice"].group
    psk = alice.application_psk(alice.epoch).replace(usage=usage)
    with pytest.raises(RuleViolation) as caught:
        alice.commit([Proposal.of(PreSharedKey(psk))])
    assert caught.value.rule == Rule.PSK_USAGE
