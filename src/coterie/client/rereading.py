"""Reading an older epoch again, now and then, as somebody whom the service does not know (D-REC-12).

All members of an epoch show the same token, so a service that tells two histories cannot tell which of them it should
tell to whom comes over a fresh connection.
"""

from __future__ import annotations

import random
from contextlib import suppress

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from coterie.client.outcomes import Evidence
from coterie.client.receipts import verify_receipt
from coterie.client.returning import Returning
from coterie.client.trail import Passed
from coterie.errors import ServiceError, VerificationError
from coterie.transport import api

AT_A_TIME = 8
"""How many older epochs are read again about once a day."""
_DAY = 24 * 3600


class Rereading(Returning):
    """Compares what the service says of an older epoch with what it said."""

    async def _reread(self) -> None:
        """About once a day: some older epochs, chosen at random, each over a connection of its own."""
        vault, now = self._tools.vault, self._tools.clock()
        due = vault.next_reading(self.id)
        if not self.is_active or (due is not None and now < due):
            return
        with vault.step() as step:
            step.set_next_reading(self.id, now + random.randint(_DAY // 2, _DAY * 3 // 2))  # noqa: S311 - a time
            retention = self.line.binding.retention
            step.forget_passed(self.id, now - retention)
            step.forget_boxes(self.id, self.line.state.epoch, now, retention)
        passed = vault.passed(self.id) if due is not None else []
        for chosen in random.sample(passed, min(len(passed), AT_A_TIME)):
            # What cannot be read now is read another day: absence is no evidence (D-REC-13).
            with suppress(ServiceError, VerificationError):
                await self._compare(chosen)
            if not self.is_active:
                return

    async def _compare(self, passed: Passed) -> None:
        service = self._tools.fresh()
        last, binding = passed.last, self.line.binding
        try:
            result = await service.read(
                api.Read(binding.log_id, last.epoch, passed.read_token, last.number, 1)
            )
        finally:
            await service.close()
        self._tools.count("epochs read again")
        found = [stored.receipt for stored in result.entries]
        if result.gone is not None:
            found.append(result.gone)
        for receipt in found:
            if (receipt.epoch, receipt.number) == (last.epoch, last.number):
                verify_receipt(Ed25519PublicKey.from_public_bytes(binding.receipt_key), receipt)
                if receipt.hash() != last.hash():
                    what = f"two receipts with number {last.number} of an older epoch"
                    self._stop(Evidence(last, receipt, what))
