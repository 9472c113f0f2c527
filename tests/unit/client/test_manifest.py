"""A bundle whose manifest is of another one is void: it blames nobody and does not use up a leaf (D-VAL-3)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from coterie.client.events import Problem
from coterie.client.line import Line
from coterie.mls.group import CommitOptions, PendingCommit
from coterie.transport import api
from tests.client_world import world

OTHER = api.Access(bytes(32), bytes(32), bytes(32))
OPTIONS = CommitOptions(members_per_welcome=1, external_pub=False)
CHANGES: dict[str, dict[str, object]] = {
    "nothing": {},
    "epoch": {"epoch": b"e" * 32},
    "id": {"id": b"i" * 32},
    "last_candidate": {"last_candidate": b"l" * 32},
    "next": {"next": OTHER},
    "commit_hash": {"commit_hash": b"c" * 32},
    "head": {"head": b"h" * 32},
    "leaf_index": {"leaf_index": 77},
    "another_leaf": {"leaf_index": 1},
}


def _changed(line: Line, pending: PendingCommit, changes: dict[str, object]) -> api.Append:
    """The bundle of a Commit, with a manifest that its committer signed over something else."""
    append = line.bundle(pending)
    sealed = line.keys.open(append.entry)
    content = api.CommitContent.decode(sealed.content)
    tbs = content.manifest.tbs.replace(**changes)
    signature = line.group.sign(api.MANIFEST_LABEL.decode(), tbs.encode())
    content = content.replace(manifest=api.Manifest(tbs, signature))
    return line.keys.append(
        append.entry.header, sealed.replace(content=content.encode(), padding=b"")
    )


@pytest.mark.parametrize("what", CHANGES)
def test_a_manifest_that_is_not_of_its_bundle_makes_it_void(tmp_path: Path, what: str) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = [await w.device(name) for name in ("alice", "bob")]
            group = await alice.create_group("Friends")
            await group.add("bob")
            await w.settle()
            bob.pending_events()
            line = alice._conversations[group.id].line
            pending = line.group.commit([], now=w.now, options=OPTIONS)
            await alice.tools.delivery.append(_changed(line, pending, CHANGES[what]))
            before = bob.groups()[0].epoch
            conversation = bob._conversations[group.id]
            await conversation.catch_up()
            if what == "nothing":
                assert bob.groups()[0].epoch == before + 1
                return
            assert bob.groups()[0].epoch == before
            assert conversation.line.state.used_leaves == ()
            assert conversation.line.ended
            assert not [e for e in bob.pending_events() if isinstance(e, Problem)]

    asyncio.run(story())
