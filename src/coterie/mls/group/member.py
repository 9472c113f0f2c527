"""What one member has of a group, to be looked at: the base of `Group`, whose methods change it.

Apart so that what judges a group as a whole (the checks of groups that continue it) needs nothing of what acts on it.
"""

from __future__ import annotations

from collections.abc import Iterator

from coterie.errors import StateError
from coterie.mls.crypto import Suite
from coterie.mls.framing import MLSMessage
from coterie.mls.group.config import Config
from coterie.mls.group.epoch import Epoch
from coterie.mls.group.past import KeyRing
from coterie.mls.group.pending import ProposalCache
from coterie.mls.group.receiving import Opener
from coterie.mls.group.results import PendingCommit, SecretHeld
from coterie.mls.group.saving import Saver
from coterie.mls.group.welcoming import group_info
from coterie.mls.group_context import GroupContext
from coterie.mls.key_package import KeyPackage, VerifiedKeyPackage
from coterie.mls.key_schedule import exported_secret
from coterie.mls.proposal import ReInit
from coterie.mls.public_group import Member
from coterie.mls.ratchet_tree import RatchetTree
from coterie.mls.secret import Secret
from coterie.mls.secret_tree import SecretTree
from coterie.mls.tree_index import TreeIndex
from coterie.mls.tree_math import LeafIndex
from coterie.mls.validation import CommittedProposal, check_key_package


class Membership:
    """One member's state in one group."""

    def __init__(
        self, epoch: Epoch, secret_tree: SecretTree, index: TreeIndex, config: Config
    ) -> None:
        """For `create`, `join` and `load`; use those."""
        self._epoch = epoch
        self._index = index
        self._config = config
        self._keys = KeyRing(epoch, secret_tree, config.limits)
        self._proposals = ProposalCache(config.limits.max_proposals)
        self._pending: PendingCommit | None = None
        self._closed: str | None = None
        self._opener = Opener(self._keys, config)
        self._saver = Saver()
        self._welcomed_by: LeafIndex | None = None

    def __repr__(self) -> str:
        return f"Group({self.group_id.hex()}, epoch {self.epoch}, {self.own_leaf!r})"

    @property
    def suite(self) -> Suite:
        """The cipher suite."""
        return self._epoch.suite

    @property
    def context(self) -> GroupContext:
        """What all members agree on (§8.1)."""
        return self._epoch.context

    @property
    def group_id(self) -> bytes:
        """The group's id."""
        return self._epoch.context.group_id

    @property
    def epoch(self) -> int:
        """The number of the present epoch."""
        return self._epoch.number

    @property
    def tree(self) -> RatchetTree:
        """The public ratchet tree."""
        return self._epoch.tree

    @property
    def own_leaf(self) -> LeafIndex:
        """This member's leaf."""
        return self._epoch.leaf

    @property
    def welcomed_by(self) -> LeafIndex | None:
        """Whose Commit added this member, right after `join`; None where it was not joined just now."""
        return self._welcomed_by

    @property
    def epoch_authenticator(self) -> bytes:
        """Equal for all members that are in the same epoch of the same history (§8.7)."""
        return bytes(self._epoch.secrets.epoch_authenticator)

    @property
    def pending_commit(self) -> PendingCommit | None:
        """The own Commit that was made and not adopted."""
        return self._pending

    @property
    def pending_proposals(self) -> tuple[CommittedProposal, ...]:
        """The proposals that wait for a Commit."""
        return self._proposals.entries()

    @property
    def reinitialized(self) -> ReInit | None:
        """What the group was reinitialised to: it is over then, and `reinit` or a Welcome leads on (§11.2)."""
        return self._epoch.reinit

    @property
    def is_active(self) -> bool:
        """Whether messages can still be sent."""
        return self._closed is None and self._epoch.reinit is None

    def member(self, leaf: LeafIndex | int) -> Member:
        """The member at a leaf; raises `StateError` where there is none."""
        node = self.tree.leaf(leaf)
        if node is None:
            msg = f"there is no member at leaf {int(leaf)}"
            raise StateError(msg)
        return Member(LeafIndex(leaf), node)

    def members(self) -> Iterator[Member]:
        """All members, by leaf."""
        for leaf, node in self.tree.members():
            yield Member(leaf, node)

    def check_key_package(
        self, package: KeyPackage, *, now: int | None = None
    ) -> VerifiedKeyPackage:
        """Validates a key package, and that its client could be added to the group as it is (§10.1, §7.3).

        Raises `RuleViolation` or `VerificationError`. `now` is in seconds since 1970; None does not look at lifetimes.
        """
        state = self._epoch.public(self._index)
        return check_key_package(state, package, self._config.policy(), now=now)

    def export_secret(self, label: str, context: bytes, length: int) -> Secret:
        """A secret of `length` bytes for the application, the same for all members of the epoch (§8.5).

        Raises `StateError` where this member was removed.
        """
        if self._closed is not None:
            raise StateError(self._closed)
        return exported_secret(
            self.suite, self._epoch.secrets.exporter_secret, label, context, length
        )

    def sign(self, label: str, content: bytes) -> bytes:
        """A signature under this member's leaf key with the application's own label (§5.1.2, §17.6).

        Raises `StateError` where this member was removed: its key is gone.
        """
        if self._closed is not None:
            raise StateError(self._closed)
        return self.suite.sign_with_label(self._epoch.signature_key, label, content)

    def resumption_psk(self, epoch: int) -> Secret | None:
        """The resumption key of the present or a past epoch, if it is still held (§8.6)."""
        return self._keys.resumption_psk(epoch)

    def group_info(self, *, tree: bool = True, external_pub: bool = True) -> MLSMessage:
        """A signed GroupInfo of the present epoch (§12.4.3)."""
        self._require_active()
        info = group_info(self._epoch, self._config, tree=tree, external_pub=external_pub)
        return MLSMessage.of(info)

    def secrets_held(self) -> list[SecretHeld]:
        """Every secret that this group holds, since which epoch, and why."""
        if self._closed is not None:
            return []
        held = list(self._keys.held(self._epoch))
        held += self._proposals.held(self.epoch)
        if self._pending is not None and self._pending.next is not None:
            held.append(SecretHeld("the pending epoch", self.epoch + 1, "own Commit, not adopted"))
        return held

    def _require_active(self) -> None:
        if self._closed is not None:
            raise StateError(self._closed)
        if self._epoch.reinit is not None:
            msg = "the group was reinitialised: use the group that follows it"
            raise StateError(msg)
