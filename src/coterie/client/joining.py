"""Entering groups by Welcomes (docs/delivery-protocol.md, D-INB-7, D-CHK-5, D-CHK-6).

A small group's tree stands in the Welcome. That of a larger one is downloaded: the invitation is stored first, what
arrives is kept, and whatever cuts the download, it goes on where it was. The group is entered in one step, when all is
there and fits the tree hash; before that nothing of it can be seen or used. What cannot be had, or is not the group's
state, makes this device ask a member to be added again.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from coterie.client import events
from coterie.client.box import request_to_return, sealed_request
from coterie.client.chunks import Place, SharedState, assemble, read_parent, root_place_of
from coterie.client.content import GROUP_ID, read_binding, read_profile
from coterie.client.conversation import Conversation
from coterie.client.epoch_keys import EpochKeys
from coterie.client.identity import Package
from coterie.client.intents import Invitation
from coterie.client.inviting import Inviting
from coterie.client.line import Line
from coterie.client.place import DROPPED, Tools
from coterie.client.receipts import verify_opening
from coterie.client.returning import ASK_AGAIN
from coterie.client.vault import Step
from coterie.errors import (
    CoterieError,
    DecodeError,
    DecryptionError,
    RuleViolation,
    ServiceError,
    StateError,
    StorageError,
    VerificationError,
)
from coterie.mls.framing import MLSMessage
from coterie.mls.group import Group, OpenedWelcome
from coterie.mls.tree_math import LeafIndex
from coterie.transport import api
from coterie.transport.refusal import Refused

PATIENCE = 600
"""For how many seconds chunks that the service has not are only asked for again."""
_AT_ONCE = 4
"""Requests under way at a time."""
_LOGS = 8
"""How many invitations under one group id, to different logs, are followed: anybody may use an id that they know."""
_BATCH = 128
"""Chunks asked for in one request."""


class Absent(ServiceError):
    """Chunks that the service has not, or gives others for; they are asked for again."""


@dataclass(frozen=True, slots=True, repr=False)
class Prospect:
    """A group that this device was added to and is not in: what its Welcome says, of which nothing is verified."""

    opened: OpenedWelcome
    binding: api.DeliveryBinding
    keys: EpochKeys
    epoch: bytes
    root: Place

    @property
    def conversation(self) -> str:
        """The conversation's id."""
        return self.opened.info.group_context.group_id.hex()

    @property
    def name(self) -> str:
        """What the group is called."""
        profile = read_profile(self.opened.info.group_context.extensions)
        return profile.name.decode(errors="replace")


class Joins:
    """The invitations of one device."""

    def __init__(
        self, tools: Tools, conversations: dict[str, Conversation], inviting: Inviting
    ) -> None:
        self._tools = tools
        self._conversations = conversations
        self._inviting = inviting

    # -- an invitation arrives

    async def take(
        self,
        package: Package,
        welcome: api.WelcomeContent,
        mark: bytes | None,
        continues: str | None = None,
    ) -> None:
        """Enters the group at once, or notes what is to be downloaded; `mark` is the envelope's, if it is new.

        `continues` is the conversation whose group ended with a ReInit that the invitation leads on from.
        Raises an error of `coterie.errors` where the invitation is not valid.
        """
        if welcome.state is None:
            await self._enter(package, welcome, None, None, mark=mark, continues=continues)
            return
        prospect = self._open(package, welcome, welcome.state, continues)
        join = Invitation(
            prospect.conversation.encode(), package.reference, welcome, self._tools.clock()
        )
        others = [j for j in self._tools.vault.invitations() if j.conversation == join.conversation]
        same = [j for j in others if j.welcome.log_id == welcome.log_id]
        if not same and len(others) >= _LOGS:
            msg = "too many invitations under the id of one group"
            raise StateError(msg, rule="D-INB-7")
        with self._tools.vault.step() as step:
            for other in same:
                if other.package != join.package:
                    # A later invitation to the same group; what was downloaded serves it, too.
                    self._drop_package(step, other.package)
                step.remove_invitation(prospect.conversation, bytes(welcome.log_id))
            step.save_invitation(join)
            if mark is not None:
                step.note_taken(mark, self._tools.clock())

    def _ended(self, conversation: str | None) -> Group | None:
        """The group of a conversation that ended with a ReInit."""
        return None if conversation is None else self._conversations[conversation].line.group

    def _continued(self, group_id: str) -> str | None:
        """The conversation of which a group is the successor that counts."""
        for name in self._conversations:
            succession = self._tools.vault.succession(name)
            counting = None if succession is None else succession.counting
            if counting is not None and counting.group_id.hex() == group_id:
                return name
        return None

    def _taken(self) -> frozenset[bytes]:
        """The ids of the groups that this device is in, or was stopped in: only its user goes on there (D-REC-10)."""
        vault = self._tools.vault
        return frozenset(
            vault.present_group(name)
            for name in vault.conversations()
            if vault.status(name) in {"active", "creating", "stopped"}
        )

    def _check_log(
        self, binding: api.DeliveryBinding, welcome: api.WelcomeContent, group_id: bytes
    ) -> None:
        """A group is in one log: whoever knows its id could else put another group in the place of its history."""
        if binding.receipt_key != self._tools.identity.stored.receipt_key:
            msg = "the group's log is kept by another service than this device is enrolled at"
            raise StateError(msg, rule="D-ACC-10")
        if len(group_id) != GROUP_ID:
            # One that is the beginning of another would reach into what is stored for that.
            msg = f"the group's id has not {GROUP_ID} bytes"
            raise StateError(msg, rule="D-INB-7")
        if binding.log_id != welcome.log_id or self._tools.vault.log_of(group_id) not in {
            None,
            binding.log_id,
        }:
            msg = "the invitation names another log than the group's"
            raise StateError(msg, rule="D-INB-7")

    def _open(
        self,
        package: Package,
        welcome: api.WelcomeContent,
        state: api.ChunkRef,
        continues: str | None,
    ) -> Prospect:
        """All that can be checked before anything is downloaded (D-INB-7)."""
        opened = Group.open_welcome(
            MLSMessage.read(welcome.welcome),
            package.bundle,
            self._tools.config,
            groups=self._taken(),
            continues=self._ended(continues),
        )
        binding = read_binding(opened.info.group_context.extensions)
        self._check_log(binding, welcome, opened.info.group_context.group_id)
        keys = EpochKeys.derive(opened.export_secret, binding.log_id)
        epoch = verify_opening(binding, keys, welcome.parent, welcome.opening)
        root = root_place_of(state, keys.state_secret)
        if root is None:
            msg = "the invitation refers to the state of another epoch"
            raise VerificationError(msg, rule="D-INB-7")
        return Prospect(opened, binding, keys, epoch, root)

    # -- the state is downloaded

    async def carry_on(self) -> ServiceError | None:
        """Goes on with every download; the error of one that was cut, which is tried again later."""
        failed = None
        # The oldest first: who only knows the group's id comes later than who made it.
        for join in sorted(self._tools.vault.invitations(), key=lambda join: join.received_at):
            if join not in self._tools.vault.invitations():
                continue  # Another one under the same id led into the group.
            try:
                await self._carry_on(join)
            except ServiceError as error:
                failed = error
        return failed

    async def _carry_on(self, join: Invitation) -> None:
        tools, state = self._tools, join.welcome.state
        package = tools.vault.package(tools.identity, join.package)
        prospect = self._open_again(join, package, state)
        if prospect is None or package is None or state is None:
            return
        try:
            if not join.hopeless:
                await self._download(join, package, prospect, state)
                return
        except Refused as refused:
            if refused.code not in DROPPED:
                raise
            self._give_up(join, f"the invitation to {prospect.name!r} is too old: {refused}")
            return
        except Absent as error:
            if not await self._ask(join, prospect):
                raise
            what = f"the state of {prospect.name!r} cannot be had: {error}"
            tools.emit(events.Problem("", what, "a member is asked to add this device again"))
            return
        except StateError as error:
            # To a group that has no right to be entered (section 11): that holds up nothing else.
            self._give_up(join, f"an invitation is not valid: {error}")
            return
        except (RuleViolation, VerificationError, DecodeError, DecryptionError) as error:
            join = join.replace(hopeless=1)
            with tools.vault.step() as step:
                step.remove_invitation(prospect.conversation, bytes(join.welcome.log_id))
                step.save_invitation(join)
            what = f"what was downloaded is not the state of {prospect.name!r}: {error}"
            tools.emit(events.Problem("", what, "a member is asked to add this device again"))
        await self._ask(join, prospect)

    def _open_again(
        self, join: Invitation, package: Package | None, state: api.ChunkRef | None
    ) -> Prospect | None:
        """What an invitation that was kept leads to; None where that is nothing, and it was given up."""
        try:
            if package is None or state is None:
                msg = "its key package is not held any more"
                raise StateError(msg)
            continues = self._continued(join.conversation.decode())
            return self._open(package, join.welcome, state, continues)
        except StorageError:
            raise
        except CoterieError as error:
            self._give_up(join, f"an invitation is not valid any more: {error}")
            return None

    def _give_up(self, join: Invitation, why: str) -> None:
        with self._tools.vault.step() as step:
            step.remove_invitation(join.conversation.decode(), bytes(join.welcome.log_id))
            self._drop_package(step, join.package)
        self._tools.emit(events.Problem("", why, "ask to be added again"))

    def _drop_package(self, step: Step, reference: bytes) -> None:
        """The keys of a package that was used once; others may still be invited with a last-resort one."""
        package = self._tools.vault.package(self._tools.identity, reference)
        if package is not None and not package.last_resort:
            step.remove_package(reference)

    async def _download(
        self, join: Invitation, package: Package, prospect: Prospect, state: api.ChunkRef
    ) -> None:
        """Downloads the chunks level by level, and enters the group."""
        parents: dict[Place, api.ChunkContent] = {}
        level = {prospect.root: state}
        known = 0
        while level:
            known += len(level)
            await self._fetch(prospect, [ref.address for ref in level.values()], known)
            below: dict[Place, api.ChunkRef] = {}
            for place, ref in level.items():
                if place.level:
                    data = self._kept(prospect, ref)
                    content = read_parent(place, data, ref, root=place == prospect.root)
                    parents[place] = content
                    children = enumerate(content.children)
                    below |= {place.child(n): child for n, child in children if child is not None}
            level = below
        tree = assemble(prospect.root, parents, lambda ref: self._kept(prospect, ref))
        references = {place: content.children for place, content in parents.items()}
        shared = SharedState.gathered(state, references)
        continues = self._continued(join.conversation.decode())
        await self._enter(package, join.welcome, tree, shared, continues=continues)

    def _kept(self, prospect: Prospect, ref: api.ChunkRef) -> bytes:
        """A chunk that was downloaded; raises `Absent` where the disk has it no more as it was."""
        data = self._tools.vault.chunk(prospect.conversation, ref.address)
        if data is None or api.sha256(data) != ref.address:
            with self._tools.vault.step() as step:
                step.remove_chunk(prospect.conversation, ref.address)
            msg = "a chunk that was downloaded is damaged; it is fetched again"
            raise Absent(msg, rule="D-CHK-5", retry_after=0)
        return data

    async def _fetch(self, prospect: Prospect, addresses: list[bytes], known: int) -> None:
        """Has the chunks with these addresses; what is there is not asked for. Raises `Absent`."""
        vault = self._tools.vault
        missing = vault.chunks_missing(prospect.conversation, addresses)
        tasks = asyncio.Semaphore(_AT_ONCE)
        done = known - len(missing)

        async def fetch(batch: list[bytes]) -> int:
            nonlocal done
            absent = 0
            async with tasks:
                while batch:
                    result = await self._ask_for(prospect, batch)
                    taken = {
                        address: chunk.data
                        for address, chunk in zip(batch, result.chunks, strict=False)
                        if chunk is not None and chunk.address() == address
                    }
                    absent += len(result.chunks) - len(taken)
                    with vault.step() as step:
                        for address, data in taken.items():
                            step.add_chunk(prospect.conversation, address, data)
                    batch = batch[len(result.chunks) :]
                    done += len(taken)
                    told = events.Joining(prospect.conversation, prospect.name, done, known)
                    self._tools.emit(told)
            return absent

        batches = [missing[n : n + _BATCH] for n in range(0, len(missing), _BATCH)]
        results = await asyncio.gather(*map(fetch, batches), return_exceptions=True)
        _raise_first(results)
        absent = sum(result for result in results if isinstance(result, int))
        if absent:
            self._tools.count_many("chunks that the service has not", absent)
            msg = f"the service has not, or gives others for, {absent} chunks of the group's state"
            raise Absent(msg, rule="D-CHK-6", retry_after=60)

    async def _ask_for(self, prospect: Prospect, batch: list[bytes]) -> api.Chunks:
        result = await self._tools.delivery.fetch_chunks(
            api.FetchChunks(
                prospect.binding.log_id,
                prospect.epoch,
                bytes(prospect.keys.read_token),
                tuple(batch),
            )
        )
        if not 0 < len(result.chunks) <= len(batch):
            msg = "the service answers other chunks than it was asked for"
            raise ServiceError(msg, rule="D-CHK-5", retry_after=60)
        return result

    # -- the group is entered

    async def _enter(
        self,
        package: Package,
        welcome: api.WelcomeContent,
        tree: bytes | None,
        shared: SharedState | None,
        *,
        mark: bytes | None = None,
        continues: str | None = None,
    ) -> None:
        """Joins, in one step; raises where the group is not what the Welcome says."""
        group = Group.join(
            MLSMessage.read(welcome.welcome),
            package.bundle,
            self._tools.config,
            tree=tree,
            groups=self._taken(),
            continues=self._ended(continues),
        )
        line = Line.opened(group, welcome.parent, welcome.opening, shared)
        self._check_log(line.binding, welcome, group.group_id)
        by = self._tools.identity.user_of(group.tree, group.welcomed_by or LeafIndex(0))
        if continues is None and self._is_unwanted(line, by):
            self._decline(package, line, by, mark)
            return
        await self._inviting.settle(package, welcome, line, mark)

    def _is_unwanted(self, line: Line, by: str) -> bool:
        """Whether a group is one that a blocked user invited to, and nobody here asked for."""
        vault, group_id, log_id = self._tools.vault, line.group.group_id, line.binding.log_id
        if vault.conversation_of(group_id) is not None:
            return False
        if any(ask.link.log_id == log_id for ask in vault.asks()):
            return False
        return by in vault.blocked() or vault.declined(group_id)

    def _decline(self, package: Package, line: Line, by: str, mark: bytes | None) -> None:
        """Passes an invitation over without an answer, as a device that is offline would."""
        tools, group_id, log_id = self._tools, line.group.group_id, bytes(line.binding.log_id)
        tools.count("invitations of blocked users")
        with tools.vault.step() as step:
            if by in tools.vault.blocked():
                step.decline(group_id, by)
            step.remove_invitation(group_id.hex(), log_id)
            if not package.last_resort:
                step.remove_package(package.reference)
            if mark is not None:
                step.note_taken(mark, self._tools.clock())

    # -- somebody else must add this device again

    async def _ask(self, join: Invitation, prospect: Prospect) -> bool:
        """Asks in the box of the epoch to be added again, once a day; whether it did now (D-BOX-8)."""
        tools, identity = self._tools, self._tools.identity
        now = tools.clock()
        if not join.hopeless and now - join.received_at < PATIENCE:
            return False
        if join.asked_at and now - join.asked_at < ASK_AGAIN:
            return False
        package = identity.new_package(now)
        ticket = secrets.token_bytes(32)
        with tools.vault.step() as step:
            step.add_package(package)
        stored = identity.stored
        await tools.inboxes.mint_tickets(
            api.MintTickets(stored.inbox_id, bytes(stored.inbox_token), (api.sha256(ticket),))
        )
        old = tools.vault.package(identity, join.package)
        if old is None:
            return False
        # Where the leaf is, only the tree would say.
        node = old.bundle.key_package.leaf_node
        log_id = prospect.binding.log_id
        content = request_to_return(log_id, package, ticket, node, now=now)
        suite = prospect.opened.suite
        try:
            request = sealed_request(suite, prospect.keys, prospect.epoch, content)
            await tools.delivery.post_request(request)
        except Refused as refused:
            if refused.code not in DROPPED:
                raise
            self._give_up(join, f"the invitation to {prospect.name!r} is too old: {refused}")
            return True
        with tools.vault.step() as step:
            step.save_invitation(join.replace(asked_at=now))
        return True


def _raise_first(results: Iterable[object]) -> None:
    for result in results:
        if isinstance(result, BaseException):
            raise result
