//! The benchmark driver of OpenMLS, over its RustCrypto and its libcrux provider.

use std::collections::HashMap;
use std::io;

use openmls::group::{
    MlsGroup, MlsGroupCreateConfig, MlsGroupJoinConfig, StagedWelcome,
    PURE_CIPHERTEXT_WIRE_FORMAT_POLICY,
};
use openmls::prelude::tls_codec::{DeserializeBytes, Serialize};
use openmls::prelude::{
    BasicCredential, Ciphersuite, CredentialWithKey, KeyPackage, LeafNodeIndex, MlsMessageBodyIn,
    MlsMessageIn, MlsMessageOut, OpenMlsProvider, ProcessedMessageContent, ProtocolMessage,
    ProtocolVersion, RatchetTreeIn,
};
use openmls_basic_credential::SignatureKeyPair;
use openmls_memory_storage::MemoryStorage;
use openmls_traits::crypto::OpenMlsCrypto;
use openmls_traits::signatures::Signer;
use rust_line::{
    failed, price, shown, Answer, Clock, Committed, Library, Prices, CONTENT, INFO, SECRET,
};

const VERSION: &str = "openmls 0.9.2";

struct Member<P> {
    provider: P,
    keys: SignatureKeyPair,
    group: Option<MlsGroup>,
}

impl<P> Member<P> {
    fn group(&mut self) -> Answer<(&mut MlsGroup, &P, &SignatureKeyPair)> {
        let group = self.group.as_mut().ok_or("this member is in no group")?;
        Ok((group, &self.provider, &self.keys))
    }
}

struct Peer<P> {
    suite: Ciphersuite,
    members: HashMap<String, Member<P>>,
}

fn body(message: &[u8]) -> Answer<MlsMessageBodyIn> {
    let message = MlsMessageIn::tls_deserialize_exact_bytes(message).map_err(failed)?;
    Ok(message.extract())
}

fn protocol_message(message: &[u8]) -> Answer<ProtocolMessage> {
    match body(message)? {
        MlsMessageBodyIn::PrivateMessage(message) => Ok(message.into()),
        MlsMessageBodyIn::PublicMessage(message) => Ok(message.into()),
        _ => Err(failed("expected a PrivateMessage or a PublicMessage")),
    }
}

fn encoded(message: MlsMessageOut) -> Answer<Vec<u8>> {
    message.tls_serialize_detached().map_err(failed)
}

fn validated<P: OpenMlsProvider>(provider: &P, packages: &[Vec<u8>]) -> Answer<Vec<KeyPackage>> {
    let one = |bytes: &Vec<u8>| match body(bytes)? {
        MlsMessageBodyIn::KeyPackage(package) => package
            .validate(provider.crypto(), ProtocolVersion::Mls10)
            .map_err(failed),
        _ => Err(failed("expected a KeyPackage")),
    };
    packages.iter().map(one).collect()
}

fn stored(storage: &MemoryStorage) -> Answer<usize> {
    let values = storage.values.read().map_err(failed)?;
    Ok(values
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum())
}

impl<P> Peer<P>
where
    P: OpenMlsProvider<StorageProvider = MemoryStorage> + Default,
{
    fn new(suite: Ciphersuite) -> Self {
        let members = HashMap::new();
        Self { suite, members }
    }

    fn member(&mut self, name: &str) -> Answer<&mut Member<P>> {
        let found = self.members.get_mut(name);
        found.ok_or_else(|| format!("no member is called {name}"))
    }

    fn new_member(&mut self, name: &str) -> Answer<CredentialWithKey> {
        let keys = SignatureKeyPair::new(self.suite.signature_algorithm()).map_err(failed)?;
        let credential = CredentialWithKey {
            credential: BasicCredential::new(name.as_bytes().to_vec()).into(),
            signature_key: keys.to_public_vec().into(),
        };
        let provider = P::default();
        let group = None;
        let member = Member {
            provider,
            keys,
            group,
        };
        self.members.insert(name.to_owned(), member);
        Ok(credential)
    }
}

impl<P> Library for Peer<P>
where
    P: OpenMlsProvider<StorageProvider = MemoryStorage> + Default,
{
    fn primitives(&mut self) -> Answer<Prices> {
        let (provider, suite) = (P::default(), self.suite);
        let (crypto, scheme) = (provider.crypto(), suite.signature_algorithm());
        // Signing is the credential's, whatever the provider.
        let keys = SignatureKeyPair::new(scheme).map_err(failed)?;
        let signature = keys.sign(&CONTENT).map_err(shown)?;
        let pair = crypto
            .derive_hpke_keypair(suite.hpke_config(), &SECRET)
            .map_err(failed)?;
        let seal = || {
            crypto
                .hpke_seal(suite.hpke_config(), &pair.public, &INFO, &[], &SECRET)
                .map_err(failed)
        };
        let sealed = seal()?;
        Ok(Prices {
            sign: price(|| keys.sign(&CONTENT).map_err(shown))?,
            verify: price(|| {
                crypto
                    .verify_signature(scheme, &CONTENT, keys.public(), &signature)
                    .map_err(failed)
            })?,
            seal: price(seal)?,
            open: price(|| {
                crypto
                    .hpke_open(suite.hpke_config(), &sealed, &pair.private, &INFO, &[])
                    .map_err(failed)
            })?,
        })
    }

    fn package(&mut self, name: &str) -> Answer<Vec<u8>> {
        let (credential, suite) = (self.new_member(name)?, self.suite);
        let member = self.member(name)?;
        let bundle = KeyPackage::builder()
            .build(suite, &member.provider, &member.keys, credential)
            .map_err(failed)?;
        encoded(MlsMessageOut::from(bundle.key_package().clone()))
    }

    fn create(&mut self, name: &str) -> Answer<()> {
        let (credential, suite) = (self.new_member(name)?, self.suite);
        let member = self.member(name)?;
        let config = MlsGroupCreateConfig::builder()
            .ciphersuite(suite)
            .wire_format_policy(PURE_CIPHERTEXT_WIRE_FORMAT_POLICY)
            .build();
        let group =
            MlsGroup::new(&member.provider, &member.keys, &config, credential).map_err(failed)?;
        member.group = Some(group);
        Ok(())
    }

    fn join(
        &mut self,
        clock: &mut Clock,
        name: &str,
        welcome: &[u8],
        tree: Option<&[u8]>,
    ) -> Answer<()> {
        let member = self.member(name)?;
        let provider = &member.provider;
        let config = MlsGroupJoinConfig::builder()
            .wire_format_policy(PURE_CIPHERTEXT_WIRE_FORMAT_POLICY)
            .build();
        let joined = clock.run(|| {
            let MlsMessageBodyIn::Welcome(welcome) = body(welcome)? else {
                return Err(failed("expected a Welcome"));
            };
            let tree = tree.map(RatchetTreeIn::tls_deserialize_exact_bytes);
            let tree = tree.transpose().map_err(failed)?;
            StagedWelcome::new_from_welcome(provider, &config, welcome, tree)
                .map_err(failed)?
                .into_group(provider)
                .map_err(failed)
        })?;
        member.group = Some(joined);
        Ok(())
    }

    fn commit(
        &mut self,
        clock: &mut Clock,
        name: &str,
        packages: &[Vec<u8>],
        remove: &[u32],
        inside: bool,
    ) -> Answer<Committed> {
        let (group, provider, keys) = self.member(name)?.group()?;
        let (commit, welcome) = clock.run(|| {
            let packages = validated(provider, packages)?;
            let removals = remove.iter().map(|leaf| LeafNodeIndex::new(*leaf));
            let bundle = group
                .commit_builder()
                .force_self_update(true)
                .propose_removals(removals)
                .propose_adds(packages)
                .load_psks(provider.storage())
                .map_err(failed)?
                .use_ratchet_tree_extension(inside)
                .build(provider.rand(), provider.crypto(), keys, |_| true)
                .map_err(failed)?
                .stage_commit(provider)
                .map_err(failed)?;
            let (commit, welcome, _) = bundle.into_messages();
            let commit = encoded(commit)?;
            let welcome = welcome.map(encoded).transpose()?;
            group.merge_pending_commit(provider).map_err(failed)?;
            Ok::<_, String>((commit, welcome))
        })?;
        let tree = match welcome {
            Some(_) if !inside => {
                let tree = group.export_ratchet_tree();
                Some(tree.tls_serialize_detached().map_err(failed)?)
            }
            _ => None,
        };
        Ok(Committed {
            commit,
            welcome,
            tree,
        })
    }

    fn process(&mut self, clock: &mut Clock, name: &str, commit: &[u8]) -> Answer<()> {
        let (group, provider, _) = self.member(name)?.group()?;
        clock.run(|| {
            let message = protocol_message(commit)?;
            let processed = group.process_message(provider, message).map_err(failed)?;
            match processed.into_content() {
                ProcessedMessageContent::StagedCommitMessage(staged) => {
                    group.merge_staged_commit(provider, *staged).map_err(failed)
                }
                _ => Err(failed("expected a Commit")),
            }
        })
    }

    fn encrypt(
        &mut self,
        clock: &mut Clock,
        name: &str,
        data: &[u8],
        count: u64,
    ) -> Answer<Vec<Vec<u8>>> {
        let (group, provider, keys) = self.member(name)?.group()?;
        let mut one = || encoded(group.create_message(provider, keys, data).map_err(failed)?);
        (0..count).map(|_| clock.run(&mut one)).collect()
    }

    fn decrypt(&mut self, clock: &mut Clock, name: &str, messages: &[Vec<u8>]) -> Answer<()> {
        let (group, provider, _) = self.member(name)?.group()?;
        for message in messages {
            let processed = clock.run(|| {
                group
                    .process_message(provider, protocol_message(message)?)
                    .map_err(failed)
            })?;
            let ProcessedMessageContent::ApplicationMessage(_) = processed.into_content() else {
                return Err(failed("expected an application message"));
            };
        }
        Ok(())
    }

    fn save(&mut self, _: &mut Clock, _: &str) -> Answer<usize> {
        Err(failed(
            "in each step: the library writes to its storage itself",
        ))
    }

    fn load(&mut self, clock: &mut Clock, name: &str) -> Answer<usize> {
        let (group, provider, _) = self.member(name)?.group()?;
        let id = group.group_id().clone();
        let loaded = clock.run(|| MlsGroup::load(provider.storage(), &id).map_err(failed))?;
        loaded.ok_or("the group could not be loaded")?;
        stored(provider.storage())
    }

    fn drop(&mut self, name: &str) -> Answer<()> {
        self.members.remove(name);
        Ok(())
    }
}

fn open(suite: u16, provider: &str) -> Answer<Box<dyn Library>> {
    let suite = Ciphersuite::try_from(suite).map_err(failed)?;
    match provider {
        "rustcrypto" => Ok(Box::new(
            Peer::<openmls_rust_crypto::OpenMlsRustCrypto>::new(suite),
        )),
        "libcrux" => Ok(Box::new(Peer::<openmls_libcrux_crypto::Provider>::new(
            suite,
        ))),
        other => Err(format!("OpenMLS has no provider {other}")),
    }
}

fn main() -> io::Result<()> {
    rust_line::serve(open, VERSION)
}
