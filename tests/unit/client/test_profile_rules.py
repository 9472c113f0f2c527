"""What a group's rules allow in a Commit, each refusal by itself; what stands just inside of a rule is allowed."""

from __future__ import annotations

import os
from typing import Any

import pytest

from coterie.client.content import (
    BINDING_EXTENSION,
    MAX_NAME,
    GroupProfile,
    ProfileRules,
    WhoMay,
    read_binding,
    read_profile,
)
from coterie.errors import DecodeError, RuleViolation
from coterie.mls.credential import Credential
from coterie.mls.crypto import suite_of
from coterie.mls.extension import Extension, capabilities
from coterie.mls.group_context import GroupContext
from coterie.mls.key_package import create_key_package
from coterie.mls.leaf_node import Lifetime
from coterie.mls.proposal import Add, GroupContextExtensions, Proposal, ReInit, Remove
from coterie.mls.ratchet_tree import RatchetTree
from coterie.mls.tree_math import LeafIndex
from coterie.mls.types import CipherSuite, ProtocolVersion, Sender, SenderType
from coterie.mls.validation import CommittedProposal, ProposalList
from coterie.transport import api

SUITE = suite_of(1)
ALICE, BOB, CAROL, BOBS_PHONE = range(4)
PROFILE = GroupProfile(b"Friends", (b"alice",))
RECEIPT = api.Receipt(bytes(32), 1, bytes(32), bytes(32), bytes(64))
BINDING = api.DeliveryBinding(
    api.DeliveryVersion.COTERIE1, b"https://service", b"k" * 32, b"l" * 32, 1000
)
FOLLOWS = api.Predecessor(api.PredecessorType.REINIT, b"group", b"l" * 32, bytes(32), RECEIPT)
NEXT = BINDING.replace(log_id=b"n" * 32, predecessor=FOLLOWS)


class Names:
    """Identities are `user#device`."""

    def user_of(self, tree: RatchetTree, leaf: int) -> str:
        node = tree.leaf(leaf)
        assert node is not None
        return self.user_of_credential(node.credential)

    def user_of_credential(self, credential: Credential) -> str:
        return credential.identity.split(b"#")[0].decode()

    def client_id(self, credential: Credential) -> bytes:
        return credential.identity


def add(identity: str) -> Add:
    """The Add of a device."""
    bundle = create_key_package(
        SUITE,
        SUITE.generate_signature_key(os.urandom),
        Credential.basic(identity.encode()),
        capabilities(cipher_suites=[1]),
        Lifetime(0, 1),
        rng=os.urandom,
    )
    return Add(bundle.key_package)


LEAVES = [add(name).key_package.leaf_node for name in ("alice#1", "bob#1", "carol#1", "bob#2")]
TREE = RatchetTree.of_one(SUITE, LEAVES[0]).with_added(LEAVES[1:])[0]


def extensions(
    profile: GroupProfile = PROFILE, binding: api.DeliveryBinding = BINDING
) -> tuple[Extension, ...]:
    """A GroupContext's."""
    return profile.extension(), Extension(BINDING_EXTENSION, binding.encode())


def change(
    profile: GroupProfile = PROFILE, binding: api.DeliveryBinding = BINDING
) -> GroupContextExtensions:
    """A change of them."""
    return GroupContextExtensions(extensions(profile, binding))


def reinit(
    binding: api.DeliveryBinding = NEXT, profile: GroupProfile = PROFILE, **fields: Any
) -> ReInit:
    """The announcement of another group."""
    bare = ReInit(
        b"next".ljust(32), ProtocolVersion.MLS10, CipherSuite(1), extensions(profile, binding)
    )
    return bare.replace(**fields)


def judge(
    by: int | None, *contents: Any, profile: GroupProfile = PROFILE, committer: int | None = ALICE
) -> None:
    """Judges a Commit with proposals by one member, or by nobody in the group."""
    sender = Sender(SenderType.NEW_MEMBER_PROPOSAL)
    if by is not None:
        sender = Sender(SenderType.MEMBER, LeafIndex(by))
    found = ProposalList(
        all=tuple(CommittedProposal(Proposal.of(content), sender) for content in contents),
        extensions=None,
        updates={},
        removes=tuple(content.removed for content in contents if isinstance(content, Remove)),
        adds=tuple((content, False) for content in contents if isinstance(content, Add)),
        psks=(),
        reinit=None,
        external_init=None,
        custom=(),
    )
    context = GroupContext(
        ProtocolVersion.MLS10, CipherSuite(1), b"group", 1, b"", b"", extensions(profile)
    )
    ProfileRules(Names()).check_commit(context, TREE, committer, found)


EVERYBODY = {"may_add": WhoMay.MEMBERS, "may_remove": WhoMay.MEMBERS}
LONG = b"n" * (MAX_NAME + 1)

REFUSED: list[tuple[str, int | None, list[Any]]] = [
    ("outside-proposal", None, [add("dave#1")]),
    ("may-add", BOB, [add("dave#1")]),
    ("may-add", BOB, [add("carol#2")]),
    ("may-add", BOB, [Remove(LeafIndex(BOBS_PHONE)), add("carol#2")]),
    ("may-remove", BOB, [Remove(LeafIndex(CAROL))]),
    ("binding", ALICE, [change(binding=BINDING.replace(log_id=bytes(32)))]),
    ("binding", ALICE, [change(binding=BINDING.replace(retention=1001))]),
    ("binding", ALICE, [change(binding=BINDING.replace(receipt_key=b"r" * 32))]),
    ("binding", ALICE, [change(binding=BINDING.replace(predecessor=FOLLOWS))]),
    ("name-length", ALICE, [change(PROFILE.replace(name=LONG))]),
    ("no-admin", ALICE, [change(PROFILE.replace(admins=()))]),
    ("may-change", BOB, [change(PROFILE.replace(admins=(b"bob",)))]),
    ("may-change", BOB, [change(PROFILE.replace(name=b"x", may_add=WhoMay.MEMBERS))]),
    ("may-change", BOB, [change(binding=BINDING.replace(service=b"elsewhere"))]),
    ("may-reinit", BOB, [reinit()]),
    ("reinit-origin", ALICE, [reinit(NEXT.replace(predecessor=None))]),
    *(
        ("reinit-origin", ALICE, [reinit(NEXT.replace(predecessor=FOLLOWS.replace(**changed)))])
        for changed in (
            {"predecessor_type": api.PredecessorType.REFORM},
            {"group_id": b"another"},
            {"log_id": bytes(32)},
        )
    ),
    ("reinit-new", ALICE, [reinit(group_id=b"group")]),
    ("reinit-id", ALICE, [reinit(group_id=b"next")]),
    ("reinit-new", ALICE, [reinit(NEXT.replace(log_id=BINDING.log_id))]),
    ("reinit-service", ALICE, [reinit(NEXT.replace(service=b"elsewhere"))]),
    ("reinit-service", ALICE, [reinit(NEXT.replace(receipt_key=bytes(32)))]),
    ("name-length", ALICE, [reinit(profile=PROFILE.replace(name=LONG))]),
    ("reinit-suite", ALICE, [reinit(cipher_suite=CipherSuite(3))]),
]

ALLOWED: list[tuple[int, list[Any]]] = [
    (ALICE, [add("dave#1"), Remove(LeafIndex(CAROL))]),
    (BOB, [add("bob#3")]),
    (BOB, [Remove(LeafIndex(BOBS_PHONE))]),
    (BOB, [Remove(LeafIndex(CAROL)), add("carol#1")]),
    (ALICE, [change(PROFILE.replace(admins=(b"bob",)))]),
    (ALICE, [change(PROFILE.replace(name=LONG[1:]))]),
    (BOB, [change(PROFILE.replace(name=b"Best friends"))]),
    (ALICE, [change(binding=BINDING.replace(service=b"elsewhere"))]),
    (ALICE, [reinit()]),
    (ALICE, [reinit(profile=PROFILE.replace(name=LONG[1:]))]),
]


@pytest.mark.parametrize(
    ("slug", "by", "contents"), REFUSED, ids=[f"{n}-{case[0]}" for n, case in enumerate(REFUSED)]
)
def test_what_is_not_allowed_is_refused_by_its_rule(
    slug: str, by: int | None, contents: list[Any]
) -> None:
    with pytest.raises(RuleViolation) as caught:
        judge(by, *contents)
    assert caught.value.rule == f"profile/{slug}"


@pytest.mark.parametrize(("by", "contents"), ALLOWED, ids=map(str, range(len(ALLOWED))))
def test_what_stands_inside_of_the_rules_is_allowed(by: int, contents: list[Any]) -> None:
    judge(by, *contents)


def test_nobody_comes_in_by_an_external_commit() -> None:
    with pytest.raises(RuleViolation) as caught:
        judge(ALICE, committer=None)
    assert caught.value.rule == "profile/external-commit"
    judge(ALICE)


def test_members_may_what_the_rules_say_and_everybody_may_where_no_administrator_is_left() -> None:
    contents = (add("dave#1"), Remove(LeafIndex(CAROL)))
    judge(BOB, *contents, profile=PROFILE.replace(**EVERYBODY))
    judge(BOB, *contents, profile=PROFILE.replace(admins=(b"zoe",)))
    renamed = change(PROFILE.replace(name=b"Best friends", may_rename=WhoMay.ADMINS))
    with pytest.raises(RuleViolation) as caught:
        judge(BOB, renamed, profile=PROFILE.replace(may_rename=WhoMay.ADMINS))
    assert caught.value.rule == "profile/may-change"


def test_a_group_without_profile_or_binding_is_none_of_the_clients() -> None:
    profile, binding = extensions()
    with pytest.raises(DecodeError) as caught:
        read_profile((binding,))
    assert caught.value.rule == "profile/missing"
    with pytest.raises(DecodeError) as caught:
        read_binding((profile,))
    assert caught.value.rule == "D-ACC-9"
    assert (read_profile((binding, profile)), read_binding((profile, binding))) == (
        PROFILE,
        BINDING,
    )
