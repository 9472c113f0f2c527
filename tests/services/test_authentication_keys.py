"""The service's keys on disk: made once, encrypted, never readable by others, never of another realm."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from coterie.authentication.keystore import (
    CODE_KEY_FILE,
    ROOT_CERTIFICATE_FILE,
    ROOT_KEY_FILE,
    load_authority,
    load_code_key,
    read_passphrase,
    write_private,
)
from coterie.errors import StateError, StorageError
from coterie.mls.secret import Secret
from tests.pki import NOW, REALM

PASSPHRASE = Secret(b"correct horse battery staple")


def test_the_root_is_made_on_the_first_start_and_found_on_the_next(tmp_path: Path) -> None:
    first = load_authority(tmp_path / "as", REALM, now=NOW, passphrase=PASSPHRASE)
    again = load_authority(tmp_path / "as", REALM, now=NOW + 1, passphrase=PASSPHRASE)
    assert first.certificate == again.certificate
    key = tmp_path / "as" / ROOT_KEY_FILE
    assert b"ENCRYPTED" in key.read_bytes()
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.parent.stat().st_mode & 0o777 == 0o700


def test_a_first_start_that_was_cut_off_after_the_key_goes_on(tmp_path: Path) -> None:
    load_authority(tmp_path, REALM, now=NOW, passphrase=PASSPHRASE)
    (tmp_path / ROOT_CERTIFICATE_FILE).unlink()
    load_authority(tmp_path, REALM, now=NOW, passphrase=PASSPHRASE)


def test_a_wrong_passphrase_a_lost_key_another_realm_are_refused(tmp_path: Path) -> None:
    load_authority(tmp_path, REALM, now=NOW, passphrase=PASSPHRASE)
    with pytest.raises(StorageError, match="passphrase is wrong"):
        load_authority(tmp_path, REALM, now=NOW, passphrase=Secret(b"x" * 30))
    with pytest.raises(StorageError, match="belongs to the realm"):
        load_authority(tmp_path, "other.example", now=NOW, passphrase=PASSPHRASE)
    (tmp_path / ROOT_KEY_FILE).unlink()
    with pytest.raises(StorageError, match="cannot read"):
        load_authority(tmp_path, REALM, now=NOW, passphrase=PASSPHRASE)


def pem(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize("curve", [ec.SECP256R1, ec.SECP384R1])
def test_the_operators_key_file_is_used_and_not_copied(
    tmp_path: Path, curve: type[ec.EllipticCurve]
) -> None:
    own = tmp_path / "own.pem"
    write_private(own, pem(ec.generate_private_key(curve())))
    load_authority(tmp_path / "as", REALM, now=NOW, key_file=own)
    assert [f.name for f in (tmp_path / "as").iterdir()] == [ROOT_CERTIFICATE_FILE]


def test_another_key_than_the_roots_and_another_kind_are_refused(tmp_path: Path) -> None:
    paths = [tmp_path / "one.pem", tmp_path / "two.pem", tmp_path / "ed.pem", tmp_path / "521.pem"]
    keys: list[ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey] = [
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP256R1()),
        ed25519.Ed25519PrivateKey.generate(),
        ec.generate_private_key(ec.SECP521R1()),
    ]
    for path, key in zip(paths, keys, strict=True):
        write_private(path, pem(key))
    load_authority(tmp_path / "as", REALM, now=NOW, key_file=paths[0])
    with pytest.raises(StorageError, match="belong together"):
        load_authority(tmp_path / "as", REALM, now=NOW, key_file=paths[1])
    for path in paths[2:]:
        with pytest.raises(StorageError, match="another kind"):
            load_authority(tmp_path / "new", REALM, now=NOW, key_file=path)


def test_without_passphrase_and_key_file_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="passphrase"):
        load_authority(tmp_path / "as", REALM, now=NOW)
    assert not (tmp_path / "as").exists()


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    load_authority(tmp_path, REALM, now=NOW, passphrase=PASSPHRASE)
    (tmp_path / ROOT_KEY_FILE).chmod(0o640)
    with pytest.raises(StorageError, match="chmod 600"):
        load_authority(tmp_path, REALM, now=NOW, passphrase=PASSPHRASE)


def test_a_short_passphrase_is_refused(tmp_path: Path) -> None:
    write_private(tmp_path / "short", b"nineteen bytes long\n")
    with pytest.raises(StorageError, match="must have 20"):
        read_passphrase(tmp_path / "short")
    write_private(tmp_path / "long", b"twenty bytes long ok\n")
    assert read_passphrase(tmp_path / "long") == b"twenty bytes long ok"


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    write_private(tmp_path / "key", b"one")
    with pytest.raises(StorageError, match="cannot write"):
        write_private(tmp_path / "key", b"two")
    assert [f.name for f in tmp_path.iterdir()] == ["key"]


def test_the_code_key_is_made_once_and_a_damaged_one_refused(tmp_path: Path) -> None:
    assert load_code_key(tmp_path) == load_code_key(tmp_path)
    (tmp_path / CODE_KEY_FILE).write_bytes(b"short")
    with pytest.raises(StorageError, match="must have 32"):
        load_code_key(tmp_path)
