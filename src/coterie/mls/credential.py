"""Credentials and the application's hook that authenticates them (RFC 9420 §5.3).

What a credential means is decided outside the protocol, by an Authentication Service. The core cannot be used without
one: wherever a group is made or joined, an object with the methods of `Authenticator` must be given. `AcceptAnything`
says in the open that nobody is authenticated, and is for tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, ClassVar, Protocol

from coterie.errors import VerificationError
from coterie.mls.crypto import batches
from coterie.mls.rules import Rule
from coterie.mls.tls import Select, Struct
from coterie.mls.types import CredentialType


class Certificate(Struct):
    """§5.3: one DER-encoded X.509 certificate."""

    cert_data: bytes


class Credential(Struct):
    """§5.3: `content` is the identity of a basic credential, the chain of an x509 one, else opaque bytes.

    Credential types that are not known here are read as one opaque vector, as their drafts define them.
    """

    _detached: ClassVar[bool] = True

    credential_type: CredentialType
    content: Annotated[
        bytes | tuple[Certificate, ...],
        Select(
            "credential_type",
            {CredentialType.BASIC: bytes, CredentialType.X509: tuple[Certificate, ...]},
            default=bytes,
        ),
    ]

    @classmethod
    def basic(cls, identity: bytes) -> Credential:
        """A bare assertion of an identity."""
        return cls(CredentialType.BASIC, identity)

    @classmethod
    def x509(cls, chain: tuple[bytes, ...]) -> Credential:
        """A chain of DER certificates, the end entity's first."""
        return cls(CredentialType.X509, tuple(map(Certificate, chain)))

    @property
    def identity(self) -> bytes:
        """The content of a basic (or unknown) credential, the end entity's certificate of an x509 one."""
        if isinstance(self.content, bytes):
            return self.content
        return self.content[0].cert_data if self.content else b""


class Authenticator(Protocol):
    """The application's Authentication Service, as far as the core needs it (§5.3.1).

    One that has an attribute `thread_safe` which is true may be asked to `authenticate` by several threads at once: by
    those of `Config.run`, where many members or key packages are verified.
    """

    def authenticate(
        self, credential: Credential, signature_key: bytes, *, now: int | None
    ) -> None:
        """Raises `VerificationError` unless the credential's identifiers belong to the signature key.

        `now` is in seconds since 1970, or None where validity must not depend on the time (members of a group who
        judge a Commit at different times must come to the same verdict).
        """

    def client_id(self, credential: Credential) -> bytes:
        """Bytes that two credentials share exactly if they are the same client's (§12.2).

        A group has at most one leaf of a client. Bytes rather than a comparison, so that a group of 50,000 need not
        be searched for each new member; they must not change while a group lasts.
        """

    def valid_successor(self, old: Credential, new: Credential) -> None:
        """Raises `VerificationError` unless `new` may stand where the same member had `old` (§5.3.1)."""


def authenticate(
    authenticator: Authenticator, credential: Credential, signature_key: bytes, *, now: int | None
) -> None:
    """Asks the application whether a credential is good; its `VerificationError` has a rule then (§5.3.1)."""
    authenticate_all(authenticator, ((credential, signature_key),), now=now)


def authenticate_all(
    authenticator: Authenticator,
    holders: Iterable[tuple[Credential, bytes]],
    *,
    now: int | None,
    run: Callable[..., Iterable[Any]] = map,
) -> None:
    """As `authenticate` for each credential with its signature key; the first that is refused raises.

    `run` is `map` or an executor's; it is used where the authenticator is `thread_safe`.
    """
    ask = authenticator.authenticate

    def refusal(batch: Sequence[tuple[Credential, bytes]]) -> VerificationError | None:
        try:
            for credential, signature_key in batch:
                ask(credential, signature_key, now=now)
        except VerificationError as error:
            return error
        return None

    run = run if getattr(authenticator, "thread_safe", False) else map
    for error in run(refusal, batches(holders)):
        if error is not None:
            rule = error.rule or Rule.CREDENTIAL
            raise VerificationError(str(error.args[0]), rule=rule) from error


def check_successor(authenticator: Authenticator, old: Credential, new: Credential) -> None:
    """Asks the application whether a credential may replace another; its `VerificationError` has a rule then."""
    try:
        authenticator.valid_successor(old, new)
    except VerificationError as error:
        rule = error.rule or Rule.CREDENTIAL_SUCCESSOR
        raise VerificationError(str(error.args[0]), rule=rule) from error


class AcceptAnything:
    """Authenticates nobody: every credential is taken at its word. For tests and experiments only."""

    def authenticate(
        self, credential: Credential, signature_key: bytes, *, now: int | None
    ) -> None:
        """Accepts."""

    def client_id(self, credential: Credential) -> bytes:
        """The whole credential: only equal ones are the same client's."""
        return credential.encode()

    def valid_successor(self, old: Credential, new: Credential) -> None:
        """Accepts whatever says it is the same client."""
        if old != new:
            msg = "the new credential names another client than the old one"
            raise VerificationError(msg, rule=Rule.CREDENTIAL_SUCCESSOR)
