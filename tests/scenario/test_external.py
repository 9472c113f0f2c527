"""From outside: joining by an external Commit, coming back, proposals by who is no member."""

from __future__ import annotations

import pytest

from coterie.errors import DecryptionError, EpochError, RuleViolation, StateError
from coterie.mls.credential import Credential
from coterie.mls.extension import Extension, ExternalSender, ExternalSenders
from coterie.mls.external import external_proposal, new_member_add
from coterie.mls.framing import MLSMessage
from coterie.mls.group import ExternalJoin, Group, OwnMessage
from coterie.mls.key_package import KeyPackageBundle
from coterie.mls.proposal import Proposal, Remove, Update
from coterie.mls.rules import Rule
from coterie.mls.tree_math import LeafIndex
from coterie.mls.types import ExtensionType
from tests.scenario.circle import CUSTOM, SUITE, Circle, Person


def enter(
    circle: Circle, person: Person, by: str = "alice", join: ExternalJoin | None = None
) -> MLSMessage:
    """Somebody joins by the GroupInfo of a member, and everybody else adopts the Commit."""
    info = MLSMessage.read(circle[by].group.group_info().encode())
    person.group, message = Group.join_external(
        info,
        person.key,
        person.credential,
        person.capabilities(),
        person.config,
        join=join or ExternalJoin(),
        now=circle.clock(),
    )
    circle.people.pop(person.name, None)
    circle.adopt(message)
    circle.people[person.name] = person
    return message


def test_somebody_joins_by_a_group_info() -> None:
    circle = Circle("alice", "bob")
    dave = circle.person("dave")
    message = enter(circle, dave)
    assert circle.agrees()
    assert circle["alice"].hears(dave.group.encrypt(b"here I am")) == b"here I am"
    assert isinstance(dave.group.receive(message.encode()), OwnMessage)


def test_the_tree_can_be_beside_the_group_info() -> None:
    circle = Circle("alice", "bob")
    dave, alice = circle.person("dave"), circle["alice"].group
    info = alice.group_info(tree=False)
    with pytest.raises(RuleViolation) as caught:
        Group.join_external(info, dave.key, dave.credential, dave.capabilities(), dave.config)
    assert caught.value.rule == Rule.TREE_MISSING
    group, message = Group.join_external(
        info, dave.key, dave.credential, dave.capabilities(), dave.config, tree=alice.tree.encode()
    )
    circle.adopt(message)
    assert group.epoch_authenticator == alice.epoch_authenticator


def test_a_group_info_without_external_pub_lets_nobody_in() -> None:
    circle = Circle("alice")
    dave = circle.person("dave")
    info = circle["alice"].group.group_info(external_pub=False)
    with pytest.raises(RuleViolation) as caught:
        Group.join_external(info, dave.key, dave.credential, dave.capabilities(), dave.config)
    assert caught.value.rule == Rule.EXTERNAL_PUB_MISSING


def test_an_external_joiner_proves_itself_by_a_shared_key() -> None:
    circle = Circle("alice", "bob")
    dave = circle.person("dave")
    for person in (*circle.people.values(), dave):
        person.psks[b"spoken"] = b"a good long secret"
    enter(circle, dave, join=ExternalJoin(psks=[circle["alice"].group.external_psk(b"spoken")]))
    assert circle.agrees()


def test_an_external_joiner_needs_the_key_that_it_names() -> None:
    circle = Circle("alice")
    dave = circle.person("dave")
    join = ExternalJoin(psks=[circle["alice"].group.external_psk(b"spoken")])
    with pytest.raises(DecryptionError) as caught:
        enter(circle, dave, join=join)
    assert caught.value.rule == Rule.PSK_UNKNOWN


def test_a_member_that_lost_its_state_comes_back_in_its_own_place() -> None:
    circle = Circle("alice", "bob", "carol")
    leaf = circle["bob"].group.own_leaf
    again = circle.person("bob")
    again.key = SUITE.generate_signature_key(circle["bob"].rng)
    enter(circle, again, join=ExternalJoin(remove=leaf))
    assert again.group.own_leaf == leaf
    assert circle.agrees()
    assert circle["carol"].hears(again.group.encrypt(b"back again")) == b"back again"


def test_only_who_comes_back_may_use_an_id_that_it_has() -> None:
    circle = Circle("alice", "bob")
    again = circle.person("bob")
    again.key = SUITE.generate_signature_key(circle["bob"].rng)
    info = circle["alice"].group.group_info()
    taken = frozenset({b"the circle"})
    mine = (again.key, again.credential, again.capabilities(), again.config)
    with pytest.raises(StateError) as caught:
        Group.join_external(info, *mine, groups=taken)
    assert caught.value.rule == Rule.GROUP_ID_UNIQUE
    back = ExternalJoin(remove=LeafIndex(1))
    group, _ = Group.join_external(info, *mine, groups=taken, join=back)
    assert group.own_leaf == 1


def test_an_external_commit_is_remembered_until_the_next_one() -> None:
    circle = Circle("alice", "bob")
    dave = circle.person("dave")
    enter(circle, dave)
    mine = b"o/%d/" % (dave.group.epoch - 1)
    assert any(key.startswith(mine) for key in dave.store.data)
    circle.commit("alice")
    assert not any(key.startswith(mine) for key in dave.store.data)


def test_an_external_commit_that_lost_its_race_is_dropped_with_its_group() -> None:
    circle = Circle("alice", "bob")
    dave = circle.person("dave")
    info = circle["alice"].group.group_info()
    mine = (dave.key, dave.credential, dave.capabilities(), dave.config)
    _, late = Group.join_external(info, *mine)
    circle.commit("bob")
    with pytest.raises(EpochError):
        circle["alice"].group.receive(late.encode())
    enter(circle, dave)
    assert circle.agrees()


def bundle_of(circle: Circle, name: str) -> tuple[Person, KeyPackageBundle]:
    person = circle.person(name)
    return person, person.bundle()


def test_a_client_proposes_to_add_itself() -> None:
    circle = Circle("alice", "bob")
    dave, bundle = bundle_of(circle, "dave")
    message = new_member_add(circle["alice"].group.context, bundle.key_package, dave.key)
    circle.tell(MLSMessage.read(message.encode()))
    pending = circle.commit("bob")
    assert pending.welcome is not None
    dave.group = Group.join(MLSMessage.read(pending.welcome.encode()), bundle, dave.config)
    circle.people["dave"] = dave
    assert circle.agrees()


def test_a_client_adds_only_its_own_key_package() -> None:
    circle = Circle("alice")
    dave, bundle = bundle_of(circle, "dave")
    with pytest.raises(StateError, match="signature key"):
        new_member_add(circle["alice"].group.context, bundle.key_package, circle["alice"].key)
    other = circle.person("eve")
    other.suite = Circle("frank", suite=3)["frank"].suite
    other.__post_init__()
    with pytest.raises(StateError, match="cipher suite"):
        new_member_add(circle["alice"].group.context, other.bundle().key_package, other.key)
    assert dave.key.public == bundle.key_package.leaf_node.signature_key


def with_outside() -> tuple[Circle, Person]:
    """A circle that lists an external sender."""
    circle = Circle("alice", "bob", "carol")
    outside = circle.person("the outside")
    listed = ExternalSenders((ExternalSender(outside.key.public, Credential.basic(b"outside")),))
    extension = Extension(ExtensionType.EXTERNAL_SENDERS, listed.encode())
    circle.tell(circle["alice"].group.propose_extensions([extension]), besides="alice")
    circle.commit("bob")
    return circle, outside


def test_a_listed_external_sender_has_a_member_removed() -> None:
    circle, outside = with_outside()
    remove = Proposal.of(Remove(circle["carol"].group.own_leaf))
    message = external_proposal(circle["alice"].group.context, remove, outside.key)
    circle.tell(MLSMessage.read(message.encode()))
    circle.commit("alice")
    assert list(circle.people) == ["alice", "bob"]
    assert circle.agrees()


def test_a_listed_external_sender_sends_a_custom_proposal_that_allows_it() -> None:
    circle, outside = with_outside()
    vote = Proposal.custom(CUSTOM, b"vote")
    circle.tell(external_proposal(circle["alice"].group.context, vote, outside.key))
    assert len(circle.commit("bob").commit.proposals) == 1
    assert circle.agrees()


def test_an_external_sender_may_not_update_and_must_be_listed() -> None:
    circle, outside = with_outside()
    context = circle["alice"].group.context
    leaf = circle["alice"].group.member(0).node
    with pytest.raises(StateError, match="may not propose update"):
        external_proposal(context, Proposal.of(Update(leaf)), outside.key)
    with pytest.raises(StateError, match="not among"):
        external_proposal(context, Proposal.of(Remove(LeafIndex(1))), circle["bob"].key)
