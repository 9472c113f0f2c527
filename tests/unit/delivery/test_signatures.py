"""Signatures of appends on another core: what is said holds, what fails falls back, nothing outlives the service."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coterie.delivery import signatures
from coterie.delivery.limits import LOCAL
from coterie.delivery.signatures import Checked, SignatureChecks
from coterie.transport.api import ErrorCode, append_to_be_signed
from tests.delivery_bench import Bench, Raises

EPOCH = bytes(32)
pytestmark = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="there is no second core")


class Signer:
    def __init__(self) -> None:
        self.private = Ed25519PrivateKey.generate()
        self.key = self.private.public_key().public_bytes_raw()

    def signed(self, number: int) -> tuple[bytes, bytes]:
        content = append_to_be_signed(number.to_bytes(32))
        return self.private.sign(content), content


async def started(checks: SignatureChecks, signer: Signer) -> None:
    """Asks until the process answers."""
    checks.learn(EPOCH, signer.key)
    for _ in range(500):
        if any(await many(checks, [signer.signed(n) for n in range(8)])):
            return
        await asyncio.sleep(0.02)
    pytest.fail("the process for signatures did not start")


async def many(checks: SignatureChecks, signed: list[tuple[bytes, bytes]]) -> list[Checked | None]:
    waiting = (checks.check(EPOCH, *item, under_way=len(signed)) for item in signed)
    return await asyncio.wait_for(asyncio.gather(*waiting), 20)


def test_what_holds_is_told_from_what_does_not() -> None:
    async def run() -> None:
        signer, checks = Signer(), SignatureChecks()
        await started(checks, signer)
        signed = [signer.signed(n) for n in range(300)]
        for bad in (7, 250):
            signed[bad] = (signed[bad][0], append_to_be_signed(bytes(32)))
        answers = await many(checks, signed)
        assert [n for n, answer in enumerate(answers) if answer is None] == [7, 250]
        assert answers[8] == Checked(signer.key, *signed[8])
        await checks.close()

    asyncio.run(run())


def test_few_and_strangers_are_not_sent_away() -> None:
    async def run() -> None:
        signer, checks = Signer(), SignatureChecks()
        await started(checks, signer)
        assert await checks.check(EPOCH, *signer.signed(1), under_way=1) is None
        assert await checks.check(bytes([1]) * 32, *signer.signed(1), under_way=99) is None
        # One that waits alone is told at once that nobody checked it.
        alone = checks.check(EPOCH, *signer.signed(1), under_way=99)
        assert await asyncio.wait_for(alone, 20) is None
        await checks.close()

    asyncio.run(run())


def test_a_process_that_dies_leaves_nobody_waiting_and_ends_with_the_service() -> None:
    async def run() -> None:
        signer, checks = Signer(), SignatureChecks()
        await started(checks, signer)
        process = checks.process
        assert process is not None
        process.kill()
        answers = await many(checks, [signer.signed(n) for n in range(50)])
        assert answers == [None] * 50
        await process.wait()
        assert await many(checks, [signer.signed(n) for n in range(50)]) == [None] * 50
        assert checks.failures == 1
        await checks.close()

        again = SignatureChecks()
        await started(again, signer)
        process = again.process
        assert process is not None
        await again.close()
        assert process.returncode is not None

    asyncio.run(run())


def test_a_process_that_hangs_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        signer, checks = Signer(), SignatureChecks()
        await started(checks, signer)
        process = checks.process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        monkeypatch.setattr(signatures, "_PATIENCE", 0.1)
        signed = [signer.signed(n) for n in range(50)]
        assert await asyncio.wait_for(many(checks, signed), 5) == [None] * 50
        await process.wait()
        assert checks.failures == 1
        await checks.close()

    asyncio.run(run())


def test_a_check_counts_for_what_it_was_made_of_only() -> None:
    bench = Bench()
    epoch, other = bench.new_log(), bench.new_log()
    mine, theirs = epoch.message(b"mine"), other.message(b"theirs")
    forged = mine.replace(signature=theirs.signature)
    content = append_to_be_signed(theirs.entry.hash())
    checked = Checked(other.access.append_key, theirs.signature, content)
    with Raises(ErrorCode.BAD_SIGNATURE, "D-ENT-1"):
        bench.run(lambda tx: bench.logs.append(tx, forged, LOCAL, checked))
    right = Checked(epoch.access.append_key, mine.signature, append_to_be_signed(mine.entry.hash()))
    with Raises(ErrorCode.BAD_SIGNATURE, "D-ENT-1"):
        bench.run(lambda tx: bench.logs.append(tx, forged, LOCAL, right))
    assert bench.run(lambda tx: bench.logs.append(tx, mine, LOCAL, right)).stored is not None
