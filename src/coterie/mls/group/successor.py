"""Groups that continue another one: what their creator and who joins must check (RFC 9420 §11.2, §11.3)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from coterie.errors import RuleViolation, StateError
from coterie.mls.credential import Authenticator
from coterie.mls.crypto import Suite
from coterie.mls.extension import Extension
from coterie.mls.group.epoch import Epoch
from coterie.mls.group.member import Membership
from coterie.mls.group.welcoming import OpenedWelcome
from coterie.mls.group_context import PreSharedKeyID
from coterie.mls.key_package import VerifiedKeyPackage
from coterie.mls.leaf_node import Lifetime
from coterie.mls.ratchet_tree import RatchetTree
from coterie.mls.rules import Rule
from coterie.mls.types import ResumptionPSKUsage


@dataclass(frozen=True, slots=True)
class Succession:
    """What a group that continues another one shall be."""

    group_id: bytes
    suite: Suite
    extensions: tuple[Extension, ...]
    usage: ResumptionPSKUsage
    lifetime: Lifetime


def check_members(
    old: Membership,
    packages: Iterable[VerifiedKeyPackage],
    authenticator: Authenticator,
    *,
    all_of_them: bool,
) -> None:
    """Raises `StateError` unless the key packages are of members of the old group, or of all others in it."""
    given = {authenticator.client_id(p.key_package.leaf_node.credential) for p in packages}
    own = authenticator.client_id(old.member(old.own_leaf).credential)
    members = _clients(old.tree, authenticator)
    if not given <= members - {own}:
        msg = "a key package is of somebody who is not another member of the group"
        raise StateError(msg)
    missing = len(members) - 1 - len(given)
    if all_of_them and missing:
        msg = f"key packages of {missing} members are missing: all must be in the new group"
        raise StateError(msg)


def check_continuing(
    opened: OpenedWelcome, new: Epoch, old: Membership | None, authenticator: Authenticator
) -> None:
    """Raises `RuleViolation` unless a group that continues another one is what it should be.

    `old` is the group that it is said to continue; raises `StateError` where it is needed and not given.
    """
    link = opened.continuing()
    if link is None:
        if old is not None:
            msg = "the Welcome does not continue the group that was given"
            raise RuleViolation(msg, rule=Rule.REINIT_PSK)
        return
    if old is None:
        msg = f"the group continues {(link.psk_group_id or b'').hex()}: give that group to join it"
        raise StateError(msg)
    if link.psk_group_id != old.group_id:
        msg = f"the Welcome continues {(link.psk_group_id or b'').hex()}, another group than was given"
        raise RuleViolation(msg, rule=Rule.REINIT_PSK)
    if new.number != 1:
        msg = f"a group that continues another one is joined at epoch 1, not {new.number}"
        raise RuleViolation(msg, rule=Rule.SUCCESSOR_EPOCH)
    if link.usage == ResumptionPSKUsage.REINIT:
        _check_reinit(link, new, old, authenticator)
    else:
        _check_branch(new, old, authenticator)


def _check_reinit(
    link: PreSharedKeyID, new: Epoch, old: Membership, authenticator: Authenticator
) -> None:
    announced, context = old.reinitialized, new.context
    if announced is None or link.psk_epoch != old.epoch:
        msg = "the Welcome's resumption key is not that of the epoch that ended with a ReInit"
        raise RuleViolation(msg, rule=Rule.REINIT_PSK)
    same = (
        context.group_id == announced.group_id
        and int(context.version) == announced.version
        and context.cipher_suite == announced.cipher_suite
        and context.extensions == announced.extensions
    )
    if not same:
        msg = "the new group does not have the parameters that the ReInit announced"
        raise RuleViolation(msg, rule=Rule.REINIT_CONTEXT)
    if not _clients(old.tree, authenticator) <= _clients(new.tree, authenticator):
        msg = "not all members of the old group are in the new one"
        raise RuleViolation(msg, rule=Rule.REINIT_MEMBERS)


def _check_branch(new: Epoch, old: Membership, authenticator: Authenticator) -> None:
    context = new.context
    if (
        int(context.version) != old.context.version
        or context.cipher_suite != old.context.cipher_suite
    ):
        msg = "a branch must have the version and cipher suite of the group it comes from"
        raise RuleViolation(msg, rule=Rule.BRANCH_SUITE)
    if not _clients(new.tree, authenticator) <= _clients(old.tree, authenticator):
        msg = "a branch has a member that is not in the group it comes from"
        raise RuleViolation(msg, rule=Rule.BRANCH_MEMBERS)


def _clients(tree: RatchetTree, authenticator: Authenticator) -> set[bytes]:
    return {authenticator.client_id(leaf.credential) for _, leaf in tree.members()}
