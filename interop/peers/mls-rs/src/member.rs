//! One member in one epoch.

use mls_rs::error::MlsError;
use mls_rs::extension::built_in::ExternalSendersExt;
use mls_rs::group::{
    CommitBuilder, CommitEffect, CommitMessageDescription, ReceivedMessage, ReinitClient,
};
use mls_rs::identity::SigningIdentity;
use mls_rs::psk::ExternalPskId;
use mls_rs::{CipherSuite, Group, MlsMessage, ProtocolVersion};
use rust_grpc::{failed, wire, wrong, Answer};

use crate::convert::{self, Config, Configured, Identity, Reference};

type MlsResult<T> = Result<T, MlsError>;

pub struct Member {
    pub configured: Configured,
    /// Sends and reads application messages; never sees a proposal, because with one in its cache
    /// mls-rs would send no application message.
    pub group: Group<Config>,
    /// Sends proposals and is the start of every commit.
    handshake: Group<Config>,
    own: Vec<(Vec<u8>, Reference)>,
    encrypt: bool,
    /// The suite of the successor, if the group was closed by the commit into this epoch.
    pub successor: Option<CipherSuite>,
    pending: Option<Box<Member>>,
}

impl Member {
    pub fn new(configured: Configured, group: Group<Config>, encrypt: bool) -> Self {
        let handshake = group.clone();
        let (own, successor, pending) = (Vec::new(), None, None);
        Self {
            configured,
            group,
            handshake,
            own,
            encrypt,
            successor,
            pending,
        }
    }

    fn subgroup(&self, group: Group<Config>) -> Self {
        Self::new(self.configured.clone(), group, self.encrypt)
    }

    fn next(&self, group: Group<Config>, done: CommitMessageDescription) -> Answer<Self> {
        let mut next = Self::new(self.configured.clone(), group, self.encrypt);
        match done.effect {
            CommitEffect::Removed { .. } => return Err(failed("this commit removes the member")),
            CommitEffect::ReInit(info) => next.successor = Some(info.proposal.new_cipher_suite()),
            CommitEffect::NewEpoch(_) => {}
        }
        Ok(next)
    }

    fn wish(&self, force_path: bool, external_tree: bool, referenced: Vec<Reference>) {
        let mut wishes = self.configured.rules.wishes();
        wishes.encrypt = self.encrypt;
        wishes.force_path = force_path;
        wishes.external_tree = external_tree;
        wishes.referenced = referenced;
    }

    pub fn propose(
        &mut self,
        make: impl FnOnce(&mut Group<Config>) -> MlsResult<MlsMessage>,
    ) -> Answer<Vec<u8>> {
        self.wish(false, false, Vec::new());
        let known = cached(&self.handshake);
        let message = make(&mut self.handshake).map_err(failed)?;
        let bytes = convert::encoded(&message)?;
        let new = cached(&self.handshake)
            .into_iter()
            .find(|r| !known.contains(r));
        self.own.push((
            bytes.clone(),
            new.ok_or_else(|| failed("mls-rs cached no proposal"))?,
        ));
        Ok(bytes)
    }

    pub fn propose_external_sender(&mut self, sender: SigningIdentity) -> Answer<Vec<u8>> {
        let mut extensions = self.group.context().extensions().clone();
        let senders = extensions.get_as::<ExternalSendersExt>().map_err(failed)?;
        let mut senders = senders.map_or_else(Vec::new, |list| list.allowed_senders);
        senders.push(sender);
        extensions
            .set_from(ExternalSendersExt::new(senders))
            .map_err(failed)?;
        self.propose(|group| group.propose_group_context_extensions(extensions, Vec::new()))
    }

    pub fn leaf_of(&self, name: &[u8]) -> Answer<u32> {
        convert::leaf_of(&self.group.roster(), name)
    }

    /// A clone that has taken in the proposals, and the references to them.
    fn with_proposals(&self, messages: &[Vec<u8>]) -> Answer<(Group<Config>, Vec<Reference>)> {
        let mut group = self.handshake.clone();
        let mut references = Vec::new();
        for bytes in messages {
            if let Some((_, reference)) = self.own.iter().find(|(sent, _)| sent == bytes) {
                references.push(reference.clone());
                continue;
            }
            let message = convert::message(bytes)?;
            match group.process_incoming_message(message).map_err(failed)? {
                ReceivedMessage::Proposal(received) => {
                    references.push(received.proposal_ref.as_slice().to_vec())
                }
                _ => return Err(wrong("expected a proposal")),
            }
        }
        Ok((group, references))
    }

    fn with_value<'a>(
        &self,
        builder: CommitBuilder<'a, Config>,
        d: &wire::ProposalDescription,
    ) -> Answer<CommitBuilder<'a, Config>> {
        match d.proposal_type.as_slice() {
            b"add" => builder.add_member(convert::message(&d.key_package)?),
            b"remove" => builder.remove_member(self.leaf_of(&d.removed_id)?),
            b"externalPSK" => builder.add_external_psk(ExternalPskId::new(d.psk_id.clone())),
            b"resumptionPSK" => builder.add_resumption_psk(d.epoch_id),
            b"groupContextExtensions" => {
                builder.set_group_context_ext(convert::extensions(&d.extensions)?)
            }
            other => {
                return Err(wrong(format!(
                    "unknown type {:?}",
                    String::from_utf8_lossy(other)
                )))
            }
        }
        .map_err(failed)
    }

    pub fn commit(&mut self, request: &wire::CommitRequest) -> Answer<wire::CommitResponse> {
        let (mut group, references) = self.with_proposals(&request.by_reference)?;
        self.wish(request.force_path, request.external_tree, references);
        let mut builder = group.commit_builder();
        for description in &request.by_value {
            builder = self.with_value(builder, description)?;
        }
        let output = builder.build().map_err(failed)?;
        let done = group.apply_pending_commit().map_err(failed)?;
        let response = wire::CommitResponse {
            commit: convert::encoded(&output.commit_message)?,
            welcome: only_welcome(&output.welcome_messages)?,
            ratchet_tree: outside_tree(&group, request.external_tree)?,
        };
        self.pending = Some(Box::new(self.next(group, done)?));
        Ok(response)
    }

    pub fn handle_commit(&self, proposals: &[Vec<u8>], commit: &[u8]) -> Answer<Self> {
        let (mut group, _) = self.with_proposals(proposals)?;
        let message = convert::message(commit)?;
        match group.process_incoming_message(message).map_err(failed)? {
            ReceivedMessage::Commit(done) => self.next(group, done),
            _ => Err(wrong("expected a commit")),
        }
    }

    pub fn take_pending(&mut self) -> Answer<Self> {
        let pending = self.pending.take();
        pending
            .map(|member| *member)
            .ok_or_else(|| wrong("no commit is pending in this state"))
    }

    pub fn reinit(&mut self, r: &wire::ReInitProposalRequest) -> Answer<Vec<u8>> {
        let suite = convert::suite(r.cipher_suite)?;
        let extensions = convert::extensions(&r.extensions)?;
        let id = Some(r.group_id.clone());
        let version = ProtocolVersion::MLS_10;
        self.propose(|group| group.propose_reinit(id, version, suite, extensions, Vec::new()))
    }

    fn reinit_client(&self, new: Option<&Identity>) -> Answer<ReinitClient<Config>> {
        let secret = new.map(|identity| identity.secret.clone());
        let signing = new.map(|identity| identity.signing.clone());
        self.group
            .clone()
            .get_reinit_client(secret, signing)
            .map_err(failed)
    }

    /// A key package for the successor; `new` is the identity if the suite changes.
    pub fn successor_package(&self, new: Option<&Identity>) -> Answer<Vec<u8>> {
        let client = self.reinit_client(new)?;
        convert::encoded(&client.generate_key_package(None).map_err(failed)?)
    }

    pub fn open_successor(
        &self,
        new: Option<&Identity>,
        r: &wire::ReInitWelcomeRequest,
    ) -> Answer<(Self, Vec<u8>)> {
        let packages = r.key_package.iter().map(|p| convert::message(p));
        let packages = packages.collect::<Answer<Vec<_>>>()?;
        self.wish(r.force_path, r.external_tree, Vec::new());
        let client = self.reinit_client(new)?;
        let (group, welcomes) = client
            .commit(packages, Default::default(), None)
            .map_err(failed)?;
        Ok((self.subgroup(group), only_welcome(&welcomes)?))
    }

    pub fn join_successor(
        &self,
        new: Option<&Identity>,
        welcome: &[u8],
        tree: &[u8],
    ) -> Answer<Self> {
        let (welcome, tree) = (convert::message(welcome)?, convert::tree(tree)?);
        let client = self.reinit_client(new)?;
        let (group, _) = client.join(&welcome, tree, None).map_err(failed)?;
        Ok(self.subgroup(group))
    }

    pub fn branch(&self, r: &wire::CreateBranchRequest) -> Answer<(Self, Vec<u8>)> {
        let packages = r.key_packages.iter().map(|p| convert::message(p));
        let packages = packages.collect::<Answer<Vec<_>>>()?;
        self.wish(r.force_path, r.external_tree, Vec::new());
        let (group, welcomes) = self
            .group
            .branch(r.group_id.clone(), packages, None)
            .map_err(failed)?;
        Ok((self.subgroup(group), only_welcome(&welcomes)?))
    }

    pub fn join_branch(&self, welcome: &[u8], tree: &[u8]) -> Answer<Self> {
        let (welcome, tree) = (convert::message(welcome)?, convert::tree(tree)?);
        let (group, _) = self
            .group
            .join_subgroup(&welcome, tree, None)
            .map_err(failed)?;
        Ok(self.subgroup(group))
    }

    pub fn authenticator(&self) -> Answer<Vec<u8>> {
        Ok(self.group.epoch_authenticator().map_err(failed)?.to_vec())
    }

    pub fn tree(&self, wanted: bool) -> Answer<Vec<u8>> {
        outside_tree(&self.group, wanted)
    }

    pub fn group_info(&self, external_tree: bool) -> Answer<Vec<u8>> {
        let message = self
            .group
            .group_info_message_allowing_ext_commit(!external_tree);
        convert::encoded(&message.map_err(failed)?)
    }

    pub fn protect(&mut self, aad: Vec<u8>, plaintext: &[u8]) -> Answer<Vec<u8>> {
        let message = self
            .group
            .encrypt_application_message(plaintext, aad)
            .map_err(failed)?;
        convert::encoded(&message)
    }

    pub fn unprotect(&mut self, ciphertext: &[u8]) -> Answer<(Vec<u8>, Vec<u8>)> {
        let message = convert::message(ciphertext)?;
        match self
            .group
            .process_incoming_message(message)
            .map_err(failed)?
        {
            ReceivedMessage::ApplicationMessage(m) => {
                Ok((m.authenticated_data.clone(), m.data().to_vec()))
            }
            _ => Err(wrong("expected an application message")),
        }
    }
}

fn cached(group: &Group<Config>) -> Vec<Reference> {
    group
        .get_cached_proposals()
        .into_iter()
        .map(|cached| cached.proposal_ref().as_slice().to_vec())
        .collect()
}

pub fn outside_tree(group: &Group<Config>, wanted: bool) -> Answer<Vec<u8>> {
    if wanted {
        group.export_tree().to_bytes().map_err(failed)
    } else {
        Ok(Vec::new())
    }
}

pub fn only_welcome(welcomes: &[MlsMessage]) -> Answer<Vec<u8>> {
    match welcomes {
        [] => Ok(Vec::new()),
        [welcome] => convert::encoded(welcome),
        _ => Err(failed("mls-rs made several Welcomes")),
    }
}
