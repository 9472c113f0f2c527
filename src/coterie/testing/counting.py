"""Counts what a piece of code asks of the cryptography, by kind: to show that nothing grows that should not.

The boundary is `Suite` (and the `Sealer` that it hands out): every operation of the core goes through one of its
methods. A method that calls another one counts as itself alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any
from unittest.mock import patch

from coterie.mls.crypto import Suite
from coterie.mls.hpke import Sealer

EACH = 0
"""The weight of a method that does one operation for each element of its last argument."""
KINDS: dict[tuple[type, str], tuple[str, int]] = {
    (Suite, "hash"): ("hash", 1),
    (Suite, "hash_many"): ("hash", EACH),
    (Suite, "ref_hash"): ("hash", 1),
    (Suite, "key_package_ref"): ("hash", 1),
    (Suite, "proposal_ref"): ("hash", 1),
    (Suite, "mac"): ("mac", 1),
    (Suite, "verify_mac"): ("mac", 1),
    (Suite, "extract"): ("kdf", 1),
    (Suite, "expand"): ("kdf", 1),
    (Suite, "expand_with_label"): ("kdf", 1),
    (Suite, "derive_secret"): ("kdf", 1),
    (Suite, "derive_tree_secret"): ("kdf", 1),
    (Suite, "derive_children"): ("kdf", 2),
    (Suite, "derive_secrets"): ("kdf", EACH),
    (Suite, "derive_generation"): ("kdf", 3),
    (Suite, "key_and_nonce"): ("kdf", 2),
    (Suite, "generate_hpke_key"): ("generate key", 1),
    (Suite, "derive_key_pair"): ("derive key", 1),
    (Suite, "sign_with_label"): ("sign", 1),
    (Suite, "verify_with_label"): ("verify", 1),
    (Suite, "verify_batch"): ("verify", EACH),
    (Suite, "encrypt_with_label"): ("hpke seal", 1),
    (Sealer, "seal"): ("hpke seal", 1),
    (Suite, "decrypt_with_label"): ("hpke open", 1),
    (Suite, "export_seal"): ("hpke seal", 1),
    (Suite, "export_open"): ("hpke open", 1),
    (Suite, "aead_seal"): ("aead seal", 1),
    (Suite, "aead_open"): ("aead open", 1),
}
"""The kind of each method, and how many operations of that kind one call of it is."""


@contextmanager
def count_operations() -> Iterator[Counter[str]]:
    """Counts the operations of all suites, by kind, while the context lasts; not for several threads at once."""
    counts: Counter[str] = Counter()
    inside = False

    def counted(method: Callable[..., Any], kind: str, weight: int) -> Callable[..., Any]:
        @wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - whatever the method takes and gives
            nonlocal inside
            if inside:
                return method(*args, **kwargs)
            counts[kind] += weight if weight != EACH else len(args[-1])
            inside = True
            try:
                return method(*args, **kwargs)
            finally:
                inside = False

        return call

    with ExitStack() as stack:
        for (cls, name), (kind, weight) in KINDS.items():
            method = getattr(cls, name)
            stack.enter_context(patch.object(cls, name, counted(method, kind, weight)))
        yield counts
