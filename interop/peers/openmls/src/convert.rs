//! Between the interface's bytes and OpenMLS's types.

use openmls::extensions::{Extension, Extensions};
use openmls::group::GroupContext;
use openmls::messages::group_info::VerifiableGroupInfo;
use openmls::prelude::tls_codec::{DeserializeBytes, Serialize};
use openmls::prelude::{
    BasicCredential, Capabilities, Ciphersuite, CredentialType, CredentialWithKey, ExtensionType,
    KeyPackage, KeyPackageBundle, Lifetime, MlsMessageBodyIn, MlsMessageIn, MlsMessageOut,
    OpenMlsProvider, ProtocolMessage, ProtocolVersion, RatchetTreeIn, Welcome,
};
use openmls_basic_credential::SignatureKeyPair;
use openmls_memory_storage::MemoryStorage;
use openmls_rust_crypto::RustCrypto;
use rust_grpc::{failed, lacking, wire, wrong, Answer};

pub const SUITES: [Ciphersuite; 3] = [
    Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519,
    Ciphersuite::MLS_128_DHKEMP256_AES128GCM_SHA256_P256,
    Ciphersuite::MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519,
];
/// Private-use extension types that every driver of ours supports, for group-context extensions.
const SCENARIO_EXTENSIONS: [u16; 2] = [0xff00, 0xff01];
const LIFETIME_SECONDS: u64 = 28 * 24 * 3600;

/// A provider whose storage can be copied.
#[derive(Default)]
pub struct Store {
    crypto: RustCrypto,
    storage: MemoryStorage,
}

impl Store {
    pub fn copy(&self) -> Answer<Self> {
        let values = self.storage.values.read().map_err(failed)?.clone();
        Ok(Self {
            crypto: RustCrypto::default(),
            storage: MemoryStorage {
                values: values.into(),
            },
        })
    }
}

impl OpenMlsProvider for Store {
    type CryptoProvider = RustCrypto;
    type RandProvider = RustCrypto;
    type StorageProvider = MemoryStorage;

    fn storage(&self) -> &MemoryStorage {
        &self.storage
    }

    fn crypto(&self) -> &RustCrypto {
        &self.crypto
    }

    fn rand(&self) -> &RustCrypto {
        &self.crypto
    }
}

pub fn suite(id: u32) -> Answer<Ciphersuite> {
    let known = SUITES
        .into_iter()
        .find(|suite| u32::from(u16::from(*suite)) == id);
    known.ok_or_else(|| {
        lacking(format!(
            "OpenMLS's RustCrypto provider has no cipher suite {id}"
        ))
    })
}

/// A client's name and signature key.
pub struct Identity {
    pub name: Vec<u8>,
    pub keys: SignatureKeyPair,
}

impl Identity {
    pub fn new(suite: Ciphersuite, name: Vec<u8>) -> Answer<Self> {
        let keys = SignatureKeyPair::new(suite.signature_algorithm()).map_err(failed)?;
        Ok(Self { name, keys })
    }

    pub fn credential(&self) -> CredentialWithKey {
        CredentialWithKey {
            credential: BasicCredential::new(self.name.clone()).into(),
            signature_key: self.keys.to_public_vec().into(),
        }
    }

    pub fn private_key(&self) -> Answer<Vec<u8>> {
        raw_key(&serde_json::to_value(&self.keys).map_err(failed)?["private"])
    }
}

/// The library shows private keys only through their serialised form.
fn raw_key(value: &serde_json::Value) -> Answer<Vec<u8>> {
    let bytes = match value {
        serde_json::Value::Object(fields) if fields.len() == 1 => {
            return fields
                .values()
                .next()
                .map_or(Err(failed("no key")), raw_key)
        }
        other => other
            .as_array()
            .ok_or_else(|| failed("a private key has an unknown form"))?,
    };
    let byte = |v: &serde_json::Value| v.as_u64().and_then(|n| u8::try_from(n).ok());
    bytes
        .iter()
        .map(|v| byte(v).ok_or_else(|| failed("a private key has an unknown form")))
        .collect()
}

/// The raw init key and the raw leaf encryption key of a key package.
pub fn package_keys(bundle: &KeyPackageBundle) -> Answer<(Vec<u8>, Vec<u8>)> {
    let value = serde_json::to_value(bundle).map_err(failed)?;
    Ok((
        raw_key(&value["private_init_key"])?,
        raw_key(&value["private_encryption_key"])?,
    ))
}

pub fn capabilities() -> Capabilities {
    Capabilities::new(
        Some(&[ProtocolVersion::Mls10]),
        Some(&SUITES),
        Some(&SCENARIO_EXTENSIONS.map(ExtensionType::Unknown)),
        None,
        Some(&[CredentialType::Basic]),
    )
}

pub fn lifetime() -> Lifetime {
    Lifetime::new(LIFETIME_SECONDS)
}

pub fn new_key_package(
    store: &Store,
    suite: Ciphersuite,
    identity: &Identity,
) -> Answer<KeyPackageBundle> {
    KeyPackage::builder()
        .leaf_node_capabilities(capabilities())
        .key_package_lifetime(lifetime())
        .build(suite, store, &identity.keys, identity.credential())
        .map_err(failed)
}

pub fn encoded(message: MlsMessageOut) -> Answer<Vec<u8>> {
    message.tls_serialize_detached().map_err(failed)
}

fn body(bytes: &[u8]) -> Answer<MlsMessageBodyIn> {
    Ok(MlsMessageIn::tls_deserialize_exact_bytes(bytes)
        .map_err(failed)?
        .extract())
}

pub fn protocol_message(bytes: &[u8]) -> Answer<ProtocolMessage> {
    match body(bytes)? {
        MlsMessageBodyIn::PublicMessage(message) => Ok(message.into()),
        MlsMessageBodyIn::PrivateMessage(message) => Ok(message.into()),
        _ => Err(wrong("expected a PublicMessage or a PrivateMessage")),
    }
}

pub fn key_package(store: &Store, bytes: &[u8]) -> Answer<KeyPackage> {
    match body(bytes)? {
        MlsMessageBodyIn::KeyPackage(package) => package
            .validate(store.crypto(), ProtocolVersion::Mls10)
            .map_err(failed),
        _ => Err(wrong("expected a KeyPackage")),
    }
}

pub fn welcome(bytes: &[u8]) -> Answer<Welcome> {
    match body(bytes)? {
        MlsMessageBodyIn::Welcome(welcome) => Ok(welcome),
        _ => Err(wrong("expected a Welcome")),
    }
}

pub fn group_info(bytes: &[u8]) -> Answer<VerifiableGroupInfo> {
    match body(bytes)? {
        MlsMessageBodyIn::GroupInfo(info) => Ok(info),
        _ => Err(wrong("expected a GroupInfo")),
    }
}

pub fn tree(bytes: &[u8]) -> Answer<Option<RatchetTreeIn>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    RatchetTreeIn::tls_deserialize_exact_bytes(bytes)
        .map(Some)
        .map_err(failed)
}

pub fn context_extensions(list: &[wire::Extension]) -> Answer<Extensions<GroupContext>> {
    let mut extensions = Vec::new();
    for item in list {
        let kind = u16::try_from(item.extension_type).map_err(failed)?;
        let data = openmls::prelude::tls_codec::VLBytes::new(item.extension_data.clone());
        let mut bytes = kind.to_be_bytes().to_vec();
        data.tls_serialize(&mut bytes).map_err(failed)?;
        extensions.push(Extension::tls_deserialize_exact_bytes(&bytes).map_err(failed)?);
    }
    Extensions::from_vec(extensions).map_err(failed)
}
