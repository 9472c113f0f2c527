"""Many members added at once: key packages verified together, and work that is linear in their number."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from bench.shapes import NOW, build
from coterie.errors import RuleViolation, VerificationError
from coterie.mls.group import CommitOptions, Group, StagedCommit
from coterie.mls.key_package import KeyPackage, KeyPackageBundle, validate_all
from coterie.mls.proposal import Add, Proposal
from coterie.mls.rules import Rule
from coterie.testing.counting import count_operations

SHAPE = build(2, "warm")
SUITE, AUTHENTICATOR = SHAPE.suite, SHAPE.config.authenticator
BESIDE = CommitOptions(tree_inside=False)


def newcomers(count: int) -> list[KeyPackageBundle]:
    return [SHAPE.bundle(b"newcomer %d" % number) for number in range(count)]


def packages(bundles: Iterable[KeyPackageBundle]) -> list[KeyPackage]:
    return [bundle.key_package for bundle in bundles]


def test_validated_key_packages_are_added_without_validating_them_again() -> None:
    bundles = newcomers(5)
    verified = validate_all(packages(bundles), SUITE, AUTHENTICATOR, now=NOW)
    adder, member = SHAPE.member(0), SHAPE.member(1)
    with count_operations() as counts:
        pending = adder.commit(verified, now=NOW, options=BESIDE)
    assert counts["verify"] == 0
    staged = member.receive(pending.message.encode(), now=NOW)
    assert isinstance(staged, StagedCommit)
    assert [added.credential for added in staged.added] == [
        bundle.key_package.leaf_node.credential for bundle in bundles
    ]
    member.adopt(staged)
    adder.adopt(pending)
    assert pending.welcome is not None
    tree = adder.tree.encode()
    joined = [Group.join(pending.welcome, b, SHAPE.config, tree=tree) for b in bundles]
    assert {g.epoch_authenticator for g in (adder, member, *joined)} == {adder.epoch_authenticator}


def spoil(package: KeyPackage, field: str) -> KeyPackage:
    if field == "signature":
        return package.replace(signature=bytes(64))
    leaf = package.leaf_node.replace(signature=bytes(64))
    return package.replace(leaf_node=leaf)


@pytest.mark.parametrize(
    ("field", "rule"),
    [("signature", Rule.KEY_PACKAGE_SIGNATURE), ("leaf_node", Rule.LEAF_SIGNATURE)],
)
def test_one_bad_signature_among_many_is_found(field: str, rule: str) -> None:
    many = packages(newcomers(70))
    many[66] = spoil(many[66], field)
    with pytest.raises(VerificationError, match="66") as refused:
        validate_all(many, SUITE, AUTHENTICATOR, now=NOW)
    assert refused.value.rule == rule
    adds = [Proposal.of(Add(package)) for package in many]
    with pytest.raises(VerificationError) as refused:
        SHAPE.member(0).commit(adds, now=NOW, options=BESIDE)
    assert refused.value.rule == rule


def test_one_expired_key_package_among_many_is_found() -> None:
    with pytest.raises(RuleViolation) as refused:
        validate_all(packages(newcomers(3)), SUITE, AUTHENTICATOR, now=1 << 40)
    assert refused.value.rule == Rule.LEAF_LIFETIME


def test_signatures_of_many_adds_are_verified_by_the_executor_that_was_given() -> None:
    batches = 0
    adds = [Proposal.of(Add(package)) for package in packages(newcomers(130))]
    message = SHAPE.member(0).commit(adds, now=NOW, options=BESIDE).message.encode()
    with ThreadPoolExecutor(2) as pool:

        def run(function: Callable[[Any], Any], jobs: Iterable[Any]) -> Iterable[Any]:
            def counted(job: object) -> object:
                nonlocal batches
                batches += 1
                return function(job)

            return pool.map(counted, jobs)

        member = SHAPE.member(1, replace(SHAPE.config, run=run))
        staged = member.receive(message, now=NOW)
    assert isinstance(staged, StagedCommit)
    assert len(staged.added) == 130
    assert batches == 2 * 3


def test_the_operations_of_a_bulk_add_are_linear_in_the_members() -> None:
    found = []
    for count in (100, 200):
        verified = validate_all(packages(newcomers(count)), SUITE, AUTHENTICATOR, now=NOW)
        with count_operations() as counts:
            SHAPE.member(0).commit(verified, now=NOW, options=BESIDE)
        found.append(counts)
    assert found[1]["hpke seal"] - found[0]["hpke seal"] == 100
    # Each newcomer: the reference of its key package, its leaf, and as many parents in all.
    assert found[1]["hash"] - found[0]["hash"] <= 3 * 100 + 2 * 128
    assert found[1]["kdf"] - found[0]["kdf"] <= 10
    assert found[1]["sign"] == found[0]["sign"] == 3
