"""The rules of RFC 9420 that this package enforces on what it receives, each with its stable id.

An id is the section and a slug. Errors carry it, tests name it, and `docs/rules.md` lists it with module and test.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class Rule(StrEnum):
    """A rule's id; `text` says it in one line."""

    text: str

    def __new__(cls, rule_id: str, text: str) -> Self:
        """Makes the member from its id and its line."""
        member = str.__new__(cls, rule_id)
        member._value_ = rule_id
        member.text = text
        return member

    @property
    def section(self) -> str:
        """The section of the RFC."""
        return self.value.split("/")[0]

    # §2.1 the encoding
    TRUNCATED = "2.1/truncated", "an encoding does not end before its struct does"
    TRAILING_BYTES = "2.1/trailing-bytes", "nothing follows the end of a struct"
    ENUM_VALUE = "2.1/enum-value", "a closed enum has only the values that are listed"
    PRESENCE_OCTET = "2.1.1/presence-octet", "a presence octet is 0 or 1"
    VECTOR_MINIMAL = (
        "2.1.2/minimal-length",
        "a vector's length is written in as few bytes as possible",
    )
    VECTOR_PREFIX = "2.1.2/length-prefix", "a vector's length does not start with the bits 11"
    VECTOR_OVERRUN = (
        "2.1.2/overrun",
        "a vector ends inside what contains it, its elements inside it",
    )
    JSON_MAPPING = "2.1/json", "a JSON object has the fields of its struct"

    # §5 cryptographic objects and credentials
    CIPHER_SUITE = "5.1/cipher-suite", "the cipher suite is one that is supported"
    HPKE_PUBLIC_KEY = "5.1.1/hpke-public-key", "an HPKE public key is a valid key of the suite"
    SIGNATURE_PUBLIC_KEY = (
        "5.1.1/signature-public-key",
        "a signature key is a valid key of the suite",
    )
    HPKE_CIPHERTEXT = "5.1.3/decrypt", "an HPKE ciphertext opens with its recipient's key"
    CREDENTIAL = "5.3.1/credential", "a credential is validated with the Authentication Service"
    CREDENTIAL_SUCCESSOR = "5.3.1/successor", "a new credential is a valid successor of the old one"

    # §6 framing
    MESSAGE_VERSION = "6/version", "a message is of protocol version MLS 1.0"
    GROUP_ID = "6/group-id", "a message is for this group"
    EPOCH = "6/epoch", "a handshake message is for the present epoch"
    APPLICATION_PUBLIC = "6/application-public", "application data is never sent as a PublicMessage"
    SENDER_BLANK = "6.1/sender", "a member that sends has a leaf that is not blank"
    CONTENT_SIGNATURE = "6.1/signature", "content is signed with the sender's signature key"
    CONFIRMATION_TAG = "6.1/confirmation-tag", "the confirmation tag is that of the new epoch"
    EXTERNAL_SENDER_INDEX = (
        "6.1/external-sender",
        "an external sender is listed in external_senders",
    )
    EXTERNAL_SENDER_CONTENT = "6.1/external-content", "an external sender sends proposals only"
    NEW_MEMBER_CONTENT = (
        "6.1/new-member-content",
        "a new member sends its Commit or its Add, nothing else",
    )
    MEMBERSHIP_TAG = (
        "6.2/membership-tag",
        "a member's PublicMessage carries the right membership tag",
    )
    PADDING = "6.3.1/padding", "padding is all zeros"
    PRIVATE_CONTENT = "6.3.1/ciphertext", "a private message opens with its sender's key"
    SENDER_DATA = "6.3.2/sender-data", "the sender data opens with the epoch's key"
    SENDER_DATA_LEAF = "6.3.2/leaf", "the sender data names a leaf that is not blank"

    # §7 the ratchet tree
    UNMERGED_ORDER = "7.1/unmerged-order", "unmerged leaves are in ascending order, each once"
    CAPABILITIES_DEFAULT = "7.2/default-capability", "default types are not listed as capabilities"
    CAPABILITIES_BOUND = "7.2/capabilities-bound", "a list of capabilities has at most 256 values"
    LEAF_EXTENSION_UNLISTED = "7.2/extension-listed", "a leaf lists the extensions that it carries"
    LEAF_CREDENTIAL_UNLISTED = "7.2/credential-listed", "a leaf lists its own credential type"
    LEAF_LIFETIME_MAXIMUM = "7.2/lifetime-maximum", "a lifetime is not longer than the maximum"
    LEAF_VERSION = "7.2/version", "a leaf supports the group's protocol version"
    LEAF_CIPHER_SUITE = "7.2/cipher-suite", "a leaf supports the group's cipher suite"
    LEAF_SIGNATURE = "7.3/signature", "a leaf is signed with its own signature key"
    LEAF_LIFETIME = "7.3/lifetime", "a key package is used within its lifetime"
    LEAF_SOURCE = "7.3/source", "a leaf's source says where it stands"
    LEAF_REQUIRED_CAPABILITIES = (
        "7.3/required-capabilities",
        "a leaf supports what the group requires",
    )
    LEAF_CREDENTIAL_SUPPORT = (
        "7.3/credential-support",
        "all members support a leaf's credential type",
    )
    LEAF_CREDENTIAL_IN_USE = "7.3/credential-in-use", "a leaf supports all credential types in use"
    UPDATE_SAME_KEY = "7.3/update-key", "an Update brings a new encryption key"
    UNIQUE_SIGNATURE_KEY = "7.3/unique-signature-key", "no two members have one signature key"
    UNIQUE_ENCRYPTION_KEY = "7.3/unique-encryption-key", "no two nodes have one encryption key"
    PATH_SECRET_OPENS = "7.5/path-secret", "a path secret opens with the recipient's key"
    PATH_SECRET_MATCHES = "7.5/path-key", "a path secret gives the public keys of the path"
    PATH_LENGTH = "7.6/path-length", "a path has a node for each of the filtered direct path"
    PATH_CIPHERTEXTS = (
        "7.6/ciphertexts",
        "a path node has a ciphertext for each node of the resolution",
    )
    PATH_PARENT_HASH = (
        "7.9.1/leaf-parent-hash",
        "the path's leaf carries the parent hash of its path",
    )
    PARENT_HASH = "7.9.2/parent-hash", "every parent node is parent-hash valid"

    # §8 and §9 keys
    GROUP_VERSION = "8.1/version", "a group is of protocol version MLS 1.0"
    GROUP_EPOCH = "8.1/epoch", "the number of the last possible epoch is never passed"
    PSK_UNKNOWN = "8.4/psk-unknown", "every pre-shared key that a Commit uses is at hand"
    PSK_COUNT = "8.4/count", "a Commit uses at most 65,535 pre-shared keys"
    GENERATION_USED = "9.2/generation-used", "a generation is used once"
    GENERATION_FORWARD = "9.2/generation-forward", "a generation is not too far ahead"

    # §10 and §11 key packages, groups
    KEY_PACKAGE_VERSION = "10/version", "a key package is for the group's protocol version"
    KEY_PACKAGE_EXTENSION_UNLISTED = (
        "10/extension-listed",
        "a key package's leaf lists the extensions that the key package carries",
    )
    KEY_PACKAGE_CIPHER_SUITE = "10.1/cipher-suite", "a key package is for the group's cipher suite"
    KEY_PACKAGE_SIGNATURE = (
        "10.1/signature",
        "a key package is signed with its leaf's signature key",
    )
    KEY_PACKAGE_INIT_KEY = "10.1/init-key", "the init key is not the encryption key"
    REQUIRED_CAPABILITIES_SUPPORT = (
        "11.1/supported",
        "all members support what a new required_capabilities asks",
    )
    REINIT_CONTEXT = "11.2/context", "a group after a ReInit has the parameters that it announced"
    REINIT_PSK = (
        "11.2/psk",
        "the Welcome of a group that continues one names it, after a ReInit by its last epoch",
    )
    REINIT_MEMBERS = "11.2/members", "all members of the old group are in the new one"
    SUCCESSOR_EPOCH = "11.2/epoch", "a group that continues another one is joined at epoch 1"
    BRANCH_SUITE = "11.3/suite", "a branch has the old group's version and cipher suite"
    BRANCH_MEMBERS = "11.3/members", "the members of a branch are members of the old group"

    # §12.1 and §12.2 proposals
    REMOVE_BLANK = "12.1.3/removed", "a Remove names a leaf that is not blank"
    PSK_USAGE = "12.1.4/usage", "a resumption key is used for what it says"
    PSK_NONCE = "12.1.4/nonce", "a psk_nonce has Nh bytes"
    REINIT_VERSION = "12.1.5/version", "a ReInit does not go back to an older version"
    EXTERNAL_SENDER_TYPE = "12.1.8/type", "an external sender proposes only what it may"
    NEW_MEMBER_PROPOSAL_TYPE = "12.1.8/new-member", "a new member proposes its own Add only"
    PROPOSAL_COUNT = "12.2/count", "a Commit covers at most 131,072 proposals"
    LIST_OWN_UPDATE = "12.2/own-update", "a committer does not commit its own Update"
    LIST_OWN_REMOVE = "12.2/own-remove", "a committer does not remove itself"
    LIST_ONE_PER_LEAF = "12.2/one-per-leaf", "at most one Update or Remove applies to a leaf"
    LIST_SAME_CLIENT = "12.2/same-client", "an Add is of a client that is not in the group"
    LIST_TWO_PSKS = "12.2/same-psk", "no pre-shared key is used twice in a Commit"
    LIST_TWO_EXTENSIONS = "12.2/one-extensions", "at most one GroupContextExtensions in a Commit"
    LIST_REINIT_ALONE = "12.2/reinit-alone", "a ReInit is the only proposal of its Commit"
    LIST_EXTERNAL_INIT = "12.2/external-init", "a member's Commit has no ExternalInit"
    LIST_CUSTOM_SUPPORT = "12.2/custom-support", "all members support a proposal's type"

    # §12.4 Commits
    PROPOSAL_UNKNOWN = "12.4/reference", "a proposal that is referred to was received in this epoch"
    PATH_REQUIRED = "12.4/path-required", "a Commit has a path unless its proposals allow none"
    PATH_LEAF_KEY = "12.4.2/leaf-key", "the path's leaf has a new encryption key"
    PATH_KEY_REUSED = "12.4.2/key-reused", "no key of a path is in the tree already"
    AFTER_REINIT = "12.4.2/after-reinit", "after a ReInit a group takes no proposals and no Commits"
    GROUP_INFO_SIGNATURE = "12.4.3/signature", "a GroupInfo is signed by the member that it names"
    GROUP_INFO_SIGNER = "12.4.3/signer", "the signer of a GroupInfo is a member"
    GROUP_ID_UNIQUE = "12.4.3/group-id", "a client is in no other group with the same id"
    WELCOME_KEY_PACKAGE = (
        "12.4.3.1/key-package",
        "a Welcome is for one of this client's key packages",
    )
    WELCOME_CIPHER_SUITE = (
        "12.4.3.1/cipher-suite",
        "Welcome, GroupInfo and key package have one suite",
    )
    WELCOME_SECRETS = "12.4.3.1/secrets", "a Welcome's secrets open with the init key"
    WELCOME_GROUP_INFO = "12.4.3.1/group-info", "a Welcome's GroupInfo opens with the joiner secret"
    WELCOME_ONE_RESUMPTION = (
        "12.4.3.1/one-resumption",
        "a Welcome has at most one reinit or branch key",
    )
    WELCOME_OWN_LEAF = "12.4.3.1/own-leaf", "the tree has a leaf that is the key package's"
    TREE_MISSING = "12.4.3.1/tree", "the ratchet tree is given, inside or beside"
    TREE_HASH = "12.4.3.1/tree-hash", "the ratchet tree has the hash that the GroupInfo names"
    UNMERGED_DESCENDANT = "12.4.3.1/unmerged-descendant", "an unmerged leaf is below its node"
    UNMERGED_BLANK = "12.4.3.1/unmerged-blank", "an unmerged leaf is not blank"
    UNMERGED_INTERMEDIATE = (
        "12.4.3.1/unmerged-intermediate",
        "an unmerged leaf is unmerged at every parent on the way down",
    )
    EXTERNAL_COMMIT_PATH = "12.4.3.2/path", "an external Commit has a path"
    EXTERNAL_COMMIT_REFERENCE = "12.4.3.2/by-value", "an external Commit has no references"
    EXTERNAL_COMMIT_INIT = "12.4.3.2/external-init", "an external Commit has one ExternalInit"
    EXTERNAL_COMMIT_REMOVE = "12.4.3.2/one-remove", "an external Commit has at most one Remove"
    EXTERNAL_COMMIT_TYPES = (
        "12.4.3.2/types",
        "an external Commit covers ExternalInit, Remove and PreSharedKey only",
    )
    EXTERNAL_PUB_MISSING = "12.4.3.2/external-pub", "a GroupInfo to join by has external_pub"
    TREE_NODE_PARITY = (
        "12.4.3.3/parity",
        "leaves stand at even places of the tree, parents at odd ones",
    )
    TREE_TRAILING_BLANK = "12.4.3.3/trailing-blank", "a ratchet tree does not end with a blank node"
    TREE_LENGTH = "12.4.3.3/length", "a ratchet tree ends with a leaf"
    TREE_SIZE = "12.4.3.3/size", "a ratchet tree has at most 16,777,216 leaves"

    # §13 and §16
    EXTENSION_DUPLICATE = "13.4/duplicate", "a list of extensions has at most one of a type"
    EXTENSION_SUPPORT = "13.4/supported", "all members support the extensions of the GroupContext"
    LEAF_GROUP_EXTENSION = "13.4/new-member", "a new member supports the GroupContext's extensions"
    OWN_MESSAGE_UNKNOWN = "16.12/own-message", "a message in one's own name is one's own"
