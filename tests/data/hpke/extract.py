"""Writes `rfc9180-base.json`, what the tests need of the vectors that the HPKE working group published with RFC 9180.

Run with the package `cryptography-vectors` installed (extra `vectors`): python tests/data/hpke/extract.py
Kept: mode base, the first encryption of each vector and its exports; of P-384, which RFC 9180's vectors leave out, the
KEM alone, from the vectors of its post-quantum successor (whose other KDFs are not ours).
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

EXTRACT = Path(__file__).with_name("rfc9180-base.json")
EXPORT_ONLY = 0xFFFF
DHKEM_P384 = 0x0011
KEM_FIELDS = ("kem_id", "ikmR", "skRm", "pkRm", "ikmE", "enc", "shared_secret")
FIELDS = (*KEM_FIELDS, "skEm", "kdf_id", "aead_id", "info", "exports")


def extract() -> dict[str, Any]:
    """The extract, out of the installed package."""
    folder = files("cryptography_vectors") / "HPKE"
    full = json.loads((folder / "test-vectors.json").read_text())
    newer = json.loads((folder / "hpke-pq-test-vectors.json").read_text())
    return {
        "base": [
            {field: vector[field] for field in FIELDS}
            | {
                "encryption": {
                    field: vector["encryptions"][0][field] for field in ("aad", "pt", "ct")
                }
            }
            for vector in full
            if vector["mode"] == 0 and vector["aead_id"] != EXPORT_ONLY
        ],
        "kem": [
            {field: vector[field] for field in KEM_FIELDS}
            for vector in newer
            if vector["kem_id"] == DHKEM_P384
        ],
    }


if __name__ == "__main__":
    EXTRACT.write_text(json.dumps(extract(), indent=1) + "\n")
