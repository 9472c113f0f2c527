"""A quick check that the peers talk to each other: pairs of them through each kind of call.

It needs `grpcio` and `grpcio-tools`, starts every peer named (default: all that are built or can
be), and plays each scenario with one member of the first peer, one of the second and one more of
the first. Both take turns at committing. A cell is `ok`, `lacks` (a peer answered UNIMPLEMENTED,
its words are listed below the table) or `FAIL`.

    python interop/peers/smoke.py --suite 1 ts-mls openmls

This is the peers' own check. The full matrix, with transcripts and our own server in it, is the
work of `coterie interop run`.
"""

# ruff: noqa: ANN401 - the messages' types exist only once the interface is compiled

from __future__ import annotations

import argparse
import contextlib
import importlib
import itertools
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import build
import grpc
from grpc_tools import protoc

STARTUP_SECONDS = 30
PATIENCE_SECONDS = 60
SCENARIO_EXTENSION = 0xFF00
REQUIRED_CAPABILITIES_TYPE = 3
REQUIRED_CREDENTIALS = (bytes.fromhex("0000020001"), bytes.fromhex("000000"))  # basic, nothing
# Naming the private-use extension: OpenMLS wants that to go along with it.
REQUIRED_EXTENSION = bytes.fromhex("02ff000000")
PSK_ID, PSK_SECRET = b"a shared key", bytes(range(32))


def load_interface() -> tuple[Any, Any]:
    """Compile the interface and give its message and its stub module."""
    folder = tempfile.mkdtemp(prefix="coterie-smoke-")
    source = build.PROTO
    if protoc.main(
        [
            "",
            f"-I{source.parent}",
            f"--python_out={folder}",
            f"--grpc_python_out={folder}",
            source.name,
        ]
    ):
        raise SystemExit(f"{source} could not be compiled")
    sys.path.insert(0, folder)
    return importlib.import_module("mls_client_pb2"), importlib.import_module("mls_client_pb2_grpc")


PB, PB_GRPC = load_interface()


class MismatchError(Exception):
    """Two members of the same epoch do not agree."""


class Client:
    """One peer's server: `client.Commit(state_id=…)` makes the call and gives the response."""

    def __init__(self, name: str, stub: Any) -> None:
        self.name = name
        self._stub = stub

    def __getattr__(self, call: str) -> Callable[..., Any]:
        request = _request_type(call)

        def invoke(**fields: object) -> Any:
            return getattr(self._stub, call)(request(**fields), timeout=PATIENCE_SECONDS)

        return invoke


def _request_type(call: str) -> Any:
    method = PB.DESCRIPTOR.services_by_name["MLSClient"].methods_by_name[call]
    return getattr(PB, method.input_type.name)


@contextlib.contextmanager
def served(name: str) -> Iterator[Client]:
    """Start a peer on a port that it chooses and stop it afterwards."""
    command = [*build.build(build.PEERS[name]), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line.startswith("listening on "):
                raise SystemExit(f"{name} did not start: {line!r}")
            with grpc.insecure_channel(line.split()[-1]) as channel:
                grpc.channel_ready_future(channel).result(timeout=STARTUP_SECONDS)
                yield Client(name, PB_GRPC.MLSClientStub(channel))
        finally:
            process.terminate()


@dataclass
class Member:
    """A member of the group under test: whose it is, its name in the group, its present state."""

    client: Client
    identity: bytes
    state: int


@dataclass
class World:
    """A group and what the scenarios need to build it."""

    suite: int
    encrypt: bool
    outside: bool
    """Whether the tree travels beside the Welcome and the GroupInfo."""
    members: list[Member] = field(default_factory=list)
    _count: int = 0

    def identity(self, client: Client) -> bytes:
        """Give a name that no member has yet."""
        self._count += 1
        return f"{client.name}-{self._count}".encode()

    def create(self, client: Client) -> Member:
        """Let a peer begin the group."""
        identity = self.identity(client)
        state = client.CreateGroup(
            group_id=b"group",
            cipher_suite=self.suite,
            encrypt_handshake=self.encrypt,
            identity=identity,
        ).state_id
        self.members.append(Member(client, identity, state))
        return self.members[-1]

    def key_package(self, client: Client) -> tuple[bytes, Any]:
        """Let a peer make a key package; give the identity and the response."""
        identity = self.identity(client)
        return identity, client.CreateKeyPackage(cipher_suite=self.suite, identity=identity)

    def commit(
        self,
        committer: Member,
        by_reference: Sequence[bytes] = (),
        by_value: Sequence[Any] = (),
        joiners: Sequence[tuple[Client, bytes, int]] = (),
        removed: Sequence[bytes] = (),
        *,
        force_path: bool = False,
    ) -> None:
        """Commit, let everybody follow and the joiners join, and compare the new epoch."""
        response = committer.client.Commit(
            state_id=committer.state,
            by_reference=by_reference,
            by_value=by_value,
            force_path=force_path,
            external_tree=self.outside,
        )
        self.members = [m for m in self.members if m.identity not in removed]
        self.follow(committer, by_reference, response.commit)
        for client, identity, transaction in joiners:
            joined = client.JoinGroup(
                transaction_id=transaction,
                welcome=response.welcome,
                encrypt_handshake=self.encrypt,
                identity=identity,
                ratchet_tree=response.ratchet_tree,
            )
            self.members.append(Member(client, identity, joined.state_id))
        self.compare()

    def follow(self, committer: Member | None, proposals: Sequence[bytes], commit: bytes) -> None:
        """Take every member into the epoch of a commit."""
        for member in self.members:
            if member is committer:
                state = member.client.HandlePendingCommit(state_id=member.state).state_id
            else:
                state = member.client.HandleCommit(
                    state_id=member.state, proposal=proposals, commit=commit
                ).state_id
            member.state = state

    def compare(self) -> None:
        """Check that all members hold the same epoch."""
        for call, read in (
            ("StateAuth", lambda m: m.client.StateAuth(state_id=m.state).state_auth_secret),
            (
                "Export",
                lambda m: (
                    m.client.Export(
                        state_id=m.state, label="label", context=b"context", key_length=40
                    ).exported_secret
                ),
            ),
        ):
            values = {m.identity: read(m) for m in self.members}
            if len(set(values.values())) != 1:
                raise MismatchError(
                    f"{call} differs: { {k: v.hex()[:8] for k, v in values.items()} }"
                )

    def chat(self) -> None:
        """Let everybody write twice and everybody else read, the second message first."""
        for writer in self.members:
            sent = [
                writer.client.Protect(
                    state_id=writer.state, authenticated_data=b"aad%d" % n, plaintext=b"text%d" % n
                ).ciphertext
                for n in range(2)
            ]
            for reader in self.members:
                if reader is writer:
                    continue
                for n in (1, 0):
                    got = reader.client.Unprotect(state_id=reader.state, ciphertext=sent[n])
                    if (got.plaintext, got.authenticated_data) != (b"text%d" % n, b"aad%d" % n):
                        raise MismatchError(f"message {n} reads {got}")

    def add(self, committer: Member, *clients: Client) -> None:
        """Add a member for each client, by value."""
        made = [(client, *self.key_package(client)) for client in clients]
        described = [
            PB.ProposalDescription(proposal_type=b"add", key_package=k.key_package)
            for _, _, k in made
        ]
        self.commit(
            committer, by_value=described, joiners=[(c, i, k.transaction_id) for c, i, k in made]
        )

    def store_psk(self) -> None:
        """Give every member the external PSK."""
        for member in self.members:
            member.client.StorePSK(
                state_or_transaction_id=member.state, psk_id=PSK_ID, psk_secret=PSK_SECRET
            )

    def group_info(self, member: Member) -> Any:
        """Let a member publish the group."""
        return member.client.GroupInfo(state_id=member.state, external_tree=self.outside)


def described(proposal_type: str, **fields: object) -> Any:
    """Make a ProposalDescription."""
    return PB.ProposalDescription(proposal_type=proposal_type.encode(), **fields)


def trio(world: World, first: Client, second: Client) -> list[Member]:
    """Build the group that most scenarios start from."""
    creator = world.create(first)
    world.add(creator, second)
    world.add(world.members[1], first)
    return world.members


def welcome(world: World, first: Client, second: Client) -> None:
    """Members join by Welcome, and everybody can write and read."""
    trio(world, first, second)
    world.chat()


def add_reference(world: World, first: Client, second: Client) -> None:
    """A member proposes an Add that another one commits."""
    a, b, _ = trio(world, first, second)
    for proposer, committer in ((a, b), (b, a)):
        identity, made = world.key_package(second)
        proposal = proposer.client.AddProposal(
            state_id=proposer.state, key_package=made.key_package
        ).proposal
        world.commit(committer, [proposal], joiners=[(second, identity, made.transaction_id)])


def update_reference(world: World, first: Client, second: Client) -> None:
    """Each updates in turn, another one commits, and the new leaf keys work."""
    a, b, c = trio(world, first, second)
    for proposer, committer in ((a, b), (b, c), (c, b)):
        proposal = proposer.client.UpdateProposal(state_id=proposer.state).proposal
        world.commit(committer, [proposal])
        world.commit(committer)


def empty_commit(world: World, first: Client, second: Client) -> None:
    """Commits without proposals, from both sides."""
    a, b, c = trio(world, first, second)
    for committer in (b, a, c, b):
        world.commit(committer)
    world.chat()


def forced_path(world: World, first: Client, second: Client) -> None:
    """An Add whose commit carries a path all the same."""
    a, b, _ = trio(world, first, second)
    for committer in (a, b):
        identity, made = world.key_package(second)
        value = described("add", key_package=made.key_package)
        world.commit(
            committer,
            by_value=[value],
            joiners=[(second, identity, made.transaction_id)],
            force_path=True,
        )


def remove_value(world: World, first: Client, second: Client) -> None:
    """The second peer's member removes the third, the first one the second."""
    a, b, c = trio(world, first, second)
    world.commit(b, by_value=[described("remove", removed_id=c.identity)], removed=[c.identity])
    world.add(a, second)
    world.commit(a, by_value=[described("remove", removed_id=b.identity)], removed=[b.identity])


def remove_reference(world: World, first: Client, second: Client) -> None:
    """The same by proposal."""
    a, b, c = trio(world, first, second)
    proposal = a.client.RemoveProposal(state_id=a.state, removed_id=c.identity).proposal
    world.commit(b, [proposal], removed=[c.identity])
    world.add(b, first)
    third = world.members[-1]
    proposal = b.client.RemoveProposal(state_id=b.state, removed_id=third.identity).proposal
    world.commit(a, [proposal], removed=[third.identity])


def psk_external(world: World, first: Client, second: Client) -> None:
    """An external PSK, by value and by reference, from both sides."""
    a, b, _ = trio(world, first, second)
    world.store_psk()
    for one, other in ((a, b), (b, a)):
        world.commit(one, by_value=[described("externalPSK", psk_id=PSK_ID)])
        proposal = one.client.ExternalPSKProposal(state_id=one.state, psk_id=PSK_ID).proposal
        world.commit(other, [proposal])


def psk_in_welcome(world: World, first: Client, second: Client) -> None:
    """A joiner whose Welcome depends on an external PSK."""
    a, _, _ = trio(world, first, second)
    world.store_psk()
    identity, made = world.key_package(second)
    second.StorePSK(
        state_or_transaction_id=made.transaction_id, psk_id=PSK_ID, psk_secret=PSK_SECRET
    )
    values = [
        described("add", key_package=made.key_package),
        described("externalPSK", psk_id=PSK_ID),
    ]
    world.commit(a, by_value=values, joiners=[(second, identity, made.transaction_id)])


def psk_resumption(world: World, first: Client, second: Client) -> None:
    """The PSK of an earlier epoch, by value and by reference."""
    a, b, _ = trio(world, first, second)
    for one, other in ((a, b), (b, a)):
        world.commit(one, by_value=[described("resumptionPSK", epoch_id=2)])
        proposal = one.client.ResumptionPSKProposal(state_id=one.state, epoch_id=3).proposal
        world.commit(other, [proposal])


def _extension(kind: int, data: bytes) -> Any:
    return PB.Extension(extension_type=kind, extension_data=data)


def extensions_value(world: World, first: Client, second: Client) -> None:
    """Group-context extensions by value."""
    a, b, _ = trio(world, first, second)
    for committer, data in zip((a, b), REQUIRED_CREDENTIALS, strict=True):
        extensions = [_extension(REQUIRED_CAPABILITIES_TYPE, data)]
        world.commit(
            committer, by_value=[described("groupContextExtensions", extensions=extensions)]
        )


def extensions_reference(world: World, first: Client, second: Client) -> None:
    """Group-context extensions by reference."""
    a, b, _ = trio(world, first, second)
    for (one, other), data in zip(((a, b), (b, a)), REQUIRED_CREDENTIALS, strict=True):
        extensions = [_extension(REQUIRED_CAPABILITIES_TYPE, data)]
        proposal = one.client.GroupContextExtensionsProposal(
            state_id=one.state, extensions=extensions
        ).proposal
        world.commit(other, [proposal])


def private_extension(world: World, first: Client, second: Client) -> None:
    """A private-use extension in the group context, for peers that know more than the RFC's."""
    extensions = [
        _extension(REQUIRED_CAPABILITIES_TYPE, REQUIRED_EXTENSION),
        _extension(SCENARIO_EXTENSION, b"data"),
    ]
    for client in (first, second):
        alone = World(world.suite, world.encrypt, world.outside).create(client)
        client.GroupContextExtensionsProposal(state_id=alone.state, extensions=extensions)
    _, b, _ = trio(world, first, second)
    world.commit(b, by_value=[described("groupContextExtensions", extensions=extensions)])


def _external_join(
    world: World, client: Client, info: Any, prior: bytes = b"", psks: Any = ()
) -> None:
    identity = prior or world.identity(client)
    joined = client.ExternalJoin(
        group_info=info.group_info,
        ratchet_tree=info.ratchet_tree,
        encrypt_handshake=world.encrypt,
        identity=identity,
        remove_prior=bool(prior),
        psks=psks,
    )
    world.members = [m for m in world.members if m.identity != prior]
    world.follow(None, [], joined.commit)
    world.members.append(Member(client, identity, joined.state_id))
    world.compare()


def external_join(world: World, first: Client, second: Client) -> None:
    """Joining by external commit, into a group published by either side."""
    a, b, _ = trio(world, first, second)
    _external_join(world, second, world.group_info(a))
    _external_join(world, first, world.group_info(b))
    world.commit(world.members[-1])
    world.commit(world.members[-2])
    world.chat()


def resync(world: World, first: Client, second: Client) -> None:
    """Joining again in place of one's own former leaf."""
    a, b, _ = trio(world, first, second)
    _external_join(world, second, world.group_info(a), prior=b.identity)
    _external_join(world, first, world.group_info(world.members[-1]), prior=a.identity)
    world.commit(world.members[-1])


def external_join_psk(world: World, first: Client, second: Client) -> None:
    """An external commit that injects a PSK."""
    a, _, _ = trio(world, first, second)
    world.store_psk()
    psks = [PB.PreSharedKey(psk_id=PSK_ID, psk_secret=PSK_SECRET)]
    _external_join(world, second, world.group_info(a), psks=psks)


def new_member(world: World, first: Client, second: Client) -> None:
    """A newcomer proposes itself."""
    a, b, _ = trio(world, first, second)
    for client, committer in ((second, a), (first, b)):
        identity = world.identity(client)
        # The request has no place for a tree beside the GroupInfo.
        info = committer.client.GroupInfo(state_id=committer.state, external_tree=False)
        made = client.NewMemberAddProposal(group_info=info.group_info, identity=identity)
        world.commit(committer, [made.proposal], joiners=[(client, identity, made.transaction_id)])


def external_signer(world: World, first: Client, second: Client) -> None:
    """An external sender is admitted, proposes an Add and a Remove, and is obeyed."""
    a, b, c = trio(world, first, second)
    signer = second.CreateExternalSigner(cipher_suite=world.suite, identity=b"signer")
    proposal = a.client.AddExternalSigner(
        state_id=a.state, external_sender=signer.external_sender
    ).proposal
    world.commit(b, [proposal])

    def proposes(description: Any) -> bytes:
        info = world.group_info(b)
        proposal: bytes = second.ExternalSignerProposal(
            signer_id=signer.signer_id,
            signer_index=0,
            group_info=info.group_info,
            ratchet_tree=info.ratchet_tree,
            description=description,
        ).proposal
        return proposal

    identity, made = world.key_package(first)
    message = proposes(described("add", key_package=made.key_package))
    world.commit(b, [message], joiners=[(first, identity, made.transaction_id)])
    message = proposes(described("remove", removed_id=c.identity))
    world.commit(a, [message], removed=[c.identity])


def reinit(world: World, first: Client, second: Client) -> None:
    """The group is closed and its successor, of another suite, opened by the second peer."""
    a, b, c = trio(world, first, second)
    suite = 2 if world.suite == 1 else 1
    proposal = a.client.ReInitProposal(
        state_id=a.state, cipher_suite=suite, group_id=b"successor", extensions=[]
    ).proposal
    commit = b.client.ReInitCommit(
        state_id=b.state, by_reference=[proposal], external_tree=world.outside
    ).commit
    opener = b.client.HandlePendingReInitCommit(state_id=b.state)
    others = [
        (m, m.client.HandleReInitCommit(state_id=m.state, proposal=[proposal], commit=commit))
        for m in (a, c)
    ]
    if {h.epoch_authenticator for _, h in others} != {opener.epoch_authenticator}:
        raise MismatchError("the closed epochs differ")
    opened = b.client.ReInitWelcome(
        reinit_id=opener.reinit_id,
        key_package=[h.key_package for _, h in others],
        external_tree=world.outside,
    )
    b.state = opened.state_id
    for member, handled in others:
        member.state = member.client.HandleReInitWelcome(
            reinit_id=handled.reinit_id, welcome=opened.welcome, ratchet_tree=opened.ratchet_tree
        ).state_id
    world.compare()
    world.commit(a)


def branch(world: World, first: Client, second: Client) -> None:
    """The second peer's member opens a branch for all."""
    a, b, c = trio(world, first, second)
    made = [
        (m, m.client.CreateKeyPackage(cipher_suite=world.suite, identity=m.identity))
        for m in (a, c)
    ]
    opened = b.client.CreateBranch(
        state_id=b.state,
        group_id=b"branch",
        key_packages=[k.key_package for _, k in made],
        external_tree=world.outside,
    )
    b.state = opened.state_id
    for member, package in made:
        member.state = member.client.HandleBranch(
            state_id=member.state,
            transaction_id=package.transaction_id,
            welcome=opened.welcome,
            ratchet_tree=opened.ratchet_tree,
        ).state_id
    world.compare()
    world.commit(a)


SCENARIOS: tuple[Callable[[World, Client, Client], None], ...] = (
    welcome,
    add_reference,
    update_reference,
    empty_commit,
    forced_path,
    remove_value,
    remove_reference,
    psk_external,
    psk_in_welcome,
    psk_resumption,
    extensions_value,
    extensions_reference,
    private_extension,
    external_join,
    resync,
    external_join_psk,
    new_member,
    external_signer,
    reinit,
    branch,
)


def verdict(
    scenario: Callable[..., None], world: World, first: Client, second: Client
) -> tuple[str, str]:
    """Play a scenario and say how it went, with the peer's words if it did not."""
    try:
        scenario(world, first, second)
    except grpc.RpcError as error:
        lacking = error.code() is grpc.StatusCode.UNIMPLEMENTED
        return ("lacks" if lacking else "FAIL"), f"{error.code().name}: {error.details()}"
    except MismatchError as error:
        return "FAIL", str(error)
    return "ok", ""


def play(clients: Sequence[Client], suites: Sequence[int], only: Sequence[str]) -> int:
    """Play all scenarios for all pairs, print the table and give the number of failures."""
    failures = 0
    offered = {c.name: set(c.SupportedCiphersuites().ciphersuites) for c in clients}
    for first, second in itertools.product(clients, repeat=2):
        for suite in sorted(set(suites) & offered[first.name] & offered[second.name]):
            for encrypt, outside in itertools.product((False, True), repeat=2):
                cells: dict[str, list[str]] = {}
                for scenario in SCENARIOS:
                    if only and scenario.__name__ not in only:
                        continue
                    result, words = verdict(scenario, World(suite, encrypt, outside), first, second)
                    cells.setdefault(result, []).append(scenario.__name__)
                    if words:
                        print(f"    {result:5} {scenario.__name__}: {words}")
                failures += len(cells.get("FAIL", ()))
                counts = ", ".join(f"{len(v)} {k}" for k, v in sorted(cells.items()))
                print(
                    f"{first.name} / {second.name}, suite {suite}, "
                    f"{'Private' if encrypt else 'Public'}Message, "
                    f"tree {'outside' if outside else 'inside'}: {counts}",
                    flush=True,
                )
    return failures


def main() -> int:
    """Start the peers named and play."""
    parser = argparse.ArgumentParser(description="Check that the interop peers talk to each other.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(build.PEERS)}")
    parser.add_argument("--suite", type=int, action="append", help="cipher suites; default 1")
    parser.add_argument("--scenario", action="append", default=[], help="only these scenarios")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        names = options.names or list(build.PEERS)
        clients = [stack.enter_context(served(name)) for name in names]
        return 1 if play(clients, options.suite or [1], options.scenario) else 0


if __name__ == "__main__":
    raise SystemExit(main())
