//! Every call of the interface as far as OpenMLS goes.

use std::sync::Arc;

use openmls::group::ProposalStore;
use openmls::messages::group_info::VerifiableGroupInfo;
use openmls::prelude::tls_codec::{DeserializeBytes, Serialize};
use openmls::prelude::{
    Ciphersuite, ExternalProposal, ExternalSender, JoinProposal, LeafNodeIndex, OpenMlsProvider,
    PublicGroup, RatchetTreeIn, SenderExtensionIndex,
};
use rust_grpc::wire::*;
use rust_grpc::{failed, lacking, wrong, Answer, Peer, Refusal, Table};

use crate::convert::{self, Identity, Store};
use crate::member::{store_psk, Member};

const NO_REINIT: &str = "OpenMLS has no reinitialisation: nothing proposes it, its commits leave \
                         such a proposal out, and no call opens the successor";

/// A key package that has not joined yet.
struct Waiting {
    store: Store,
    suite: Ciphersuite,
    identity: Arc<Identity>,
}

struct Signer {
    store: Store,
    identity: Identity,
}

pub struct OpenMls {
    members: Table<Member>,
    waiting: Table<Waiting>,
    signers: Table<Signer>,
    /// All signature keys: OpenMLS finds the leaf to replace in a resync by its signature key.
    identities: Vec<Arc<Identity>>,
    last_id: u32,
}

/// The library's words, as the reason for which a whole feature is lacking.
fn as_lacking(what: &'static str) -> impl Fn(Refusal) -> Refusal {
    move |refusal| match refusal {
        Refusal::Failed(text) => lacking(format!("{what}: {text}")),
        other => other,
    }
}

fn public_group(store: &Store, info: VerifiableGroupInfo, tree: &[u8]) -> Answer<PublicGroup> {
    let inside = info
        .extensions()
        .ratchet_tree()
        .map(|e| e.ratchet_tree().clone());
    let tree: Option<RatchetTreeIn> = match inside {
        Some(tree) => Some(tree),
        None => convert::tree(tree)?,
    };
    let tree = tree.ok_or_else(|| wrong("no ratchet tree inside or beside the GroupInfo"))?;
    let (crypto, storage) = (store.crypto(), store.storage());
    let group = PublicGroup::from_external(crypto, storage, tree, info, ProposalStore::new());
    Ok(group.map_err(failed)?.0)
}

impl OpenMls {
    pub fn new() -> Self {
        Self {
            members: Table::new("state"),
            waiting: Table::new("transaction"),
            signers: Table::new("external signer"),
            identities: Vec::new(),
            last_id: 0,
        }
    }

    fn next_id(&mut self) -> u32 {
        self.last_id += 1;
        self.last_id
    }

    fn identity(&mut self, suite: Ciphersuite, name: Vec<u8>) -> Answer<Arc<Identity>> {
        let identity = Arc::new(Identity::new(suite, name)?);
        self.identities.push(identity.clone());
        Ok(identity)
    }

    fn put(&mut self, member: Member) -> (u32, Vec<u8>) {
        let (id, authenticator) = (self.next_id(), member.authenticator());
        self.members.put(id, member);
        (id, authenticator)
    }

    fn proposal(
        &mut self,
        state_id: u32,
        propose: impl FnOnce(&mut Member) -> Answer<Vec<u8>>,
    ) -> Answer<ProposalResponse> {
        let proposal = propose(self.members.get(state_id)?)?;
        Ok(ProposalResponse { proposal })
    }

    fn wait(&mut self, suite: Ciphersuite, name: Vec<u8>) -> Answer<(u32, NewPackage)> {
        let identity = self.identity(suite, name)?;
        let store = Store::default();
        let bundle = convert::new_key_package(&store, suite, &identity)?;
        let (init_priv, encryption_priv) = convert::package_keys(&bundle)?;
        let package = NewPackage {
            key_package: bundle.into_key_package(),
            init_priv,
            encryption_priv,
            signature_priv: identity.private_key()?,
            identity: identity.clone(),
        };
        let id = self.next_id();
        self.waiting.put(
            id,
            Waiting {
                store,
                suite,
                identity,
            },
        );
        Ok((id, package))
    }

    /// The identity with which to join from outside: that of the prior leaf, or a new one.
    fn external_identity(
        &mut self,
        store: &Store,
        suite: Ciphersuite,
        request: &ExternalJoinRequest,
    ) -> Answer<Arc<Identity>> {
        if !request.remove_prior {
            return self.identity(suite, request.identity.clone());
        }
        let info = convert::group_info(&request.group_info)?;
        let group = public_group(store, info, &request.ratchet_tree)?;
        let prior = group
            .members()
            .find(|m| m.credential.serialized_content() == request.identity)
            .ok_or_else(|| wrong("the group has no prior appearance of this identity"))?;
        let same_key = |i: &&Arc<Identity>| i.keys.public() == prior.signature_key;
        self.identities
            .iter()
            .find(same_key)
            .cloned()
            .ok_or_else(|| {
                lacking(
                    "OpenMLS resyncs only with the prior leaf's signature key, which is not ours",
                )
            })
    }
}

struct NewPackage {
    key_package: openmls::prelude::KeyPackage,
    init_priv: Vec<u8>,
    encryption_priv: Vec<u8>,
    signature_priv: Vec<u8>,
    identity: Arc<Identity>,
}

impl Peer for OpenMls {
    fn name(&mut self, _: NameRequest) -> Answer<NameResponse> {
        Ok(NameResponse {
            name: "OpenMLS".into(),
        })
    }

    fn supported_ciphersuites(
        &mut self,
        _: SupportedCiphersuitesRequest,
    ) -> Answer<SupportedCiphersuitesResponse> {
        let ciphersuites = convert::SUITES
            .map(|suite| u32::from(u16::from(suite)))
            .to_vec();
        Ok(SupportedCiphersuitesResponse { ciphersuites })
    }

    fn create_group(&mut self, r: CreateGroupRequest) -> Answer<CreateGroupResponse> {
        let suite = convert::suite(r.cipher_suite)?;
        let identity = self.identity(suite, r.identity)?;
        let member = Member::create(&r.group_id, suite, identity, r.encrypt_handshake)?;
        Ok(CreateGroupResponse {
            state_id: self.put(member).0,
        })
    }

    fn create_key_package(
        &mut self,
        r: CreateKeyPackageRequest,
    ) -> Answer<CreateKeyPackageResponse> {
        let (transaction_id, package) = self.wait(convert::suite(r.cipher_suite)?, r.identity)?;
        Ok(CreateKeyPackageResponse {
            transaction_id,
            key_package: convert::encoded(package.key_package.into())?,
            init_priv: package.init_priv,
            encryption_priv: package.encryption_priv,
            signature_priv: package.signature_priv,
        })
    }

    fn join_group(&mut self, r: JoinGroupRequest) -> Answer<JoinGroupResponse> {
        let waiting = self.waiting.get(r.transaction_id)?;
        // OpenMLS uses the key package up even when it refuses the Welcome, hence the copy.
        let (store, identity) = (waiting.store.copy()?, waiting.identity.clone());
        let member = Member::join(
            store,
            identity,
            r.encrypt_handshake,
            &r.welcome,
            &r.ratchet_tree,
        )?;
        self.waiting.take(r.transaction_id)?;
        let (state_id, epoch_authenticator) = self.put(member);
        Ok(JoinGroupResponse {
            state_id,
            epoch_authenticator,
        })
    }

    fn external_join(&mut self, r: ExternalJoinRequest) -> Answer<ExternalJoinResponse> {
        let suite = convert::group_info(&r.group_info)?.ciphersuite();
        let store = Store::default();
        let identity = self.external_identity(&store, suite, &r)?;
        let psks = r.psks.iter().map(|p| (p.psk_id.clone(), &*p.psk_secret));
        let (encrypt, psks) = (r.encrypt_handshake, psks.collect());
        let (member, commit) = Member::join_external(
            store,
            identity,
            encrypt,
            &r.group_info,
            &r.ratchet_tree,
            psks,
        )?;
        let (state_id, epoch_authenticator) = self.put(member);
        Ok(ExternalJoinResponse {
            state_id,
            commit,
            epoch_authenticator,
        })
    }

    fn group_info(&mut self, r: GroupInfoRequest) -> Answer<GroupInfoResponse> {
        let member = self.members.get(r.state_id)?;
        Ok(GroupInfoResponse {
            group_info: member.group_info(r.external_tree)?,
            ratchet_tree: if r.external_tree {
                member.tree()?
            } else {
                Vec::new()
            },
        })
    }

    fn state_auth(&mut self, r: StateAuthRequest) -> Answer<StateAuthResponse> {
        Ok(StateAuthResponse {
            state_auth_secret: self.members.get(r.state_id)?.authenticator(),
        })
    }

    fn export(&mut self, r: ExportRequest) -> Answer<ExportResponse> {
        let member = self.members.get(r.state_id)?;
        let length = usize::try_from(r.key_length).map_err(failed)?;
        let exported_secret = member
            .group
            .export_secret(member.store.crypto(), &r.label, &r.context, length)
            .map_err(failed)?;
        Ok(ExportResponse { exported_secret })
    }

    fn protect(&mut self, r: ProtectRequest) -> Answer<ProtectResponse> {
        let member = self.members.get(r.state_id)?;
        Ok(ProtectResponse {
            ciphertext: member.protect(r.authenticated_data, &r.plaintext)?,
        })
    }

    fn unprotect(&mut self, r: UnprotectRequest) -> Answer<UnprotectResponse> {
        let member = self.members.get(r.state_id)?;
        let (authenticated_data, plaintext) = member.unprotect(&r.ciphertext)?;
        Ok(UnprotectResponse {
            authenticated_data,
            plaintext,
        })
    }

    fn store_psk(&mut self, r: StorePskRequest) -> Answer<StorePskResponse> {
        let id = r.state_or_transaction_id;
        if self.members.has(id) {
            self.members.get(id)?.store_psk(r.psk_id, &r.psk_secret)?;
        } else {
            let waiting = self.waiting.get(id)?;
            store_psk(&waiting.store, waiting.suite, r.psk_id, &r.psk_secret)?;
        }
        Ok(StorePskResponse {})
    }

    fn add_proposal(&mut self, r: AddProposalRequest) -> Answer<ProposalResponse> {
        self.proposal(r.state_id, |m| m.propose_add(&r.key_package))
    }

    fn update_proposal(&mut self, r: UpdateProposalRequest) -> Answer<ProposalResponse> {
        self.proposal(r.state_id, Member::propose_update)
    }

    fn remove_proposal(&mut self, r: RemoveProposalRequest) -> Answer<ProposalResponse> {
        self.proposal(r.state_id, |m| m.propose_remove(&r.removed_id))
    }

    fn external_psk_proposal(&mut self, r: ExternalPskProposalRequest) -> Answer<ProposalResponse> {
        self.proposal(r.state_id, |m| m.propose_external_psk(r.psk_id))
    }

    fn resumption_psk_proposal(
        &mut self,
        r: ResumptionPskProposalRequest,
    ) -> Answer<ProposalResponse> {
        self.proposal(r.state_id, |m| m.propose_resumption_psk(r.epoch_id))
    }

    fn group_context_extensions_proposal(
        &mut self,
        r: GroupContextExtensionsProposalRequest,
    ) -> Answer<ProposalResponse> {
        self.proposal(r.state_id, |m| m.propose_extensions(&r.extensions))
    }

    fn commit(&mut self, r: CommitRequest) -> Answer<CommitResponse> {
        self.members.get(r.state_id)?.commit(&r)
    }

    fn handle_commit(&mut self, r: HandleCommitRequest) -> Answer<HandleCommitResponse> {
        let next = self
            .members
            .get(r.state_id)?
            .handle_commit(&r.proposal, &r.commit)?;
        let (state_id, epoch_authenticator) = self.put(next);
        Ok(HandleCommitResponse {
            state_id,
            epoch_authenticator,
        })
    }

    fn handle_pending_commit(
        &mut self,
        r: HandlePendingCommitRequest,
    ) -> Answer<HandleCommitResponse> {
        let next = self.members.get(r.state_id)?.take_pending()?;
        let (state_id, epoch_authenticator) = self.put(next);
        Ok(HandleCommitResponse {
            state_id,
            epoch_authenticator,
        })
    }

    fn re_init_proposal(&mut self, _: ReInitProposalRequest) -> Answer<ProposalResponse> {
        Err(lacking(NO_REINIT))
    }

    fn re_init_commit(&mut self, _: CommitRequest) -> Answer<CommitResponse> {
        Err(lacking(NO_REINIT))
    }

    fn handle_pending_re_init_commit(
        &mut self,
        _: HandlePendingCommitRequest,
    ) -> Answer<HandleReInitCommitResponse> {
        Err(lacking(NO_REINIT))
    }

    fn handle_re_init_commit(
        &mut self,
        r: HandleCommitRequest,
    ) -> Answer<HandleReInitCommitResponse> {
        let member = self.members.get(r.state_id)?;
        member
            .handle_commit(&r.proposal, &r.commit)
            .map_err(as_lacking(NO_REINIT))?;
        Err(lacking(NO_REINIT))
    }

    fn re_init_welcome(&mut self, _: ReInitWelcomeRequest) -> Answer<CreateSubgroupResponse> {
        Err(lacking(NO_REINIT))
    }

    fn handle_re_init_welcome(
        &mut self,
        _: HandleReInitWelcomeRequest,
    ) -> Answer<JoinGroupResponse> {
        Err(lacking(NO_REINIT))
    }

    fn create_branch(&mut self, r: CreateBranchRequest) -> Answer<CreateSubgroupResponse> {
        const WHAT: &str = "OpenMLS has no branching; a new group cannot inject the old one's PSK";
        self.members
            .get(r.state_id)?
            .branch(&r.group_id)
            .map_err(as_lacking(WHAT))?;
        Err(lacking(WHAT))
    }

    fn handle_branch(&mut self, r: HandleBranchRequest) -> Answer<HandleBranchResponse> {
        const WHAT: &str = "OpenMLS has no branching; a Welcome cannot use the old group's PSK";
        let encrypt = self.members.get(r.state_id)?.encrypt;
        let waiting = self.waiting.get(r.transaction_id)?;
        let (store, identity) = (waiting.store.copy()?, waiting.identity.clone());
        let member = Member::join(store, identity, encrypt, &r.welcome, &r.ratchet_tree)
            .map_err(as_lacking(WHAT))?;
        self.waiting.take(r.transaction_id)?;
        let (state_id, epoch_authenticator) = self.put(member);
        Ok(HandleBranchResponse {
            state_id,
            epoch_authenticator,
        })
    }

    fn new_member_add_proposal(
        &mut self,
        r: NewMemberAddProposalRequest,
    ) -> Answer<NewMemberAddProposalResponse> {
        let info = convert::group_info(&r.group_info)?;
        let (transaction_id, package) = self.wait(info.ciphersuite(), r.identity)?;
        let message = JoinProposal::new::<openmls_memory_storage::MemoryStorage>(
            package.key_package,
            info.group_id().clone(),
            info.epoch(),
            &package.identity.keys,
        )
        .map_err(failed)?;
        Ok(NewMemberAddProposalResponse {
            transaction_id,
            proposal: convert::encoded(message)?,
            init_priv: package.init_priv,
            encryption_priv: package.encryption_priv,
            signature_priv: package.signature_priv,
        })
    }

    fn create_external_signer(
        &mut self,
        r: CreateExternalSignerRequest,
    ) -> Answer<CreateExternalSignerResponse> {
        let identity = Identity::new(convert::suite(r.cipher_suite)?, r.identity)?;
        let credential = identity.credential();
        let sender = ExternalSender::new(credential.signature_key, credential.credential);
        let signer_id = self.next_id();
        self.signers.put(
            signer_id,
            Signer {
                store: Store::default(),
                identity,
            },
        );
        let external_sender = sender.tls_serialize_detached().map_err(failed)?;
        Ok(CreateExternalSignerResponse {
            signer_id,
            external_sender,
        })
    }

    fn add_external_signer(&mut self, r: AddExternalSignerRequest) -> Answer<ProposalResponse> {
        let sender =
            ExternalSender::tls_deserialize_exact_bytes(&r.external_sender).map_err(failed)?;
        self.proposal(r.state_id, |m| m.propose_external_sender(sender))
    }

    fn external_signer_proposal(
        &mut self,
        r: ExternalSignerProposalRequest,
    ) -> Answer<ProposalResponse> {
        let Signer { store, identity } = self.signers.get(r.signer_id)?;
        let d = r
            .description
            .ok_or_else(|| wrong("no proposal is described"))?;
        let info = convert::group_info(&r.group_info)?;
        let (group_id, epoch) = (info.group_id().clone(), info.epoch());
        let (keys, index) = (&identity.keys, SenderExtensionIndex::new(r.signer_index));
        let message = match d.proposal_type.as_slice() {
            b"add" => {
                let package = convert::key_package(store, &d.key_package)?;
                ExternalProposal::new_add::<Store>(package, group_id, epoch, keys, index)
                    .map_err(failed)?
            }
            b"remove" => {
                let group = public_group(store, info, &r.ratchet_tree)?;
                let removed = leaf_of(&group, &d.removed_id)?;
                ExternalProposal::new_remove::<Store>(removed, group_id, epoch, keys, index)
                    .map_err(failed)?
            }
            b"groupContextExtensions" => {
                let list = convert::context_extensions(&d.extensions)?;
                let new = ExternalProposal::new_group_context_extensions::<Store>;
                new(list, group_id, epoch, keys, index).map_err(failed)?
            }
            other => {
                let kind = String::from_utf8_lossy(other);
                return Err(lacking(format!(
                    "OpenMLS: ExternalProposal has no call for {kind}"
                )));
            }
        };
        Ok(ProposalResponse {
            proposal: convert::encoded(message)?,
        })
    }

    fn free(&mut self, r: FreeRequest) -> Answer<FreeResponse> {
        self.members.take(r.state_id)?;
        Ok(FreeResponse {})
    }
}

fn leaf_of(group: &PublicGroup, name: &[u8]) -> Answer<LeafNodeIndex> {
    let found = group
        .members()
        .find(|m| m.credential.serialized_content() == name);
    found
        .map(|m| m.index)
        .ok_or_else(|| wrong("no member has this identity"))
}
