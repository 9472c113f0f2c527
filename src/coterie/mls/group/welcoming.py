"""GroupInfo and Welcomes, from the inside and from the outside (RFC 9420 §12.4.3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from coterie.errors import DecodeError, DecryptionError, RuleViolation
from coterie.mls.crypto import Suite
from coterie.mls.extension import Extension, ExternalPub, grease
from coterie.mls.framing import MLSMessage
from coterie.mls.group.commit import CreatedCommit
from coterie.mls.group.config import CommitOptions, Config
from coterie.mls.group.epoch import Epoch
from coterie.mls.group.psks import CONTINUING, PskFinder
from coterie.mls.group_context import PreSharedKeyID
from coterie.mls.key_package import KeyPackageBundle
from coterie.mls.key_schedule import Joiner, exported_secret, psk_secret
from coterie.mls.ratchet_tree import HPKECiphertext
from coterie.mls.rules import Rule
from coterie.mls.secret import Secret
from coterie.mls.tree_math import LeafIndex
from coterie.mls.types import CipherSuite, ExtensionType
from coterie.mls.validation.proposal_list import check_psks
from coterie.mls.welcome import (
    EncryptedGroupSecrets,
    GroupInfo,
    GroupInfoTBS,
    GroupSecrets,
    PathSecret,
    Welcome,
)


def group_info(epoch: Epoch, config: Config, *, tree: bool, external_pub: bool) -> GroupInfo:
    """The signed GroupInfo of an epoch (§12.4.3), with the tree in it or not."""
    extensions = []
    if tree:
        extensions.append(Extension(ExtensionType.RATCHET_TREE, epoch.tree.encode()))
    if external_pub:
        pub = ExternalPub(epoch.external_key().public).encode()
        extensions.append(Extension(ExtensionType.EXTERNAL_PUB, pub))
    if config.limits.grease:
        kind = ExtensionType(grease(config.rng)[0])
        extensions.append(Extension(kind, config.rng(config.rng(1)[0] % 16)))
    tbs = GroupInfoTBS(epoch.context, tuple(extensions), epoch.confirmation_tag, epoch.leaf)
    return tbs.sign(epoch.suite, epoch.signature_key)


def welcomes(
    created: CreatedCommit, info: GroupInfo, options: CommitOptions, config: Config
) -> Iterator[MLSMessage]:
    """The Welcomes for all members that a Commit adds (§12.4.3.1), each for as many as the options say."""
    added = [
        (leaf, add.key_package)
        for leaf, (add, _) in zip(
            created.staged.new_leaves, created.staged.proposals.adds, strict=True
        )
    ]
    if not added:
        return
    suite, joiner = created.begun.epoch.suite, created.begun.joiner
    key, nonce = joiner.welcome_key_and_nonce()
    sealed_info = suite.aead_seal(key, nonce, b"", info.encode())
    sealer = suite.sealer("Welcome", sealed_info)
    psks = created.staged.proposals.psks

    def secret(leaf: LeafIndex) -> bytes:
        path_secret = created.path.derived.secret_for(leaf) if created.path else None
        path = PathSecret(path_secret) if path_secret is not None else None
        return GroupSecrets(joiner.joiner_secret, path, psks).encode()

    jobs = ((package.init_key, secret(leaf)) for leaf, package in added)
    sealed = sealer.seal_many(jobs, config.rng, config.run)
    secrets = [
        EncryptedGroupSecrets(package.reference(), HPKECiphertext(*one))
        for (_, package), one in zip(added, sealed, strict=True)
    ]
    size = options.members_per_welcome or len(secrets)
    for start in range(0, len(secrets), size):
        part = tuple(secrets[start : start + size])
        yield MLSMessage.of(Welcome(CipherSuite(suite.cipher_suite), part, sealed_info))


@dataclass(frozen=True, slots=True, repr=False)
class OpenedWelcome:
    """A Welcome opened with the init key: what it says, not verified."""

    suite: Suite
    info: GroupInfo
    joiner: Joiner
    path_secret: Secret | None
    psks: tuple[PreSharedKeyID, ...]

    def export_secret(self, label: str, context: bytes, length: int) -> Secret:
        """What the epoch exports that it leads to (§8.5), to get the tree with; the group is not verified yet."""
        secrets, _ = self.joiner.epoch(self.info.group_context)
        return exported_secret(self.suite, secrets.exporter_secret, label, context, length)

    def continuing(self) -> PreSharedKeyID | None:
        """The resumption key that links the group to the one that it continues, if it does (§11.2, §11.3)."""
        return next((psk for psk in self.psks if psk.usage in CONTINUING), None)


def open_welcome(
    welcome: Welcome, bundle: KeyPackageBundle, suite: Suite, find_psks: PskFinder
) -> OpenedWelcome:
    """Finds and opens what a Welcome has for this client (§12.4.3.1).

    Raises `RuleViolation`, `DecryptionError` or `DecodeError`.
    """
    package = bundle.key_package
    reference = package.reference()
    entry = next((s for s in welcome.secrets if s.new_member == reference), None)
    if entry is None:
        msg = "the Welcome is not for this key package"
        raise RuleViolation(msg, rule=Rule.WELCOME_KEY_PACKAGE)
    if welcome.cipher_suite != package.cipher_suite:
        msg = "the Welcome is for another cipher suite than the key package"
        raise RuleViolation(msg, rule=Rule.WELCOME_CIPHER_SUITE)
    secrets = _open_secrets(suite, entry, bundle, welcome.encrypted_group_info)
    if sum(psk.usage in CONTINUING for psk in secrets.psks) > 1:
        msg = "the Welcome has more than one resumption key for reinit or branch"
        raise RuleViolation(msg, rule=Rule.WELCOME_ONE_RESUMPTION)
    usage = next((psk.usage for psk in secrets.psks if psk.usage in CONTINUING), None)
    check_psks(secrets.psks, suite.hash_length, usage)
    joiner = Joiner.of(suite, secrets.joiner_secret, psk_secret(suite, find_psks(secrets.psks)))
    key, nonce = joiner.welcome_key_and_nonce()
    try:
        data = suite.aead_open(key, nonce, b"", welcome.encrypted_group_info)
    except DecryptionError as error:
        msg = "the GroupInfo of the Welcome does not open with its joiner secret"
        raise DecryptionError(msg, rule=Rule.WELCOME_GROUP_INFO) from error
    path_secret = secrets.path_secret.path_secret if secrets.path_secret else None
    return OpenedWelcome(suite, GroupInfo.decode(data), joiner, path_secret, secrets.psks)


def _open_secrets(
    suite: Suite, entry: EncryptedGroupSecrets, bundle: KeyPackageBundle, context: bytes
) -> GroupSecrets:
    sealed = entry.encrypted_group_secrets
    try:
        data = suite.decrypt_with_label(
            bundle.init_key, "Welcome", context, sealed.kem_output, sealed.ciphertext
        )
    except DecryptionError as error:
        msg = "the secrets of the Welcome do not open with the key package's init key"
        raise DecryptionError(msg, rule=Rule.WELCOME_SECRETS) from error
    return GroupSecrets.decode(bytes(data))


def read_welcome(message: MLSMessage | Welcome) -> Welcome:
    """The Welcome of a message; raises `DecodeError` where it is something else."""
    body = message.body if isinstance(message, MLSMessage) else message
    if not isinstance(body, Welcome):
        msg = f"expected a Welcome, found a {type(body).__name__}"
        raise DecodeError(msg, rule=Rule.ENUM_VALUE)
    return body
