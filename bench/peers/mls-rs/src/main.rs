//! The benchmark driver of mls-rs, over its RustCrypto, OpenSSL and AWS-LC providers.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use mls_rs::client_builder::{
    BaseConfig, MlsConfig, PaddingMode, WithCryptoProvider, WithGroupStateStorage,
    WithIdentityProvider, WithMlsRules,
};
use mls_rs::group::{ExportedTree, GroupContext, ReceivedMessage, Roster};
use mls_rs::identity::basic::{BasicCredential, BasicIdentityProvider};
use mls_rs::identity::SigningIdentity;
use mls_rs::mls_rs_codec::MlsDecode;
use mls_rs::mls_rules::{
    CommitDirection, CommitOptions, CommitSource, EncryptionOptions, ProposalBundle,
};
use mls_rs::storage_provider::in_memory::InMemoryGroupStateStorage;
use mls_rs::{
    CipherSuite, CipherSuiteProvider, Client, CryptoProvider, Group, GroupStateStorage, MlsMessage,
    MlsRules,
};
use mls_rs_crypto_awslc::AwsLcCryptoProvider;
use mls_rs_crypto_openssl::OpensslCryptoProvider;
use mls_rs_crypto_rustcrypto::RustCryptoProvider;
use rust_line::{
    failed, price, shown, Answer, Clock, Committed, Library, Prices, CONTENT, INFO, SECRET,
};

const VERSION: &str = "mls-rs 0.57.0";
const LIFETIME: Duration = Duration::from_secs(28 * 24 * 3600);

type ConfigOf<P> = WithIdentityProvider<
    BasicIdentityProvider,
    WithMlsRules<
        Rules,
        WithGroupStateStorage<InMemoryGroupStateStorage, WithCryptoProvider<P, BaseConfig>>,
    >,
>;

/// Encrypted handshakes, a path in every Commit, the tree inside or beside as it is wanted.
#[derive(Clone, Debug, Default)]
struct Rules {
    inside: Arc<AtomicBool>,
}

impl MlsRules for Rules {
    type Error = Infallible;

    fn filter_proposals(
        &self,
        _: CommitDirection,
        _: CommitSource,
        _: &Roster,
        _: &GroupContext,
        proposals: ProposalBundle,
    ) -> Result<ProposalBundle, Infallible> {
        Ok(proposals)
    }

    fn commit_options(
        &self,
        _: &Roster,
        _: &GroupContext,
        _: &ProposalBundle,
    ) -> Result<CommitOptions, Infallible> {
        Ok(CommitOptions::new()
            .with_path_required(true)
            .with_ratchet_tree_extension(self.inside.load(Ordering::Relaxed)))
    }

    fn encryption_options(
        &self,
        _: &Roster,
        _: &GroupContext,
    ) -> Result<EncryptionOptions, Infallible> {
        Ok(EncryptionOptions::new(true, PaddingMode::default()))
    }
}

struct Made<C: MlsConfig> {
    client: Client<C>,
    rules: Rules,
    saved: InMemoryGroupStateStorage,
}

struct Member<C: MlsConfig> {
    made: Made<C>,
    group: Option<Group<C>>,
}

impl<C: MlsConfig> Member<C> {
    fn group(&mut self) -> Answer<&mut Group<C>> {
        self.group
            .as_mut()
            .ok_or_else(|| failed("this member is in no group"))
    }
}

struct Peer<C: MlsConfig, F> {
    make: F,
    prices: Box<dyn Fn() -> Answer<Prices>>,
    members: HashMap<String, Member<C>>,
}

impl<C, F> Peer<C, F>
where
    C: MlsConfig,
    F: Fn(&str) -> Answer<Made<C>>,
{
    fn new(make: F, prices: Box<dyn Fn() -> Answer<Prices>>) -> Self {
        let members = HashMap::new();
        Self {
            make,
            prices,
            members,
        }
    }

    fn member(&mut self, name: &str) -> Answer<&mut Member<C>> {
        let found = self.members.get_mut(name);
        found.ok_or_else(|| format!("no member is called {name}"))
    }

    fn new_member(&mut self, name: &str) -> Answer<&mut Member<C>> {
        let (made, group) = ((self.make)(name)?, None);
        self.members.insert(name.to_owned(), Member { made, group });
        self.member(name)
    }
}

fn client<P: CryptoProvider + Clone>(
    provider: P,
    suite: CipherSuite,
) -> impl Fn(&str) -> Answer<Made<ConfigOf<P>>> {
    move |name| {
        let of_suite = provider.cipher_suite_provider(suite);
        let of_suite = of_suite.ok_or("this provider lacks the cipher suite")?;
        let (secret, public) = of_suite.signature_key_generate().map_err(shown)?;
        let credential = BasicCredential::new(name.as_bytes().to_vec()).into_credential();
        let (rules, saved) = (Rules::default(), InMemoryGroupStateStorage::new());
        let client = Client::builder()
            .crypto_provider(provider.clone())
            .group_state_storage(saved.clone())
            .mls_rules(rules.clone())
            .identity_provider(BasicIdentityProvider::new())
            .key_package_lifetime(LIFETIME)
            .signing_identity(SigningIdentity::new(credential, public), secret, suite)
            .build();
        Ok(Made {
            client,
            rules,
            saved,
        })
    }
}

fn prices<P: CryptoProvider>(provider: &P, suite: CipherSuite) -> Answer<Prices> {
    let of_suite = provider.cipher_suite_provider(suite);
    let of_suite = of_suite.ok_or("this provider lacks the cipher suite")?;
    let (secret, public) = of_suite.signature_key_generate().map_err(shown)?;
    let signature = of_suite.sign(&secret, &CONTENT).map_err(shown)?;
    let (own, to) = of_suite.kem_derive(&SECRET).map_err(shown)?;
    let seal = || of_suite.hpke_seal(&to, &INFO, None, &SECRET).map_err(shown);
    let sealed = seal()?;
    Ok(Prices {
        sign: price(|| of_suite.sign(&secret, &CONTENT).map_err(shown))?,
        verify: price(|| {
            of_suite
                .verify(&public, &signature, &CONTENT)
                .map_err(shown)
        })?,
        seal: price(seal)?,
        open: price(|| {
            of_suite
                .hpke_open(&sealed, &own, &to, &INFO, None)
                .map_err(shown)
        })?,
    })
}

/// The bytes of the group's last snapshot; past epochs, which the library keeps apart, not counted.
fn stored<C: MlsConfig>(member: &mut Member<C>) -> Answer<usize> {
    let id = member.group()?.group_id().to_vec();
    let state = member.made.saved.state(&id).map_err(failed)?;
    Ok(state.map_or(0, |bytes| bytes.len()))
}

fn message(bytes: &[u8]) -> Answer<MlsMessage> {
    MlsMessage::from_bytes(bytes).map_err(failed)
}

fn encoded(message: &MlsMessage) -> Answer<Vec<u8>> {
    message.to_bytes().map_err(failed)
}

impl<C, F> Library for Peer<C, F>
where
    C: MlsConfig,
    F: Fn(&str) -> Answer<Made<C>>,
{
    fn primitives(&mut self) -> Answer<Prices> {
        (self.prices)()
    }

    fn package(&mut self, name: &str) -> Answer<Vec<u8>> {
        let client = &self.new_member(name)?.made.client;
        let package = client
            .generate_key_package_message(Default::default(), Default::default(), None)
            .map_err(failed)?;
        encoded(&package)
    }

    fn create(&mut self, name: &str) -> Answer<()> {
        let member = self.new_member(name)?;
        let group = member
            .made
            .client
            .create_group(Default::default(), Default::default(), None)
            .map_err(failed)?;
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
        let client = &member.made.client;
        let joined = clock.run(|| {
            let welcome = message(welcome)?;
            let tree = tree.map(|bytes| ExportedTree::mls_decode(&mut &*bytes));
            let tree = tree.transpose().map_err(failed)?;
            let (group, _) = client.join_group(tree, &welcome, None).map_err(failed)?;
            Ok::<_, String>(group)
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
        let member = self.member(name)?;
        member.made.rules.inside.store(inside, Ordering::Relaxed);
        let group = member.group()?;
        let (commit, welcome) = clock.run(|| {
            let mut builder = group.commit_builder();
            for leaf in remove {
                builder = builder.remove_member(*leaf).map_err(failed)?;
            }
            for package in packages {
                builder = builder.add_member(message(package)?).map_err(failed)?;
            }
            let output = builder.build().map_err(failed)?;
            let commit = encoded(&output.commit_message)?;
            let welcome = output.welcome_messages.first().map(encoded).transpose()?;
            group.apply_pending_commit().map_err(failed)?;
            Ok::<_, String>((commit, welcome))
        })?;
        let tree = match welcome {
            Some(_) if !inside => Some(group.export_tree().to_bytes().map_err(failed)?),
            _ => None,
        };
        Ok(Committed {
            commit,
            welcome,
            tree,
        })
    }

    fn process(&mut self, clock: &mut Clock, name: &str, commit: &[u8]) -> Answer<()> {
        let group = self.member(name)?.group()?;
        let received = clock.run(|| {
            group
                .process_incoming_message(message(commit)?)
                .map_err(failed)
        })?;
        match received {
            ReceivedMessage::Commit(_) => Ok(()),
            _ => Err(failed("expected a Commit")),
        }
    }

    fn encrypt(
        &mut self,
        clock: &mut Clock,
        name: &str,
        data: &[u8],
        count: u64,
    ) -> Answer<Vec<Vec<u8>>> {
        let group = self.member(name)?.group()?;
        let mut one = || {
            let sent = group.encrypt_application_message(data, Vec::new());
            encoded(&sent.map_err(failed)?)
        };
        (0..count).map(|_| clock.run(&mut one)).collect()
    }

    fn decrypt(&mut self, clock: &mut Clock, name: &str, messages: &[Vec<u8>]) -> Answer<()> {
        let group = self.member(name)?.group()?;
        for bytes in messages {
            let received = clock.run(|| {
                group
                    .process_incoming_message(message(bytes)?)
                    .map_err(failed)
            })?;
            let ReceivedMessage::ApplicationMessage(_) = received else {
                return Err(failed("expected an application message"));
            };
        }
        Ok(())
    }

    fn save(&mut self, clock: &mut Clock, name: &str) -> Answer<usize> {
        let member = self.member(name)?;
        let group = member.group()?;
        clock.run(|| group.write_to_storage()).map_err(failed)?;
        stored(member)
    }

    fn load(&mut self, clock: &mut Clock, name: &str) -> Answer<usize> {
        let member = self.member(name)?;
        let id = member.group()?.group_id().to_vec();
        let client = &member.made.client;
        clock.run(|| client.load_group(&id)).map_err(failed)?;
        stored(member)
    }

    fn drop(&mut self, name: &str) -> Answer<()> {
        self.members.remove(name);
        Ok(())
    }
}

fn peer<P>(provider: P, suite: CipherSuite) -> Box<dyn Library>
where
    P: CryptoProvider + Clone + Send + Sync + 'static,
{
    let priced = provider.clone();
    let prices = Box::new(move || prices(&priced, suite));
    Box::new(Peer::new(client(provider, suite), prices))
}

fn open(suite: u16, provider: &str) -> Answer<Box<dyn Library>> {
    let suite = CipherSuite::from(suite);
    match provider {
        "rustcrypto" => Ok(peer(RustCryptoProvider::new(), suite)),
        "openssl" => Ok(peer(OpensslCryptoProvider::new(), suite)),
        "awslc" => Ok(peer(AwsLcCryptoProvider::new(), suite)),
        other => Err(format!("mls-rs has no provider {other}")),
    }
}

fn main() -> io::Result<()> {
    rust_line::serve(open, VERSION)
}
