//! Between the interface's bytes and mls-rs's types, and how a client is configured.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mls_rs::client_builder::{
    BaseConfig, PaddingMode, WithCryptoProvider, WithIdentityProvider, WithKeyPackageRepo,
    WithMlsRules, WithPskStore,
};
use mls_rs::crypto::SignatureSecretKey;
use mls_rs::extension::ExtensionType;
use mls_rs::group::proposal::ProposalType;
use mls_rs::group::{ExportedTree, GroupContext, Roster};
use mls_rs::identity::basic::{BasicCredential, BasicIdentityProvider};
use mls_rs::identity::SigningIdentity;
use mls_rs::mls_rs_codec::MlsDecode;
use mls_rs::mls_rules::{
    CommitDirection, CommitOptions, CommitSource, EncryptionOptions, ProposalBundle,
};
use mls_rs::psk::ExternalPskId;
use mls_rs::storage_provider::in_memory::{InMemoryKeyPackageStorage, InMemoryPreSharedKeyStorage};
use mls_rs::{
    CipherSuite, CipherSuiteProvider, Client, CryptoProvider, Extension, ExtensionList, MlsMessage,
    MlsRules,
};
use mls_rs_crypto_openssl::OpensslCryptoProvider;
use rust_grpc::{failed, lacking, wire, Answer};

/// Private-use extension types that every driver of ours supports, for group-context extensions.
pub const SCENARIO_EXTENSIONS: [u16; 2] = [0xff00, 0xff01];
const LIFETIME: Duration = Duration::from_secs(28 * 24 * 3600);
const ED25519_SEED_LENGTH: usize = 32;

/// The hash by which a commit refers to a proposal.
pub type Reference = Vec<u8>;

/// What the library asks its rules object for.
#[derive(Debug, Default)]
pub struct Wishes {
    pub encrypt: bool,
    pub force_path: bool,
    pub external_tree: bool,
    /// The proposals that a commit refers to: mls-rs would take whatever its cache holds.
    pub referenced: Vec<Reference>,
}

impl Wishes {
    fn refers_to(&self, reference: &[u8]) -> bool {
        self.referenced.iter().any(|wanted| wanted == reference)
    }
}

#[derive(Clone, Debug, Default)]
pub struct Rules(Arc<Mutex<Wishes>>);

impl Rules {
    pub fn wishes(&self) -> MutexGuard<'_, Wishes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MlsRules for Rules {
    type Error = Infallible;

    fn filter_proposals(
        &self,
        direction: CommitDirection,
        _: CommitSource,
        _: &Roster,
        _: &GroupContext,
        mut proposals: ProposalBundle,
    ) -> Result<ProposalBundle, Infallible> {
        if direction == CommitDirection::Send {
            let wishes = self.wishes();
            proposals.retain(|p| {
                Ok::<_, Infallible>(
                    p.proposal_ref()
                        .is_none_or(|r| wishes.refers_to(r.as_slice())),
                )
            })?;
        }
        Ok(proposals)
    }

    fn commit_options(
        &self,
        _: &Roster,
        _: &GroupContext,
        _: &ProposalBundle,
    ) -> Result<CommitOptions, Infallible> {
        let wishes = self.wishes();
        Ok(CommitOptions::new()
            .with_path_required(wishes.force_path)
            .with_ratchet_tree_extension(!wishes.external_tree))
    }

    fn encryption_options(
        &self,
        _: &Roster,
        _: &GroupContext,
    ) -> Result<EncryptionOptions, Infallible> {
        Ok(EncryptionOptions::new(
            self.wishes().encrypt,
            PaddingMode::None,
        ))
    }
}

pub type Config = WithIdentityProvider<
    BasicIdentityProvider,
    WithMlsRules<
        Rules,
        WithPskStore<
            InMemoryPreSharedKeyStorage,
            WithKeyPackageRepo<
                InMemoryKeyPackageStorage,
                WithCryptoProvider<OpensslCryptoProvider, BaseConfig>,
            >,
        >,
    >,
>;

pub fn suites() -> Vec<u32> {
    let supported = OpensslCryptoProvider::new().supported_cipher_suites();
    supported
        .into_iter()
        .map(|suite| u32::from(u16::from(suite)))
        .collect()
}

pub fn is_ed25519(suite: CipherSuite) -> bool {
    [
        CipherSuite::CURVE25519_AES128,
        CipherSuite::CURVE25519_CHACHA,
    ]
    .contains(&suite)
}

pub fn suite(id: u32) -> Answer<CipherSuite> {
    if !suites().contains(&id) {
        return Err(lacking(format!(
            "mls-rs's OpenSSL provider has no cipher suite {id}"
        )));
    }
    Ok(CipherSuite::from(u16::try_from(id).map_err(failed)?))
}

/// A client's name, suite and signature key.
#[derive(Clone)]
pub struct Identity {
    pub suite: CipherSuite,
    pub signing: SigningIdentity,
    pub secret: SignatureSecretKey,
}

impl Identity {
    pub fn new(suite: CipherSuite, name: Vec<u8>) -> Answer<Self> {
        let provider = OpensslCryptoProvider::new().cipher_suite_provider(suite);
        let provider = provider.ok_or_else(|| lacking("mls-rs lacks the cipher suite"))?;
        let (secret, public) = provider.signature_key_generate().map_err(failed)?;
        let credential = BasicCredential::new(name).into_credential();
        Ok(Self {
            suite,
            signing: SigningIdentity::new(credential, public),
            secret,
        })
    }

    pub fn name(&self) -> Answer<Vec<u8>> {
        let basic = self.signing.credential.as_basic();
        basic
            .map(|b| b.identifier.clone())
            .ok_or_else(|| failed("not a basic credential"))
    }

    /// The raw key; for Ed25519 the library keeps the public half behind it.
    pub fn private_key(&self) -> Vec<u8> {
        let bytes = self.secret.as_bytes();
        if is_ed25519(self.suite) {
            bytes[..ED25519_SEED_LENGTH].to_vec()
        } else {
            bytes.to_vec()
        }
    }
}

/// A configured client and the handles to what its configuration shares with its groups.
#[derive(Clone)]
pub struct Configured {
    pub client: Client<Config>,
    pub rules: Rules,
    pub psks: InMemoryPreSharedKeyStorage,
    /// The client's own: from a common store the library would take any package a Welcome names.
    pub packages: InMemoryKeyPackageStorage,
    pub identity: Identity,
}

impl Configured {
    pub fn new(identity: Identity) -> Self {
        Self::supporting(identity, &SCENARIO_EXTENSIONS, &[])
    }

    /// A client that supports these extension and proposal types.
    pub fn supporting(identity: Identity, extensions: &[u16], proposals: &[u16]) -> Self {
        let (rules, psks) = (Rules::default(), InMemoryPreSharedKeyStorage::default());
        let packages = InMemoryKeyPackageStorage::new();
        let client = Client::builder()
            .crypto_provider(OpensslCryptoProvider::new())
            .key_package_repo(packages.clone())
            .psk_store(psks.clone())
            .mls_rules(rules.clone())
            .identity_provider(BasicIdentityProvider::new())
            .extension_types(extensions.iter().copied().map(ExtensionType::new))
            .custom_proposal_types(proposals.iter().copied().map(ProposalType::new))
            .key_package_lifetime(LIFETIME)
            .signing_identity(
                identity.signing.clone(),
                identity.secret.clone(),
                identity.suite,
            )
            .build();
        Self {
            client,
            rules,
            psks,
            packages,
            identity,
        }
    }

    /// The raw init key and the raw leaf encryption key of the only key package.
    pub fn package_keys(&self) -> Answer<(Vec<u8>, Vec<u8>)> {
        let stored = self.packages.key_packages();
        let (_, data) = stored
            .first()
            .ok_or_else(|| failed("mls-rs stored no key package"))?;
        Ok((data.init_key.to_vec(), data.leaf_node_key.to_vec()))
    }

    /// Lets another client join with this one's key packages.
    pub fn lend_packages(&self, other: &Self) {
        for (id, data) in self.packages.key_packages() {
            other.packages.insert(id, data);
        }
    }

    pub fn store_psk(&mut self, id: Vec<u8>, secret: Vec<u8>) {
        self.psks.insert(ExternalPskId::new(id), secret.into());
    }
}

pub fn message(bytes: &[u8]) -> Answer<MlsMessage> {
    MlsMessage::from_bytes(bytes).map_err(failed)
}

pub fn encoded(message: &MlsMessage) -> Answer<Vec<u8>> {
    message.to_bytes().map_err(failed)
}

pub fn tree(bytes: &[u8]) -> Answer<Option<ExportedTree<'static>>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    ExportedTree::mls_decode(&mut &*bytes)
        .map(Some)
        .map_err(failed)
}

pub fn extensions(list: &[wire::Extension]) -> Answer<ExtensionList> {
    let mut extensions = Vec::new();
    for item in list {
        let kind = u16::try_from(item.extension_type).map_err(failed)?;
        extensions.push(Extension::new(
            ExtensionType::new(kind),
            item.extension_data.clone(),
        ));
    }
    Ok(extensions.into())
}

pub fn leaf_of(roster: &Roster, name: &[u8]) -> Answer<u32> {
    let is_named = |signing: &SigningIdentity| {
        signing
            .credential
            .as_basic()
            .is_some_and(|basic| basic.identifier == name)
    };
    let found = roster
        .members_iter()
        .find(|member| is_named(&member.signing_identity));
    let text = String::from_utf8_lossy(name);
    found
        .map(|member| member.index)
        .ok_or_else(|| rust_grpc::wrong(format!("no member is called {text}")))
}
