//! One member in one epoch.

use std::sync::Arc;

use openmls::extensions::{Extension, Extensions};
use openmls::group::{
    GroupContext, MlsGroup, MlsGroupCreateConfig, MlsGroupJoinConfig, Propose, QueuedProposal,
    StagedWelcome, WireFormatPolicy, MIXED_CIPHERTEXT_WIRE_FORMAT_POLICY,
    MIXED_PLAINTEXT_WIRE_FORMAT_POLICY,
};
use openmls::prelude::tls_codec::Serialize;
use openmls::prelude::{
    Ciphersuite, CommitBuilder, ExternalSender, GroupId, Initial, KeyPackage, LeafNodeIndex,
    LeafNodeParameters, MlsMessageOut, OpenMlsProvider, OpenMlsRand, PreSharedKeyProposal,
    ProcessedMessageContent, Proposal, ProposalOrRefType, SenderRatchetConfiguration,
};
use openmls::schedule::psk::ResumptionPskUsage;
use openmls::schedule::PreSharedKeyId;
use rust_grpc::{failed, wire, wrong, Answer};

use crate::convert::{self, Identity, Store};

/// The runner asks for PSKs and late messages of any earlier epoch, so nothing is forgotten.
const KEPT_EPOCHS: usize = 1000;
const KEPT_GENERATIONS: u32 = 1000;

fn wire_format(encrypt: bool) -> WireFormatPolicy {
    if encrypt {
        MIXED_CIPHERTEXT_WIRE_FORMAT_POLICY
    } else {
        MIXED_PLAINTEXT_WIRE_FORMAT_POLICY
    }
}

fn ratchets() -> SenderRatchetConfiguration {
    SenderRatchetConfiguration::new(KEPT_GENERATIONS, KEPT_GENERATIONS)
}

pub fn join_config(encrypt: bool) -> MlsGroupJoinConfig {
    MlsGroupJoinConfig::builder()
        .wire_format_policy(wire_format(encrypt))
        .max_past_epochs(KEPT_EPOCHS)
        .number_of_resumption_psks(KEPT_EPOCHS)
        .sender_ratchet_configuration(ratchets())
        .use_ratchet_tree_extension(true)
        .build()
}

fn create_config(suite: Ciphersuite, encrypt: bool) -> MlsGroupCreateConfig {
    MlsGroupCreateConfig::builder()
        .ciphersuite(suite)
        .wire_format_policy(wire_format(encrypt))
        .max_past_epochs(KEPT_EPOCHS)
        .number_of_resumption_psks(KEPT_EPOCHS)
        .sender_ratchet_configuration(ratchets())
        .use_ratchet_tree_extension(true)
        .capabilities(convert::capabilities())
        .lifetime(convert::lifetime())
        .build()
}

fn external_psk(store: &Store, suite: Ciphersuite, id: Vec<u8>) -> Answer<PreSharedKeyId> {
    let nonce = store
        .rand()
        .random_vec(suite.hash_length())
        .map_err(failed)?;
    Ok(PreSharedKeyId::external(id, nonce))
}

/// A proposal that the committer makes itself.
enum ByValue {
    Add(Box<KeyPackage>),
    Remove(LeafNodeIndex),
    Psk(PreSharedKeyId),
    Extensions(Extensions<GroupContext>),
}

type Builder<'a> = CommitBuilder<'a, Initial, &'a mut MlsGroup>;

impl ByValue {
    fn into_builder(self, builder: Builder<'_>) -> Answer<Builder<'_>> {
        match self {
            Self::Add(package) => Ok(builder.propose_adds([*package])),
            Self::Remove(leaf) => Ok(builder.propose_removals([leaf])),
            Self::Psk(id) => Ok(builder.add_proposal(psk_proposal(id))),
            Self::Extensions(list) => builder
                .propose_group_context_extensions(list)
                .map_err(failed),
        }
    }
}

fn psk_proposal(id: PreSharedKeyId) -> Proposal {
    Proposal::PreSharedKey(Box::new(PreSharedKeyProposal::new(id)))
}

pub struct Member {
    pub store: Store,
    pub group: MlsGroup,
    pub identity: Arc<Identity>,
    pub encrypt: bool,
    /// Own proposals of this epoch, kept out of the library's queue until a commit names them:
    /// the library would commit to whatever its queue holds.
    own: Vec<(Vec<u8>, QueuedProposal)>,
    pending: Option<Box<Member>>,
}

impl Member {
    pub fn new(store: Store, group: MlsGroup, identity: Arc<Identity>, encrypt: bool) -> Self {
        Self {
            store,
            group,
            identity,
            encrypt,
            own: Vec::new(),
            pending: None,
        }
    }

    pub fn create(
        group_id: &[u8],
        suite: Ciphersuite,
        identity: Arc<Identity>,
        encrypt: bool,
    ) -> Answer<Self> {
        let store = Store::default();
        let config = create_config(suite, encrypt);
        let group = MlsGroup::new_with_group_id(
            &store,
            &identity.keys,
            &config,
            GroupId::from_slice(group_id),
            identity.credential(),
        )
        .map_err(failed)?;
        Ok(Self::new(store, group, identity, encrypt))
    }

    pub fn join(
        store: Store,
        identity: Arc<Identity>,
        encrypt: bool,
        welcome: &[u8],
        tree: &[u8],
    ) -> Answer<Self> {
        let welcome = convert::welcome(welcome)?;
        let tree = convert::tree(tree)?;
        let staged = StagedWelcome::new_from_welcome(&store, &join_config(encrypt), welcome, tree)
            .map_err(failed)?;
        let group = staged.into_group(&store).map_err(failed)?;
        Ok(Self::new(store, group, identity, encrypt))
    }

    /// Joins by external Commit; gives the Commit too.
    pub fn join_external(
        store: Store,
        identity: Arc<Identity>,
        encrypt: bool,
        info: &[u8],
        tree: &[u8],
        psks: Vec<(Vec<u8>, &[u8])>,
    ) -> Answer<(Self, Vec<u8>)> {
        let info = convert::group_info(info)?;
        let suite = info.ciphersuite();
        let mut proposals = Vec::new();
        for (id, secret) in psks {
            store_psk(&store, suite, id.clone(), secret)?;
            proposals.push(PreSharedKeyProposal::new(external_psk(&store, suite, id)?));
        }
        let leaf = LeafNodeParameters::builder()
            .with_capabilities(convert::capabilities())
            .build();
        let mut builder = MlsGroup::external_commit_builder().with_config(join_config(encrypt));
        if let Some(tree) = convert::tree(tree)? {
            builder = builder.with_ratchet_tree(tree);
        }
        let (group, bundle) = builder
            .build_group(&store, info, identity.credential())
            .map_err(failed)?
            .leaf_node_parameters(leaf)
            .add_psk_proposals(proposals)
            .load_psks(store.storage())
            .map_err(failed)?
            .build(store.rand(), store.crypto(), &identity.keys, |_| true)
            .map_err(failed)?
            .finalize(&store)
            .map_err(failed)?;
        let commit = convert::encoded(bundle.into_commit())?;
        Ok((Self::new(store, group, identity, encrypt), commit))
    }

    /// The same member, on storage of its own.
    fn copy(&self) -> Answer<Self> {
        let store = self.store.copy()?;
        let group = MlsGroup::load(store.storage(), self.group.group_id()).map_err(failed)?;
        let group =
            group.ok_or_else(|| failed("the group could not be loaded from its storage"))?;
        Ok(Self::new(store, group, self.identity.clone(), self.encrypt))
    }

    /// A copy that has taken in the proposals, its own ones included.
    fn with_proposals(&self, messages: &[Vec<u8>]) -> Answer<Self> {
        let mut copy = self.copy()?;
        for bytes in messages {
            let own = self.own.iter().find(|(sent, _)| sent == bytes);
            let proposal = match own {
                Some((_, proposal)) => proposal.clone(),
                None => copy.receive_proposal(bytes)?,
            };
            copy.group
                .store_pending_proposal(copy.store.storage(), proposal)
                .map_err(failed)?;
        }
        Ok(copy)
    }

    fn receive(&mut self, bytes: &[u8]) -> Answer<(ProcessedMessageContent, Vec<u8>)> {
        let message = convert::protocol_message(bytes)?;
        let processed = self
            .group
            .process_message(&self.store, message)
            .map_err(failed)?;
        let aad = processed.aad().to_vec();
        Ok((processed.into_content(), aad))
    }

    fn receive_proposal(&mut self, bytes: &[u8]) -> Answer<QueuedProposal> {
        match self.receive(bytes)?.0 {
            ProcessedMessageContent::ProposalMessage(proposal) => Ok(*proposal),
            ProcessedMessageContent::ExternalJoinProposalMessage(proposal) => Ok(*proposal),
            _ => Err(wrong("expected a proposal")),
        }
    }

    pub fn leaf_of(&self, name: &[u8]) -> Answer<LeafNodeIndex> {
        let found = self
            .group
            .members()
            .find(|m| m.credential.serialized_content() == name);
        let text = String::from_utf8_lossy(name);
        found
            .map(|m| m.index)
            .ok_or_else(|| wrong(format!("no member is called {text}")))
    }

    fn resumption_psk(&self, epoch: u64) -> Answer<PreSharedKeyId> {
        let length = self.group.ciphersuite().hash_length();
        let nonce = self.store.rand().random_vec(length).map_err(failed)?;
        let group_id = self.group.group_id().clone();
        let usage = ResumptionPskUsage::Application;
        Ok(PreSharedKeyId::resumption(
            usage,
            group_id,
            epoch.into(),
            nonce,
        ))
    }

    fn described(&self, d: &wire::ProposalDescription) -> Answer<ByValue> {
        match d.proposal_type.as_slice() {
            b"add" => {
                let package = convert::key_package(&self.store, &d.key_package)?;
                Ok(ByValue::Add(Box::new(package)))
            }
            b"remove" => Ok(ByValue::Remove(self.leaf_of(&d.removed_id)?)),
            b"externalPSK" => {
                let suite = self.group.ciphersuite();
                Ok(ByValue::Psk(external_psk(
                    &self.store,
                    suite,
                    d.psk_id.clone(),
                )?))
            }
            b"resumptionPSK" => Ok(ByValue::Psk(self.resumption_psk(d.epoch_id)?)),
            b"groupContextExtensions" => Ok(ByValue::Extensions(convert::context_extensions(
                &d.extensions,
            )?)),
            other => Err(wrong(format!(
                "unknown type {:?}",
                String::from_utf8_lossy(other)
            ))),
        }
    }

    fn sent(&mut self, message: MlsMessageOut) -> Answer<Vec<u8>> {
        let bytes = convert::encoded(message)?;
        let queued = self.group.pending_proposals().next().cloned();
        let queued = queued.ok_or_else(|| failed("OpenMLS queued no proposal"))?;
        self.group
            .clear_pending_proposals(self.store.storage())
            .map_err(failed)?;
        self.own.push((bytes.clone(), queued));
        Ok(bytes)
    }

    fn propose(&mut self, proposal: Propose) -> Answer<Vec<u8>> {
        let by = ProposalOrRefType::Reference;
        let keys = &self.identity.keys;
        let (message, _) = self
            .group
            .propose(&self.store, keys, proposal, by)
            .map_err(failed)?;
        self.sent(message)
    }

    pub fn propose_add(&mut self, key_package: &[u8]) -> Answer<Vec<u8>> {
        let package = convert::key_package(&self.store, key_package)?;
        self.propose(Propose::Add(package))
    }

    pub fn propose_update(&mut self) -> Answer<Vec<u8>> {
        self.propose(Propose::Update(LeafNodeParameters::default()))
    }

    pub fn propose_remove(&mut self, name: &[u8]) -> Answer<Vec<u8>> {
        let leaf = self.leaf_of(name)?;
        self.propose(Propose::Remove(leaf.u32()))
    }

    pub fn propose_external_psk(&mut self, id: Vec<u8>) -> Answer<Vec<u8>> {
        let id = external_psk(&self.store, self.group.ciphersuite(), id)?;
        self.propose(Propose::PreSharedKey(id))
    }

    pub fn propose_resumption_psk(&mut self, epoch: u64) -> Answer<Vec<u8>> {
        let id = self.resumption_psk(epoch)?;
        let keys = &self.identity.keys;
        let (message, _) = self
            .group
            .propose_pre_shared_key(&self.store, keys, id)
            .map_err(failed)?;
        self.sent(message)
    }

    pub fn propose_extensions(&mut self, list: &[wire::Extension]) -> Answer<Vec<u8>> {
        let extensions = convert::context_extensions(list)?;
        self.propose(Propose::GroupContextExtensions(extensions))
    }

    pub fn propose_external_sender(&mut self, sender: ExternalSender) -> Answer<Vec<u8>> {
        let mut extensions = self.group.extensions().clone();
        let mut senders = extensions.external_senders().cloned().unwrap_or_default();
        senders.push(sender);
        extensions
            .add_or_replace(Extension::ExternalSenders(senders))
            .map_err(failed)?;
        self.propose(Propose::GroupContextExtensions(extensions))
    }

    pub fn commit(&mut self, request: &wire::CommitRequest) -> Answer<wire::CommitResponse> {
        let mut next = self.with_proposals(&request.by_reference)?;
        let by_value = request
            .by_value
            .iter()
            .map(|d| next.described(d))
            .collect::<Answer<Vec<_>>>()?;
        let (store, keys) = (&next.store, &next.identity.keys);
        let mut builder = next
            .group
            .commit_builder()
            .force_self_update(request.force_path);
        for value in by_value {
            builder = value.into_builder(builder)?;
        }
        let bundle = builder
            .load_psks(store.storage())
            .map_err(failed)?
            .use_ratchet_tree_extension(!request.external_tree)
            .build(store.rand(), store.crypto(), keys, |_| true)
            .map_err(failed)?
            .stage_commit(store)
            .map_err(failed)?;
        let (commit, welcome, _) = bundle.into_messages();
        next.group.merge_pending_commit(store).map_err(failed)?;
        let response = wire::CommitResponse {
            commit: convert::encoded(commit)?,
            welcome: welcome.map_or(Ok(Vec::new()), convert::encoded)?,
            ratchet_tree: if request.external_tree {
                next.tree()?
            } else {
                Vec::new()
            },
        };
        self.pending = Some(Box::new(next));
        Ok(response)
    }

    pub fn handle_commit(&mut self, proposals: &[Vec<u8>], commit: &[u8]) -> Answer<Self> {
        let mut next = self.with_proposals(proposals)?;
        let (ProcessedMessageContent::StagedCommitMessage(staged), _) = next.receive(commit)?
        else {
            return Err(wrong("expected a commit"));
        };
        if staged.self_removed() {
            return Err(failed("this commit removes the member"));
        }
        next.group
            .merge_staged_commit(&next.store, *staged)
            .map_err(failed)?;
        Ok(next)
    }

    pub fn take_pending(&mut self) -> Answer<Self> {
        let pending = self.pending.take();
        pending
            .map(|member| *member)
            .ok_or_else(|| wrong("no commit is pending in this state"))
    }

    /// Asks the library for a branch: a fresh group that injects this epoch's PSK.
    pub fn branch(&self, group_id: &[u8]) -> Answer<()> {
        let suite = self.group.ciphersuite();
        let identity = self.identity.clone();
        let mut fresh = Self::create(group_id, suite, identity, self.encrypt)?;
        let usage = ResumptionPskUsage::Branch;
        let nonce = self
            .store
            .rand()
            .random_vec(suite.hash_length())
            .map_err(failed)?;
        let old = self.group.group_id().clone();
        let id = PreSharedKeyId::resumption(usage, old, self.group.epoch(), nonce);
        let proposal = psk_proposal(id);
        let builder = fresh.group.commit_builder().add_proposal(proposal);
        builder
            .load_psks(fresh.store.storage())
            .map(drop)
            .map_err(failed)
    }

    pub fn tree(&self) -> Answer<Vec<u8>> {
        self.group
            .export_ratchet_tree()
            .tls_serialize_detached()
            .map_err(failed)
    }

    pub fn authenticator(&self) -> Vec<u8> {
        self.group.epoch_authenticator().as_slice().to_vec()
    }

    pub fn group_info(&self, external_tree: bool) -> Answer<Vec<u8>> {
        let keys = &self.identity.keys;
        let message = self
            .group
            .export_group_info(self.store.crypto(), keys, !external_tree)
            .map_err(failed)?;
        convert::encoded(message)
    }

    pub fn protect(&mut self, aad: Vec<u8>, plaintext: &[u8]) -> Answer<Vec<u8>> {
        self.group.set_aad(aad);
        let keys = &self.identity.keys;
        let message = self
            .group
            .create_message(&self.store, keys, plaintext)
            .map_err(failed)?;
        convert::encoded(message)
    }

    pub fn unprotect(&mut self, ciphertext: &[u8]) -> Answer<(Vec<u8>, Vec<u8>)> {
        let (content, aad) = self.receive(ciphertext)?;
        let ProcessedMessageContent::ApplicationMessage(message) = content else {
            return Err(wrong("expected an application message"));
        };
        Ok((aad, message.into_bytes()))
    }

    pub fn store_psk(&self, id: Vec<u8>, secret: &[u8]) -> Answer<()> {
        store_psk(&self.store, self.group.ciphersuite(), id, secret)
    }
}

pub fn store_psk(store: &Store, suite: Ciphersuite, id: Vec<u8>, secret: &[u8]) -> Answer<()> {
    let id = external_psk(store, suite, id)?;
    id.store(store, secret).map_err(failed)
}
