"""What a Welcome leads to: a group that is new here, or one that follows another one (delivery protocol, section 11).

A conversation keeps its id and its history when its group is followed by another one. The Welcome of a ReInit waits
until the successor counts that it must lead to; one into a re-formed group waits for the user.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from hmac import compare_digest
from typing import Protocol

from coterie.client.box import decline_request
from coterie.client.content import read_profile
from coterie.client.conversation import Conversation
from coterie.client.events import Event, Invited, Joined, Moved, Problem
from coterie.client.identity import Package
from coterie.client.keeping import Counting, Origin, Parked, Reformed
from coterie.client.line import Line
from coterie.client.place import DROPPED, Tools
from coterie.client.successor import confirmation_tag, first_epoch, users_of
from coterie.client.vault import StoredConversation
from coterie.errors import CoterieError, ServiceError, StateError, StorageError
from coterie.mls.framing import MLSMessage
from coterie.mls.group import Group
from coterie.mls.group_context import PreSharedKeyID
from coterie.mls.tree_math import LeafIndex
from coterie.transport import api
from coterie.transport.refusal import Refused


@dataclass(frozen=True, slots=True)
class Known:
    """What this device knows of the group that another one replaces."""

    admins: frozenset[str]
    users: frozenset[str]


def may_reform(maker: str, users: set[str], old: Known) -> bool:
    """Whether a user may replace a group by one of these users (D-SUC-6).

    An administrator may; any other member only where the one administrator is the offender, who is not in the new one.
    """
    admins = old.admins & old.users
    if maker not in old.users:
        return False
    return maker in admins or (len(admins) <= 1 and not admins & users)


KEPT = 30 * 24 * 3600
"""For how many seconds an invitation is kept that leads on from a group which this device does not know."""


class Entering(Protocol):
    """Enters groups by Welcomes, at once or after a download."""

    async def take(
        self,
        package: Package,
        welcome: api.WelcomeContent,
        mark: bytes | None,
        continues: str | None = None,
    ) -> None:
        """`continues` is the conversation whose group a ReInit ended; `mark` the envelope's, if it is new."""


class Inviting:
    """The invitations of one device."""

    _joins: Entering

    def __init__(self, tools: Tools, conversations: dict[str, Conversation]) -> None:
        self._tools = tools
        self._conversations = conversations

    def downloads(self, joins: Entering) -> None:
        """What enters groups, at once or after a download."""
        self._joins = joins

    # -- what arrives

    async def take(self, package: Package, content: api.EnvelopeContent, mark: bytes) -> None:
        """Joins what a Welcome invites to, or keeps it; `mark` is the envelope's.

        Raises `CoterieError` for one that is not valid.
        """
        welcome = content.welcome
        if welcome is None:
            msg = "an envelope that is no invitation"
            raise StateError(msg)
        try:
            await self._joins.take(package, welcome, mark)
        except StateError as error:
            continues = None if error.rule else self._continues(package, welcome)
            if continues is None:
                raise
            self._park(package, welcome, continues, mark)

    async def settle(
        self, package: Package, welcome: api.WelcomeContent, line: Line, mark: bytes | None
    ) -> None:
        """Finds the place of a group that was joined, and enters it; or asks the user before."""
        async with self._held(self._conversation_of(line)[0]):
            conversation, followed = self._conversation_of(line)
            if not followed:
                self._enter(conversation, package, line, mark)
            elif not self._follow(conversation, package, welcome, line):
                self._consider(conversation, package, welcome, line, mark)

    def _held(self, conversation: str | None) -> AbstractAsyncContextManager[object]:
        """The conversation's lock: nobody reads on with the old group while another takes its place."""
        handle = self._conversations.get(conversation or "")
        return nullcontext() if handle is None else handle.lock

    def _continues(self, package: Package, welcome: api.WelcomeContent) -> bytes | None:
        """The id of the group whose resumption key a Welcome asks for, None where it asks for none."""
        asked: list[bytes] = []

        def note(psk: PreSharedKeyID) -> None:
            asked.append(psk.psk_group_id or b"")

        with suppress(StateError):
            Group.open_welcome(
                MLSMessage.read(welcome.welcome),
                package.bundle,
                replace(self._tools.config, psk=note),
            )
        # The group may be one that this device is still to enter: it may be several moves behind.
        return asked[0] if asked else None

    def _conversation_of(self, line: Line) -> tuple[str, bool]:
        """Where a group belongs, and whether it follows that conversation's present one; `StateError` if it is past."""
        vault, group_id = self._tools.vault, line.group.group_id
        direct, origin = vault.conversation_of(group_id), line.binding.predecessor
        if direct is not None and vault.present_group(direct) == group_id:
            return direct, False
        older = None if origin is None else vault.conversation_of(origin.group_id)
        if older is not None:
            return older, True
        if direct is not None:
            msg = "an invitation to a group that this conversation has left behind"
            raise StateError(msg, rule="D-SUC-7")
        return group_id.hex(), False

    # -- groups that follow a ReInit

    def _park(
        self, package: Package, welcome: api.WelcomeContent, continues: bytes, mark: bytes
    ) -> None:
        parked = Parked(package.reference, continues, welcome, self._tools.clock())
        with self._tools.vault.step() as step:
            for reference in step.park(parked):
                step.remove_package(reference)
            step.note_taken(mark, self._tools.clock())

    async def retry(self) -> list[str]:
        """Joins those invitations whose time has come; the conversations that went on with them."""
        vault = self._tools.vault
        before: dict[str, bytes] = {}
        for parked in vault.parked():
            conversation = vault.conversation_of(parked.continues)
            if conversation is None:
                if self._tools.clock() - parked.at > KEPT:
                    self._unpark(parked)
                continue
            before.setdefault(conversation, vault.present_group(conversation))
            try:
                await self._try_parked(parked, conversation)
            except (StorageError, ServiceError):
                raise
            except CoterieError as error:
                self._unpark(parked)
                what = f"an invitation does not lead to the group that follows: {error}"
                self._tools.emit(Problem(conversation, what))
        return [name for name, group in before.items() if vault.present_group(name) != group]

    async def _try_parked(self, parked: Parked, conversation: str) -> None:
        """Takes a parked Welcome, once the successor counts (D-SUC-4)."""
        vault = self._tools.vault
        package = vault.package(self._tools.identity, parked.package)
        if package is None or vault.present_group(conversation) != parked.continues:
            # Used by another invitation, or the conversation went another way.
            self._unpark(parked)
            return
        succession = vault.succession(conversation)
        if vault.status(conversation) != "moving" or succession is None:
            return
        if any(join.welcome == parked.welcome for join in vault.invitations()):
            return  # It is downloaded.
        if succession.counting is not None:
            await self._joins.take(package, parked.welcome, None, conversation)

    def _follow(
        self, conversation: str, package: Package, welcome: api.WelcomeContent, line: Line
    ) -> bool:
        """Enters the group that follows a reinitialised one; False where a Welcome is to something else."""
        succession = self._tools.vault.succession(conversation)
        parked = [p for p in self._tools.vault.parked() if p.welcome == welcome]
        if not parked or succession is None or succession.counting is None:
            return False
        self._check_counts(line, succession.counting)
        keys, parent = first_epoch(self._conversations[conversation].line)
        if welcome.parent != parent:
            msg = "the invitation leads to another epoch than the log's first one opens"
            raise StateError(msg, rule="D-SUC-9")
        box = parent, bytes(keys.box_seed)
        self._enter(conversation, package, line, parked=parked[0], box=box)
        return True

    @staticmethod
    def _check_counts(line: Line, counting: Counting) -> None:
        tag = confirmation_tag(line.group.group_info(tree=False, external_pub=False))
        place = line.group.group_id, line.binding.log_id
        if place != (counting.group_id, counting.log_id) or not compare_digest(tag, counting.tag):
            msg = "the invitation is to another group than the successor that counts"
            raise StateError(msg, rule="D-SUC-4")

    def _unpark(self, parked: Parked) -> None:
        with self._tools.vault.step() as step:
            step.unpark(parked)

    # -- groups that replace one

    def _consider(
        self,
        conversation: str,
        package: Package,
        welcome: api.WelcomeContent,
        line: Line,
        mark: bytes | None,
    ) -> None:
        """Asks the user, goes along where the user has agreed to as much already, or passes it over (D-SUC-7)."""
        vault, origin = self._tools.vault, predecessor_of(line)
        users = users_of(line.group.tree, self._tools.identity)
        succession = vault.succession(conversation)
        counting = None if succession is None else succession.counting
        if counting is not None and (counting.group_id, counting.log_id) == (
            line.group.group_id,
            line.binding.log_id,
        ):
            # Added again to the group that the successor named.
            self._enter(conversation, package, line, mark)
            return
        if any(i.agreed and i.welcome == welcome for i in vault.reforms(conversation)):
            self._enter(conversation, package, line, mark)
            return
        maker = self._tools.identity.user_of(line.group.tree, 0)
        known = self._known(conversation, origin.group_id)
        if known is not None and not may_reform(maker, users, known):
            msg = f"{maker} has no right to replace the group"
            raise StateError(msg, rule="D-SUC-6")
        mine = vault.origin(conversation)
        if mine is not None and mine.group_id == origin.group_id:
            if line.binding.log_id > self._present_log(conversation):
                self._pass_over(package, line, mark)
                return
            behind = {user.decode() for user in mine.without}
            if not behind & (users | {maker}):
                self._enter(conversation, package, line, mark)
                return
        self._ask(conversation, package, welcome, line, mark, maker, users, known)

    def _present_log(self, conversation: str) -> bytes:
        vault = self._tools.vault
        create = vault.conversation(conversation).create
        if create is not None:
            return create.create.log_id
        return self._conversations[conversation].line.binding.log_id

    def _known(self, conversation: str, group_id: bytes) -> Known | None:
        """What this device knows of a group: the present one of a conversation, or the one that it replaced."""
        vault = self._tools.vault
        if vault.present_group(conversation) == group_id:
            try:
                group = self._conversations[conversation].line.group
            except StateError:
                return None
            admins = read_profile(group.context.extensions).admins
            users = users_of(group.tree, self._tools.identity)
            return Known(frozenset(a.decode(errors="replace") for a in admins), frozenset(users))
        origin = vault.origin(conversation)
        if origin is None or origin.group_id != group_id or not origin.users:
            return None
        return Known(
            *(frozenset(u.decode() for u in some) for some in (origin.admins, origin.users))
        )

    def _pass_over(self, package: Package, line: Line, mark: bytes | None) -> None:
        self._tools.count("re-formed groups that do not count")
        with self._tools.vault.step() as step:
            step.remove_invitation(line.group.group_id.hex(), bytes(line.binding.log_id))
            if not package.last_resort:
                step.remove_package(package.reference)
            if mark is not None:
                step.note_taken(mark, self._tools.clock())

    def _ask(
        self,
        conversation: str,
        package: Package,
        welcome: api.WelcomeContent,
        line: Line,
        mark: bytes | None,
        maker: str,
        users: set[str],
        known: Known | None,
    ) -> None:
        missing = sorted(known.users - users) if known is not None else []
        invitation = Reformed(
            package.reference,
            welcome,
            line.group.group_id,
            line.binding.log_id,
            read_profile(line.group.context.extensions).name,
            maker.encode(),
            tuple(user.encode() for user in sorted(users)),
            tuple(user.encode() for user in missing),
        )
        declining = decline_request(line, package, self._tools.clock())
        with self._tools.vault.step() as step:
            step.save_reform(conversation, invitation)
            step.prepare_decline(declining)
            step.link_group(line.group.group_id, conversation, present=False)
            step.remove_invitation(line.group.group_id.hex(), bytes(line.binding.log_id))
            if mark is not None:
                step.note_taken(mark, self._tools.clock())
        self._tools.emit(Invited(conversation, maker, tuple(sorted(users)), tuple(missing)))

    async def accept(self, conversation: str, by: str | None = None) -> None:
        """Goes to the re-formed group that the user was asked about; of several to the one that counts (D-SUC-7)."""
        invitation = self._chosen(conversation, by)
        package = self._tools.vault.package(self._tools.identity, invitation.package)
        if package is None:
            self._drop(conversation, invitation)
            msg = "the invitation cannot be used any more; ask for another one"
            raise StateError(msg)
        with self._tools.vault.step() as step:
            step.save_reform(conversation, invitation.replace(agreed=1))
        await self._joins.take(package, invitation.welcome, None)

    def decline(self, conversation: str, by: str | None = None) -> None:
        """Forgets an invitation; with the next `post_declines` the others are told, so that they remove the leaf."""
        self._drop(conversation, self._chosen(conversation, by), declined=True)

    async def post_declines(self) -> None:
        """Says in groups that the user does not want to be in them (D-BOX-13)."""
        for request in self._tools.vault.declines():
            try:
                await self._tools.delivery.post_request(request)
            except Refused as refused:
                if refused.retry_after is not None and refused.code not in DROPPED:
                    continue
            with self._tools.vault.step() as step:
                step.forget_decline(request.log_id)

    def _chosen(self, conversation: str, by: str | None) -> Reformed:
        found = self._tools.vault.reforms(conversation)
        for invitation in found:
            if by is None or invitation.by.decode() == by:
                return invitation
        msg = f"{by} has not re-formed this group" if found else "nobody has re-formed this group"
        raise StateError(msg)

    def _drop(self, conversation: str, invitation: Reformed, *, declined: bool = False) -> None:
        package = self._tools.vault.package(self._tools.identity, invitation.package)
        with self._tools.vault.step() as step:
            if declined:
                step.decline_reform(conversation, invitation)
            else:
                step.drop_reform(conversation, invitation)
            if package is not None and not package.last_resort:
                step.remove_package(package.reference)

    # -- entering

    def _enter(
        self,
        conversation: str,
        package: Package,
        line: Line,
        mark: bytes | None = None,
        *,
        parked: Parked | None = None,
        box: tuple[bytes, bytes] | None = None,
    ) -> None:
        """Takes the place in a group that a Welcome gives, in one transaction."""
        tools, vault = self._tools, self._tools.vault
        known = conversation in self._conversations
        moved = known and vault.present_group(conversation) != line.group.group_id
        origin = self._origin(conversation, line) if moved else None
        name = read_profile(line.group.context.extensions).name
        used = [
            (i, self._tools.vault.package(self._tools.identity, i.package))
            for i in vault.reforms(conversation)
        ]
        with vault.step() as step:
            if moved:
                reformed = origin is not None
                step.continue_in(conversation, line.group.group_id, reformed=reformed)
                for invitation, _ in used:
                    step.drop_reform(conversation, invitation)
            step.begin_again(conversation)
            step.begin(conversation, StoredConversation(name, b"active", b"", tools.clock()))
            step.set_status(conversation, "active")
            step.save_line(conversation, line)
            step.add_box(
                conversation, line.state.epoch, bytes(line.keys.box_seed), line.group.epoch
            )
            step.note_log(line.group.group_id, line.binding.log_id)
            step.forget_ask(bytes(line.binding.log_id))
            step.forget_left(bytes(line.binding.log_id))
            step.remove_invitations(line.group.group_id.hex())
            if box is not None:
                step.add_box(conversation, *box, 0)
            if origin is not None:
                step.save_origin(conversation, origin)
            elif moved:
                step.forget_origin(conversation)
            for spent in (package, *(p for _, p in used if moved and p is not None)):
                if not spent.last_resort:
                    step.remove_package(spent.reference)
            if mark is not None:
                step.note_taken(mark, self._tools.clock())
            if parked is not None:
                step.unpark(parked)
        handle = self._conversations.get(conversation) or Conversation(tools, conversation)
        handle.enter(line)
        self._conversations[conversation] = handle
        tools.emit(self._told(conversation, line, name, moved=moved))

    def _origin(self, conversation: str, line: Line) -> Origin | None:
        """What is remembered of the group that a re-formed one replaces."""
        origin = line.binding.predecessor
        if origin is None or origin.predecessor_type != api.PredecessorType.REFORM:
            return None
        known = self._known(conversation, origin.group_id)
        if known is None:
            return Origin(origin.group_id, origin.log_id, (), (), ())
        without = known.users - users_of(line.group.tree, self._tools.identity)
        return Origin(
            origin.group_id,
            origin.log_id,
            *(
                tuple(u.encode() for u in sorted(some))
                for some in (known.admins, known.users, without)
            ),
        )

    def _told(self, conversation: str, line: Line, name: bytes, *, moved: bool) -> Event:
        group = line.group
        by = self._tools.identity.user_of(group.tree, group.welcomed_by or LeafIndex(0))
        if moved:
            return Moved(conversation, by)
        return Joined(conversation, name.decode(errors="replace"), by)


def predecessor_of(line: Line) -> api.Predecessor:
    """The group that a group says it follows; `StateError` where it says none."""
    if line.binding.predecessor is None:
        msg = "the group follows no other one"
        raise StateError(msg)
    return line.binding.predecessor
