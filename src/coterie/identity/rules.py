"""What a credential must satisfy here, each rule with the stable id that errors carry and tests name."""

from __future__ import annotations

from enum import StrEnum


class CredentialRule(StrEnum):
    """A rule's id; the comment beside it says it in one line."""

    # names
    USER_NAME = "identity/user-name"  # 1 to 64 of a-z 0-9 . _ -, starting with a letter or digit
    REALM = "identity/realm"  # a host name in lower case
    DEVICE = "identity/device"  # 32 hexadecimal digits
    # keys
    PUBLIC_KEY = "identity/public-key"  # an Ed25519, Ed448 or ECDSA P-256/384/521 public key in its one encoding
    SIGNATURE = "identity/signature"  # a request is signed by the key it names
    # certificates
    CREDENTIAL_TYPE = "x509/credential-type"  # the credential is a chain of certificates
    CHAIN_LENGTH = "x509/chain-length"  # the chain has one to eight certificates
    CERTIFICATE = "x509/certificate"  # each entry is one DER certificate
    CHAIN = "x509/chain"  # signatures, names, constraints, usages and validity lead to an anchor
    LEAF_KEY = "x509/leaf-key"  # the certificate's key is the leaf's signature key
    SUBJECT = "x509/subject"  # the end entity names one user and one device of that user
    ANCHOR = "x509/anchor"  # an anchor is a CA certificate that names its realm
    ANCHOR_REALM = "x509/anchor-realm"  # an anchor vouches for the names of its own realm only
    REFERENCE = "x509/reference"  # the presented identifiers include the one that was expected
    SUCCESSOR = "x509/successor"  # a credential is replaced by one of the same device
    # revocation
    REVOKED = "x509/revoked"  # no certificate of the chain is on its issuer's list
    REVOCATION_LIST = (
        "x509/revocation-list"  # a list is whole, signed by a known issuer, not older than the last
    )
    REVOCATION_UNKNOWN = (
        "x509/revocation-unknown"  # there is a list of the issuer, and it is not out of date
    )
