//! A client that plays test vectors through mls-rs.

use mls_rs::crypto::SignatureSecretKey;
use mls_rs::group::{CommitEffect, ReceivedMessage};
use mls_rs::identity::basic::BasicCredential;
use mls_rs::identity::SigningIdentity;
use mls_rs::storage_provider::KeyPackageData;
use mls_rs::time::MlsTime;
use mls_rs::{CipherSuite, CryptoProvider, Group, MlsMessage};
use mls_rs_crypto_openssl::OpensslCryptoProvider;
use rust_grpc::replay::{Invitation, Publication, Replayer, Start};
use rust_grpc::{failed, lacking, wrong, Answer};

use crate::convert::{self, Config, Configured, Identity};

/// What the clients of the vectors support (docs/negative-vectors.md).
const EXTENSIONS: [u16; 1] = [0xf001];
const PROPOSALS: [u16; 1] = [0xf002];

#[derive(Default)]
pub struct Replay {
    start: Option<(CipherSuite, Start)>,
    member: Option<(Configured, Group<Config>)>,
    /// Whether the group was closed by a ReInit.
    closed: bool,
}

impl Replay {
    fn start(&self) -> Answer<&(CipherSuite, Start)> {
        let start = self.start.as_ref();
        start.ok_or_else(|| wrong("there is no client yet"))
    }

    fn time(&self) -> Answer<MlsTime> {
        Ok(MlsTime::from(self.start()?.1.now))
    }

    fn client(&self, signing: SigningIdentity, signature_priv: Vec<u8>) -> Answer<Configured> {
        let (suite, start) = self.start()?;
        let mut secret = signature_priv;
        if convert::is_ed25519(*suite) {
            // The library keeps the public half behind the seed.
            secret.extend_from_slice(&signing.signature_key);
        }
        let identity = Identity {
            suite: *suite,
            signing,
            secret: SignatureSecretKey::new(secret),
        };
        let mut client = Configured::supporting(identity, &EXTENSIONS, &PROPOSALS);
        for (id, psk) in &start.psks {
            client.store_psk(id.clone(), psk.clone());
        }
        Ok(client)
    }

    fn enter(&mut self, client: Configured, group: Group<Config>) -> Answer<Vec<u8>> {
        let authenticator = group.epoch_authenticator().map_err(failed)?.to_vec();
        self.member = Some((client, group));
        Ok(authenticator)
    }

    /// The client whose key package it is, with the package in its store.
    fn invited(&self, invitation: &Invitation) -> Answer<Configured> {
        let message = convert::message(&invitation.key_package)?;
        let suite = OpensslCryptoProvider::new().cipher_suite_provider(self.start()?.0);
        let suite = suite.ok_or_else(|| lacking("mls-rs lacks the cipher suite"))?;
        let reference = message.key_package_reference(&suite).map_err(failed)?;
        let (reference, package) = reference
            .zip(message.into_key_package())
            .ok_or_else(|| wrong("expected a KeyPackage"))?;
        let client = self.client(
            package.signing_identity().clone(),
            invitation.signature_priv.clone(),
        )?;
        let data = KeyPackageData::new(
            // Behind version and wire format stands the bare key package.
            invitation.key_package[4..].to_vec(),
            invitation.init_priv.clone().into(),
            invitation.encryption_priv.clone().into(),
            u64::MAX,
        );
        client.packages.insert(reference.to_vec(), data);
        Ok(client)
    }
}

impl Replayer for Replay {
    fn begin(&mut self, start: Start) -> Answer<()> {
        *self = Self {
            start: Some((convert::suite(start.suite)?, start)),
            ..Self::default()
        };
        Ok(())
    }

    fn join(&mut self, invitation: Invitation) -> Answer<Vec<u8>> {
        let time = Some(self.time()?);
        let welcome = convert::message(&invitation.welcome)?;
        let tree = convert::tree(&invitation.tree)?;
        let client = self.invited(&invitation)?;
        let joined = match &self.member {
            _ if self.closed => {
                return Err(lacking("mls-rs joins a successor only by a package of its own"))
            }
            Some((old, group)) if invitation.continues => {
                client.lend_packages(old);
                group.join_subgroup(&welcome, tree, time)
            }
            _ => client.client.join_group(tree, &welcome, time),
        };
        self.enter(client, joined.map_err(failed)?.0)
    }

    fn join_external(&mut self, publication: Publication) -> Answer<Vec<u8>> {
        let credential = BasicCredential::new(publication.identity).into_credential();
        let signing = SigningIdentity::new(credential, publication.signature_pub.into());
        let client = self.client(signing, publication.signature_priv)?;
        let info: MlsMessage = convert::message(&publication.group_info)?;
        let mut builder = client.client.external_commit_builder().map_err(failed)?;
        if let Some(tree) = convert::tree(&publication.tree)? {
            builder = builder.with_tree_data(tree);
        }
        let (group, _) = builder.build(info).map_err(failed)?;
        self.enter(client, group)
    }

    fn receive(&mut self, message: &[u8]) -> Answer<Vec<u8>> {
        let (message, time) = (convert::message(message)?, self.time()?);
        let member = self.member.as_mut();
        let (_, group) = member.ok_or_else(|| wrong("not in a group"))?;
        let received = group.process_incoming_message_with_time(message, time);
        match received.map_err(failed)? {
            ReceivedMessage::Commit(done) => {
                self.closed = matches!(done.effect, CommitEffect::ReInit(_));
            }
            ReceivedMessage::Proposal(_) | ReceivedMessage::ApplicationMessage(_) => {}
            _ => return Err(failed("mls-rs says that it is no message of the group")),
        }
        Ok(group.epoch_authenticator().map_err(failed)?.to_vec())
    }
}
