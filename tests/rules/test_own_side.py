"""A member does not make what others would refuse, and nothing has changed when it was asked to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from coterie.errors import (
    CoterieError,
    RuleViolation,
    StateError,
    UnsupportedError,
    VerificationError,
)
from coterie.interop.negative import EXTENSION, supported
from coterie.mls.credential import Credential
from coterie.mls.crypto import suite_of
from coterie.mls.extension import Capabilities, Extension, ExternalSender, ExternalSenders
from coterie.mls.framing import MLSMessage
from coterie.mls.group import CommitOptions, ExternalJoin, Group
from coterie.mls.group_context import GroupContext, PreSharedKeyID
from coterie.mls.key_package import create_key_package
from coterie.mls.leaf_node import Lifetime
from coterie.mls.proposal import (
    Add,
    ExternalInit,
    GroupContextExtensions,
    PreSharedKey,
    Proposal,
    ReInit,
    Remove,
)
from coterie.mls.rules import Rule
from coterie.mls.tree_math import LeafIndex
from coterie.mls.types import CipherSuite, ExtensionType, ProposalType, ProtocolVersion
from tests.rules.cases.after import announced, ended
from tests.rules.check import dump
from tests.rules.forging import key_package
from tests.rules.world import LIFETIME, NOW, World, config, load, make

Make = Callable[[World], Any]
UNSUPPORTED = Extension(ExtensionType(0xF0F0), b"")


@pytest.fixture(scope="module")
def world() -> World:
    return make()


def _add(world: World, name: str = "zoe", **leaf: Any) -> Add:
    return Add(key_package(world.suite, world.bundle(name), leaf=leaf))


BY_THEMSELVES: list[tuple[Rule, Make]] = [
    (Rule.REMOVE_BLANK, lambda _: Remove(LeafIndex(5))),
    (Rule.LEAF_LIFETIME, lambda w: _add(w, lifetime=Lifetime(NOW - 9, NOW - 1))),
    (Rule.PSK_NONCE, lambda _: PreSharedKey(PreSharedKeyID.external(b"shared", b""))),
    (Rule.LIST_EXTERNAL_INIT, lambda _: ExternalInit(b"")),
    (
        Rule.REINIT_VERSION,
        lambda w: ReInit(b"next", ProtocolVersion(0), CipherSuite(w.suite.cipher_suite), ()),
    ),
]
TOGETHER: list[tuple[Rule, Make]] = [
    (Rule.LIST_OWN_REMOVE, lambda _: [Remove(LeafIndex(0))]),
    (Rule.LIST_ONE_PER_LEAF, lambda _: [Remove(LeafIndex(2)), Remove(LeafIndex(2))]),
    (Rule.LIST_SAME_CLIENT, lambda w: [_add(w, "zoe#1"), _add(w, "zoe#2")]),
    (Rule.LIST_REINIT_ALONE, lambda w: [announced(w), Remove(LeafIndex(2))]),
    (Rule.LEAF_GROUP_EXTENSION, lambda _: [GroupContextExtensions((UNSUPPORTED,))]),
    (
        Rule.LEAF_GROUP_EXTENSION,
        lambda w: [_add(w, capabilities=w.capabilities.replace(extensions=()))],
    ),
    (Rule.PSK_UNKNOWN, lambda _: [PreSharedKey(PreSharedKeyID.external(b"what?", bytes(32)))]),
]


OWN_LEAF: list[tuple[Rule, Make]] = [
    (Rule.LEAF_EXTENSION_UNLISTED, lambda _: {"extensions": [UNSUPPORTED]}),
    (Rule.EXTENSION_DUPLICATE, lambda _: {"extensions": [Extension(EXTENSION, b"")] * 2}),
    (Rule.LEAF_VERSION, lambda w: {"capabilities": w.capabilities.replace(versions=())}),
    (Rule.LEAF_CIPHER_SUITE, lambda w: {"capabilities": w.capabilities.replace(cipher_suites=())}),
    (
        Rule.CAPABILITIES_DEFAULT,
        lambda w: {"capabilities": w.capabilities.replace(proposals=(ProposalType.ADD,))},
    ),
    (Rule.CREDENTIAL_SUCCESSOR, lambda _: {"credential": Credential.basic(b"bob")}),
]
"""What a member says of itself that others refuse in a path."""


def _rule_id(value: object) -> str | None:
    """The rule names the case; what makes it has no name that is the same in every process."""
    return str(value) if isinstance(value, Rule) else "case"


@pytest.mark.parametrize(("rule", "make_one"), BY_THEMSELVES, ids=_rule_id)
def test_a_member_proposes_nothing_invalid(world: World, rule: Rule, make_one: Make) -> None:
    alice = world.member("alice")
    before = dump(alice)
    with pytest.raises(CoterieError) as caught:
        alice.propose(Proposal.of(make_one(world)), now=NOW)
    assert caught.value.rule == rule
    assert dump(alice) == before


@pytest.mark.parametrize(("rule", "make_them"), TOGETHER, ids=_rule_id)
def test_a_member_commits_nothing_invalid(world: World, rule: Rule, make_them: Make) -> None:
    alice = world.member("alice")
    before = dump(alice)
    proposals = [Proposal.of(content) for content in make_them(world)]
    with pytest.raises(CoterieError) as caught:
        alice.commit(proposals, now=NOW)
    assert caught.value.rule == rule
    assert dump(alice) == before


@pytest.mark.parametrize(("rule", "make_leaf"), OWN_LEAF, ids=_rule_id)
def test_a_member_commits_no_leaf_that_others_refuse(
    world: World, rule: Rule, make_leaf: Make
) -> None:
    alice = world.member("alice")
    before = dump(alice)
    with pytest.raises(CoterieError) as caught:
        alice.commit(now=NOW, **make_leaf(world))
    assert caught.value.rule == rule
    assert dump(alice) == before


def test_an_add_without_a_path_is_checked_against_the_group(world: World) -> None:
    add = _add(world, capabilities=world.capabilities.replace(extensions=()))
    with pytest.raises(RuleViolation) as caught:
        world.member("alice").commit([Proposal.of(add)], now=NOW, options=CommitOptions(path=False))
    assert caught.value.rule == Rule.LEAF_GROUP_EXTENSION


def test_no_more_proposals_are_made_than_are_kept(world: World) -> None:
    alice = load(world.stores["alice"], config(world.rng, max_proposals=1))
    alice.propose(Proposal.of(Remove(LeafIndex(2))))
    before = dump(alice)
    with pytest.raises(RuleViolation) as caught:
        alice.propose(Proposal.of(Remove(LeafIndex(3))))
    assert caught.value.rule == Rule.PROPOSAL_COUNT
    assert dump(alice) == before


def test_what_waits_is_left_out_where_it_would_spoil_the_commit(world: World) -> None:
    forger, bob = world.forger(), world.member("bob")
    unfit = _add(world, "yan", capabilities=world.capabilities.replace(extensions=()))
    bob.receive(forger.propose(unfit).data, now=NOW)
    pending = bob.commit([Proposal.of(_add(world, "zoe"))], now=NOW)
    assert [member.credential.identity for member in pending.commit.added] == [b"zoe"]


def test_a_key_package_is_judged_against_the_group(world: World) -> None:
    package = _add(world, capabilities=world.capabilities.replace(extensions=())).key_package
    with pytest.raises(RuleViolation) as caught:
        world.member("alice").check_key_package(package, now=NOW)
    assert caught.value.rule == Rule.LEAF_GROUP_EXTENSION


def _create(
    world: World,
    *,
    group_id: bytes = b"new",
    capabilities: Capabilities | None = None,
    extensions: Sequence[Extension] = (),
    groups: frozenset[bytes] = frozenset(),
) -> Group:
    return Group.create(
        group_id,
        world.suite,
        world.key("zoe"),
        Credential.basic(b"zoe"),
        capabilities or world.capabilities,
        world.config,
        lifetime=LIFETIME,
        extensions=extensions,
        groups=groups,
    )


def test_a_group_is_not_created_with_extensions_that_its_creator_lacks(world: World) -> None:
    with pytest.raises(RuleViolation) as caught:
        _create(world, extensions=[UNSUPPORTED])
    assert caught.value.rule == Rule.EXTENSION_SUPPORT


def test_a_group_is_not_created_with_a_leaf_that_others_refuse(world: World) -> None:
    with pytest.raises(RuleViolation) as caught:
        _create(world, capabilities=world.capabilities.replace(cipher_suites=()))
    assert caught.value.rule == Rule.LEAF_CIPHER_SUITE


def test_a_group_is_not_created_under_an_id_that_its_creator_is_in_already(world: World) -> None:
    with pytest.raises(StateError):
        _create(world, group_id=b"new", groups=frozenset({b"new"}))


def test_nobody_joins_a_group_whose_extensions_it_lacks(world: World) -> None:
    info = MLSMessage.of(world.forger().group_info())
    with pytest.raises(RuleViolation) as caught:
        Group.join_external(
            info,
            world.key("zoe"),
            Credential.basic(b"zoe"),
            world.capabilities.replace(extensions=()),
            world.config,
            now=NOW,
        )
    assert caught.value.rule == Rule.LEAF_GROUP_EXTENSION


def _enter(
    world: World, name: str, own: Capabilities | None = None, remove: int | None = None
) -> Group:
    group, _ = Group.join_external(
        MLSMessage.of(world.forger().group_info()),
        world.key(name),
        Credential.basic(name.encode()),
        own or world.capabilities,
        world.config,
        join=ExternalJoin(remove=None if remove is None else LeafIndex(remove)),
        now=NOW,
    )
    return group


def test_nobody_joins_with_a_leaf_that_others_refuse(world: World) -> None:
    with pytest.raises(RuleViolation) as caught:
        _enter(world, "zoe", world.capabilities.replace(versions=()))
    assert caught.value.rule == Rule.LEAF_VERSION


def test_nobody_joins_under_a_name_that_nobody_vouches_for(world: World) -> None:
    with pytest.raises(VerificationError) as caught:
        _enter(world, "!zoe")
    assert caught.value.rule == Rule.CREDENTIAL


def test_nobody_takes_the_place_of_another_client(world: World) -> None:
    assert _enter(world, "bob#2", remove=1).member(1).credential.identity == b"bob#2"
    with pytest.raises(VerificationError) as caught:
        _enter(world, "zoe", remove=1)
    assert caught.value.rule == Rule.CREDENTIAL_SUCCESSOR


def test_a_branch_takes_no_strangers(world: World) -> None:
    package = world.bundle("zoe").key_package.validate(
        world.suite, world.config.authenticator, now=NOW
    )
    with pytest.raises(StateError):
        world.member("alice").branch(b"branch", [package], lifetime=LIFETIME, now=NOW)


def test_a_reinit_to_a_version_that_is_not_spoken_begins_no_group(world: World) -> None:
    later = announced(world).replace(version=ProtocolVersion(2))
    alice = world.adopted(Proposal.of(later)).member("alice")
    with pytest.raises(UnsupportedError):
        alice.reinit([], lifetime=LIFETIME, now=NOW)


def test_a_reinit_leaves_no_member_behind(world: World) -> None:
    over = ended(world)
    package = over.bundle("bob").key_package.validate(
        over.suite, over.config.authenticator, now=NOW
    )
    with pytest.raises(StateError):
        over.member("alice").reinit([package], lifetime=LIFETIME, now=NOW)


OVER: dict[str, Callable[[Group, World], object]] = {
    "encrypt": lambda group, _: group.encrypt(b"hello"),
    "propose": lambda group, _: group.propose(Proposal.of(Remove(LeafIndex(2)))),
    "commit": lambda group, _: group.commit(),
    "branch": lambda group, _: group.branch(b"branch", [], lifetime=LIFETIME, now=NOW),
    "group_info": lambda group, _: group.group_info(),
}


@pytest.mark.parametrize("what", OVER)
def test_nothing_is_made_in_a_group_that_is_over(world: World, what: str) -> None:
    alice = ended(world).member("alice")
    before = dump(alice)
    with pytest.raises(StateError, match="reinitialised"):
        OVER[what](alice, world)
    assert dump(alice) == before


def test_nobody_is_added_by_who_does_not_know_the_time(world: World) -> None:
    alice, add = world.member("alice"), Proposal.of(_add(world))
    for make_it in (lambda: alice.propose(add), lambda: alice.commit([add])):
        before = dump(alice)
        with pytest.raises(StateError, match="give the time"):
            make_it()
        assert dump(alice) == before


class NoRemoves:
    """A group's own rule: nobody is removed."""

    def check_commit(
        self, before: GroupContext, tree: Any, committer: int | None, proposals: Any
    ) -> None:
        if proposals.removes:
            raise RuleViolation("nobody may be removed", rule="test/no-removes", leaf=committer)


def test_a_key_package_that_has_expired_since_it_was_validated_is_not_committed(
    world: World,
) -> None:
    package = _add(world, lifetime=Lifetime(NOW - 9, NOW)).key_package
    verified = package.validate(world.suite, world.config.authenticator, now=NOW)
    alice = world.member("alice")
    before = dump(alice)
    with pytest.raises(RuleViolation) as caught:
        alice.commit([verified], now=NOW + 1)
    assert caught.value.rule == Rule.LEAF_LIFETIME
    assert dump(alice) == before
    assert alice.commit([verified], now=NOW).commit.added


def test_a_key_package_that_was_validated_for_another_suite_is_not_committed(world: World) -> None:
    other = suite_of(3)
    assert other.hpke.kem is world.suite.hpke.kem, "others are found out when the Welcome is sealed"
    bundle = create_key_package(
        other,
        other.generate_signature_key(world.rng),
        Credential.basic(b"zoe"),
        supported(other),
        LIFETIME,
        rng=world.rng,
    )
    verified = bundle.key_package.validate(other, world.config.authenticator, now=NOW)
    with pytest.raises(RuleViolation) as caught:
        world.member("alice").commit([verified], now=NOW)
    assert caught.value.rule == Rule.KEY_PACKAGE_CIPHER_SUITE


def test_a_group_is_not_created_with_external_senders_that_nobody_vouches_for(
    world: World,
) -> None:
    senders = ExternalSenders((ExternalSender(world.key("yan").public, Credential.basic(b"!yan")),))
    with pytest.raises(VerificationError) as caught:
        _create(world, extensions=[Extension(ExtensionType.EXTERNAL_SENDERS, senders.encode())])
    assert caught.value.rule == Rule.CREDENTIAL


def test_a_group_is_not_created_with_an_extension_of_a_grease_type(world: World) -> None:
    kind = ExtensionType(0x0A0A)
    listing = world.capabilities.replace(extensions=(*world.capabilities.extensions, kind))
    with pytest.raises(RuleViolation) as caught:
        _create(world, capabilities=listing, extensions=[Extension(kind, b"")])
    assert caught.value.rule == Rule.EXTENSION_SUPPORT


def test_who_was_removed_signs_nothing_more(world: World) -> None:
    alice, bob = world.member("alice"), world.member("bob")
    pending = alice.commit([Proposal.of(Remove(LeafIndex(1)))], now=NOW)
    assert bob.sign("label", b"content")
    bob.adopt(bob.receive(pending.message))  # type: ignore[arg-type]
    with pytest.raises(StateError, match="removed"):
        bob.sign("label", b"content")


def test_the_rules_that_a_group_agreed_on_are_enforced(world: World) -> None:
    how = world.config
    strict = type(how)(**{**{f: getattr(how, f) for f in how.__slots__}, "rules": NoRemoves()})
    bob = load(world.stores["bob"], strict)
    with pytest.raises(RuleViolation) as caught:
        bob.receive(world.forger().commit([Remove(LeafIndex(3))]).data, now=NOW)
    assert caught.value.rule == "test/no-removes"
