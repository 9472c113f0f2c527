"""The service's keys on disk: the root's, encrypted or in a file of the operator's, and the key of the hashes.

Files are made with mode 0600 in a directory of 0700, whole or not at all, and refused if others may read them. The
passphrase comes from elsewhere: a backup of the data directory alone lets nobody issue certificates.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import sys
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from coterie.authentication.ca import CertificateAuthority
from coterie.errors import StateError, StorageError
from coterie.mls.secret import Secret

ROOT_KEY_FILE: Final = "root-key.pem"
ROOT_CERTIFICATE_FILE: Final = "root.der"
CODE_KEY_FILE: Final = "code.key"
MIN_PASSPHRASE: Final = 20
"""Bytes: the format's key derivation is quick, so the passphrase must be long."""


def write_private(path: Path, content: bytes) -> None:
    """Writes a file that only its owner can read, durably; `StorageError` if it is there already or cannot be made."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            # A link, unlike a rename, never replaces a key that another process has just made.
            os.link(temporary, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
        sync_directory(path.parent)
    except OSError as error:
        msg = f"cannot write {path}: {error.strerror}"
        raise StorageError(msg) from error


def sync_directory(directory: Path) -> None:
    """Makes the names in a directory durable, where the system needs that and can do it."""
    if sys.platform == "win32":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_private(path: Path) -> bytes:
    """Reads a file; `StorageError` if it is not there or others than its owner may read it."""
    try:
        if sys.platform != "win32" and stat.S_IMODE(path.stat().st_mode) & 0o077:
            msg = f"{path} can be read by others than its owner; run: chmod 600 {path}"
            raise StorageError(msg)
        return path.read_bytes()
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror}"
        raise StorageError(msg) from error


def read_passphrase(path: Path) -> Secret:
    """The passphrase of a file, without the line's end."""
    passphrase = Secret(read_private(path).rstrip(b"\r\n"))
    if len(passphrase) < MIN_PASSPHRASE:
        msg = f"the passphrase in {path} has {len(passphrase)} bytes, it must have {MIN_PASSPHRASE} or more"
        raise StorageError(msg)
    return passphrase


def load_authority(
    directory: Path,
    realm: str,
    *,
    now: int,
    passphrase: Secret | None = None,
    key_file: Path | None = None,
) -> CertificateAuthority:
    """The CA of a data directory, made there on the first start.

    The key is in `key_file` (PEM, ECDSA P-256 or P-384, the operator's) or in the directory, encrypted under the
    passphrase; one of the two must be given. Raises `StateError` if none is, `StorageError` for files that do not
    fit, among them a root of another realm.
    """
    if key_file is None and passphrase is None:
        msg = "give a passphrase file for the root key, or a root key file (see the configuration)"
        raise StateError(msg)
    path = directory / ROOT_KEY_FILE if key_file is None else key_file
    certificate = directory / ROOT_CERTIFICATE_FILE
    if certificate.exists():
        authority = CertificateAuthority(_load_key(path, passphrase), certificate.read_bytes())
        if authority.realm != realm:
            msg = f"{directory} belongs to the realm {authority.realm}, the configuration says {realm}"
            raise StorageError(msg)
        return authority
    # Without a certificate nobody has seen the key: one that is there comes from a start that was cut off.
    if key_file is None and not path.exists():
        write_private(path, _new_key(passphrase))
    authority = CertificateAuthority.create(realm, now=now, key=_load_key(path, passphrase))
    write_private(certificate, authority.certificate)
    return authority


def _new_key(passphrase: Secret | None) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    encryption = BestAvailableEncryption(passphrase or b"")
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def _load_key(path: Path, passphrase: Secret | None) -> ec.EllipticCurvePrivateKey:
    pem = read_private(path)
    try:
        encrypted = b"ENCRYPTED" in pem
        key = load_pem_private_key(pem, passphrase if encrypted else None)
    except (ValueError, TypeError) as error:
        msg = f"{path} does not open: it is no private key in PEM, or the passphrase is wrong"
        raise StorageError(msg) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in (
        "secp256r1",
        "secp384r1",
    ):
        msg = f"{path} is a key of another kind; the root's must be ECDSA on P-256 or P-384"
        raise StorageError(msg)
    return key


def load_code_key(directory: Path) -> Secret:
    """The key of the hashes in the database (32 bytes), made on the first start."""
    path = directory / CODE_KEY_FILE
    if not path.exists():
        write_private(path, secrets.token_bytes(32))
    key = Secret(read_private(path))
    if len(key) != 32:
        msg = f"{path} has {len(key)} bytes, must have 32; restore it from a backup"
        raise StorageError(msg)
    return key
