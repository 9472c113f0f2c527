//! Every call of the interface as far as mls-rs goes.

use std::collections::HashMap;

use mls_rs::extension::built_in::RatchetTreeExt;
use mls_rs::extension::ExtensionType;
use mls_rs::external_client::ExternalClient;
use mls_rs::group::ExportedTree;
use mls_rs::identity::basic::BasicIdentityProvider;
use mls_rs::identity::SigningIdentity;
use mls_rs::mls_rs_codec::{MlsDecode, MlsEncode};
use mls_rs::psk::ExternalPskId;
use mls_rs::{CipherSuite, MlsMessage, ProtocolVersion};
use mls_rs_crypto_openssl::OpensslCryptoProvider;
use rust_grpc::wire::*;
use rust_grpc::{failed, lacking, wrong, Answer, Peer, Table};

use crate::convert::{self, Configured, Identity};
use crate::member::Member;

/// A closed group and what its successor needs: the identity, if it is of another suite.
struct Closed {
    member: Member,
    new_identity: Option<Identity>,
}

pub struct MlsRs {
    members: Table<Member>,
    waiting: Table<Configured>,
    closed: Table<Closed>,
    signers: Table<Identity>,
    /// One key for each name and suite: a branch is joined with the key of the old group's leaf.
    identities: HashMap<(u16, Vec<u8>), Identity>,
    last_id: u32,
}

impl MlsRs {
    pub fn new() -> Self {
        Self {
            members: Table::new("state"),
            waiting: Table::new("transaction"),
            closed: Table::new("reinitialisation"),
            signers: Table::new("external signer"),
            identities: HashMap::new(),
            last_id: 0,
        }
    }

    fn next_id(&mut self) -> u32 {
        self.last_id += 1;
        self.last_id
    }

    fn identity(&mut self, suite: CipherSuite, name: Vec<u8>) -> Answer<Identity> {
        let key = (u16::from(suite), name.clone());
        if !self.identities.contains_key(&key) {
            self.identities
                .insert(key.clone(), Identity::new(suite, name)?);
        }
        Ok(self.identities[&key].clone())
    }

    fn configured(&mut self, suite: CipherSuite, name: Vec<u8>) -> Answer<Configured> {
        Ok(Configured::new(self.identity(suite, name)?))
    }

    fn put(&mut self, member: Member) -> Answer<(u32, Vec<u8>)> {
        let (id, authenticator) = (self.next_id(), member.authenticator()?);
        self.members.put(id, member);
        Ok((id, authenticator))
    }

    fn wait(&mut self, configured: Configured) -> u32 {
        let id = self.next_id();
        self.waiting.put(id, configured);
        id
    }

    fn proposal(
        &mut self,
        state_id: u32,
        propose: impl FnOnce(&mut Member) -> Answer<Vec<u8>>,
    ) -> Answer<ProposalResponse> {
        let proposal = propose(self.members.get(state_id)?)?;
        Ok(ProposalResponse { proposal })
    }

    fn opened(
        &mut self,
        member: Member,
        welcome: Vec<u8>,
        external_tree: bool,
    ) -> Answer<CreateSubgroupResponse> {
        let ratchet_tree = member.tree(external_tree)?;
        let (state_id, epoch_authenticator) = self.put(member)?;
        Ok(CreateSubgroupResponse {
            state_id,
            welcome,
            ratchet_tree,
            epoch_authenticator,
        })
    }

    /// What follows a commit that closed the group: a key package for the successor.
    fn close(&mut self, member: Member) -> Answer<HandleReInitCommitResponse> {
        let suite = member
            .successor
            .ok_or_else(|| wrong("no commit closed the group"))?;
        let own = &member.configured.identity;
        let new_identity = if suite == own.suite {
            None
        } else {
            let name = own.name()?;
            Some(self.identity(suite, name)?)
        };
        let key_package = member.successor_package(new_identity.as_ref())?;
        let (reinit_id, epoch_authenticator) = (self.next_id(), member.authenticator()?);
        self.closed.put(
            reinit_id,
            Closed {
                member,
                new_identity,
            },
        );
        Ok(HandleReInitCommitResponse {
            reinit_id,
            key_package,
            epoch_authenticator,
        })
    }
}

/// The tree that goes with a GroupInfo: from inside it, or from beside it.
fn tree_of(info: &MlsMessage, beside: &[u8]) -> Answer<ExportedTree<'static>> {
    let info = info
        .as_group_info()
        .ok_or_else(|| wrong("expected a GroupInfo"))?;
    let inside = info
        .extensions()
        .get_as::<RatchetTreeExt>()
        .map_err(failed)?;
    let tree = match inside {
        Some(extension) => Some(extension.tree_data),
        None => convert::tree(beside)?,
    };
    tree.ok_or_else(|| wrong("no ratchet tree inside or beside the GroupInfo"))
}

impl Peer for MlsRs {
    fn name(&mut self, _: NameRequest) -> Answer<NameResponse> {
        Ok(NameResponse {
            name: "mls-rs".into(),
        })
    }

    fn supported_ciphersuites(
        &mut self,
        _: SupportedCiphersuitesRequest,
    ) -> Answer<SupportedCiphersuitesResponse> {
        Ok(SupportedCiphersuitesResponse {
            ciphersuites: convert::suites(),
        })
    }

    fn create_group(&mut self, r: CreateGroupRequest) -> Answer<CreateGroupResponse> {
        let configured = self.configured(convert::suite(r.cipher_suite)?, r.identity)?;
        let (context, leaf) = (Default::default(), Default::default());
        let group = configured
            .client
            .create_group_with_id(r.group_id, context, leaf, None)
            .map_err(failed)?;
        let member = Member::new(configured, group, r.encrypt_handshake);
        Ok(CreateGroupResponse {
            state_id: self.put(member)?.0,
        })
    }

    fn create_key_package(
        &mut self,
        r: CreateKeyPackageRequest,
    ) -> Answer<CreateKeyPackageResponse> {
        let configured = self.configured(convert::suite(r.cipher_suite)?, r.identity)?;
        let message = configured
            .client
            .generate_key_package_message(Default::default(), Default::default(), None)
            .map_err(failed)?;
        let (init_priv, encryption_priv) = configured.package_keys()?;
        let signature_priv = configured.identity.private_key();
        Ok(CreateKeyPackageResponse {
            transaction_id: self.wait(configured),
            key_package: convert::encoded(&message)?,
            init_priv,
            encryption_priv,
            signature_priv,
        })
    }

    fn join_group(&mut self, r: JoinGroupRequest) -> Answer<JoinGroupResponse> {
        let configured = self.waiting.get(r.transaction_id)?.clone();
        let (welcome, tree) = (
            convert::message(&r.welcome)?,
            convert::tree(&r.ratchet_tree)?,
        );
        let (group, _) = configured
            .client
            .join_group(tree, &welcome, None)
            .map_err(failed)?;
        self.waiting.take(r.transaction_id)?;
        let member = Member::new(configured, group, r.encrypt_handshake);
        let (state_id, epoch_authenticator) = self.put(member)?;
        Ok(JoinGroupResponse {
            state_id,
            epoch_authenticator,
        })
    }

    fn external_join(&mut self, r: ExternalJoinRequest) -> Answer<ExternalJoinResponse> {
        let info = convert::message(&r.group_info)?;
        let suite = info
            .cipher_suite()
            .ok_or_else(|| wrong("expected a GroupInfo"))?;
        let tree = tree_of(&info, &r.ratchet_tree)?;
        let mut configured = self.configured(suite, r.identity.clone())?;
        let mut builder = configured
            .client
            .external_commit_builder()
            .map_err(failed)?;
        if r.remove_prior {
            builder = builder.with_removal(convert::leaf_of(&tree.roster(), &r.identity)?);
        }
        for psk in r.psks {
            configured.store_psk(psk.psk_id.clone(), psk.psk_secret);
            builder = builder.with_external_psk(ExternalPskId::new(psk.psk_id));
        }
        let (group, commit) = builder.with_tree_data(tree).build(info).map_err(failed)?;
        let commit = convert::encoded(&commit)?;
        let member = Member::new(configured, group, r.encrypt_handshake);
        let (state_id, epoch_authenticator) = self.put(member)?;
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
            ratchet_tree: member.tree(r.external_tree)?,
        })
    }

    fn state_auth(&mut self, r: StateAuthRequest) -> Answer<StateAuthResponse> {
        Ok(StateAuthResponse {
            state_auth_secret: self.members.get(r.state_id)?.authenticator()?,
        })
    }

    fn export(&mut self, r: ExportRequest) -> Answer<ExportResponse> {
        let group = &self.members.get(r.state_id)?.group;
        let length = usize::try_from(r.key_length).map_err(failed)?;
        let secret = group
            .export_secret(r.label.as_bytes(), &r.context, length)
            .map_err(failed)?;
        Ok(ExportResponse {
            exported_secret: secret.to_vec(),
        })
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
        let configured = if self.members.has(id) {
            &mut self.members.get(id)?.configured
        } else {
            self.waiting.get(id)?
        };
        configured.store_psk(r.psk_id, r.psk_secret);
        Ok(StorePskResponse {})
    }

    fn add_proposal(&mut self, r: AddProposalRequest) -> Answer<ProposalResponse> {
        let package = convert::message(&r.key_package)?;
        self.proposal(r.state_id, |m| {
            m.propose(|g| g.propose_add(package, Vec::new()))
        })
    }

    fn update_proposal(&mut self, r: UpdateProposalRequest) -> Answer<ProposalResponse> {
        self.proposal(r.state_id, |m| m.propose(|g| g.propose_update(Vec::new())))
    }

    fn remove_proposal(&mut self, r: RemoveProposalRequest) -> Answer<ProposalResponse> {
        self.proposal(r.state_id, |m| {
            let leaf = m.leaf_of(&r.removed_id)?;
            m.propose(|g| g.propose_remove(leaf, Vec::new()))
        })
    }

    fn external_psk_proposal(&mut self, r: ExternalPskProposalRequest) -> Answer<ProposalResponse> {
        let id = ExternalPskId::new(r.psk_id);
        self.proposal(r.state_id, |m| {
            m.propose(|g| g.propose_external_psk(id, Vec::new()))
        })
    }

    fn resumption_psk_proposal(
        &mut self,
        r: ResumptionPskProposalRequest,
    ) -> Answer<ProposalResponse> {
        let epoch = r.epoch_id;
        self.proposal(r.state_id, |m| {
            m.propose(|g| g.propose_resumption_psk(epoch, Vec::new()))
        })
    }

    fn group_context_extensions_proposal(
        &mut self,
        r: GroupContextExtensionsProposalRequest,
    ) -> Answer<ProposalResponse> {
        let list = convert::extensions(&r.extensions)?;
        self.proposal(r.state_id, |m| {
            m.propose(|g| g.propose_group_context_extensions(list, Vec::new()))
        })
    }

    fn commit(&mut self, r: CommitRequest) -> Answer<CommitResponse> {
        self.members.get(r.state_id)?.commit(&r)
    }

    fn handle_commit(&mut self, r: HandleCommitRequest) -> Answer<HandleCommitResponse> {
        let next = self
            .members
            .get(r.state_id)?
            .handle_commit(&r.proposal, &r.commit)?;
        let (state_id, epoch_authenticator) = self.put(next)?;
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
        let (state_id, epoch_authenticator) = self.put(next)?;
        Ok(HandleCommitResponse {
            state_id,
            epoch_authenticator,
        })
    }

    fn re_init_proposal(&mut self, r: ReInitProposalRequest) -> Answer<ProposalResponse> {
        self.proposal(r.state_id, |m| m.reinit(&r))
    }

    fn re_init_commit(&mut self, r: CommitRequest) -> Answer<CommitResponse> {
        self.commit(r)
    }

    fn handle_pending_re_init_commit(
        &mut self,
        r: HandlePendingCommitRequest,
    ) -> Answer<HandleReInitCommitResponse> {
        let next = self.members.get(r.state_id)?.take_pending()?;
        self.close(next)
    }

    fn handle_re_init_commit(
        &mut self,
        r: HandleCommitRequest,
    ) -> Answer<HandleReInitCommitResponse> {
        let next = self
            .members
            .get(r.state_id)?
            .handle_commit(&r.proposal, &r.commit)?;
        self.close(next)
    }

    fn re_init_welcome(&mut self, r: ReInitWelcomeRequest) -> Answer<CreateSubgroupResponse> {
        let Closed {
            member,
            new_identity,
        } = self.closed.get(r.reinit_id)?;
        let (member, welcome) = member.open_successor(new_identity.as_ref(), &r)?;
        self.opened(member, welcome, r.external_tree)
    }

    fn handle_re_init_welcome(
        &mut self,
        r: HandleReInitWelcomeRequest,
    ) -> Answer<JoinGroupResponse> {
        let Closed {
            member,
            new_identity,
        } = self.closed.get(r.reinit_id)?;
        let member = member.join_successor(new_identity.as_ref(), &r.welcome, &r.ratchet_tree)?;
        let (state_id, epoch_authenticator) = self.put(member)?;
        Ok(JoinGroupResponse {
            state_id,
            epoch_authenticator,
        })
    }

    fn create_branch(&mut self, r: CreateBranchRequest) -> Answer<CreateSubgroupResponse> {
        let member = self.members.get(r.state_id)?;
        if convert::extensions(&r.extensions)? != *member.group.context().extensions() {
            return Err(lacking(
                "mls-rs gives a branch the old group's extensions, and no others",
            ));
        }
        let (branch, welcome) = member.branch(&r)?;
        self.opened(branch, welcome, r.external_tree)
    }

    fn handle_branch(&mut self, r: HandleBranchRequest) -> Answer<HandleBranchResponse> {
        let member = self.members.get(r.state_id)?;
        self.waiting
            .get(r.transaction_id)?
            .lend_packages(&member.configured);
        let branch = member.join_branch(&r.welcome, &r.ratchet_tree)?;
        self.waiting.take(r.transaction_id)?;
        let (state_id, epoch_authenticator) = self.put(branch)?;
        Ok(HandleBranchResponse {
            state_id,
            epoch_authenticator,
        })
    }

    fn new_member_add_proposal(
        &mut self,
        r: NewMemberAddProposalRequest,
    ) -> Answer<NewMemberAddProposalResponse> {
        let info = convert::message(&r.group_info)?;
        let suite = info
            .cipher_suite()
            .ok_or_else(|| wrong("expected a GroupInfo"))?;
        if tree_of(&info, &[]).is_err() {
            return Err(lacking(
                "mls-rs proposes itself only to a group whose tree it has",
            ));
        }
        let configured = self.configured(suite, r.identity)?;
        let (package_ext, leaf_ext) = (Default::default(), Default::default());
        let message = configured
            .client
            .external_add_proposal(&info, None, Vec::new(), package_ext, leaf_ext, None)
            .map_err(failed)?;
        let (init_priv, encryption_priv) = configured.package_keys()?;
        let proposal = convert::encoded(&message)?;
        let signature_priv = configured.identity.private_key();
        let transaction_id = self.wait(configured);
        Ok(NewMemberAddProposalResponse {
            transaction_id,
            proposal,
            init_priv,
            encryption_priv,
            signature_priv,
        })
    }

    fn create_external_signer(
        &mut self,
        r: CreateExternalSignerRequest,
    ) -> Answer<CreateExternalSignerResponse> {
        let identity = Identity::new(convert::suite(r.cipher_suite)?, r.identity)?;
        let external_sender = identity.signing.mls_encode_to_vec().map_err(failed)?;
        let signer_id = self.next_id();
        self.signers.put(signer_id, identity);
        Ok(CreateExternalSignerResponse {
            signer_id,
            external_sender,
        })
    }

    fn add_external_signer(&mut self, r: AddExternalSignerRequest) -> Answer<ProposalResponse> {
        let sender = SigningIdentity::mls_decode(&mut &*r.external_sender).map_err(failed)?;
        self.proposal(r.state_id, |m| m.propose_external_sender(sender))
    }

    fn external_signer_proposal(
        &mut self,
        r: ExternalSignerProposalRequest,
    ) -> Answer<ProposalResponse> {
        let identity = self.signers.get(r.signer_id)?.clone();
        let d = r
            .description
            .ok_or_else(|| wrong("no proposal is described"))?;
        let (info, tree) = (
            convert::message(&r.group_info)?,
            convert::tree(&r.ratchet_tree)?,
        );
        let client = ExternalClient::builder()
            .crypto_provider(OpensslCryptoProvider::new())
            .identity_provider(BasicIdentityProvider::new())
            .extension_types(convert::SCENARIO_EXTENSIONS.map(ExtensionType::new))
            .signer(identity.secret, identity.signing)
            .build();
        let mut group = client.observe_group(info, tree, None).map_err(failed)?;
        let aad = Vec::new();
        let message = match d.proposal_type.as_slice() {
            b"add" => group.propose_add(convert::message(&d.key_package)?, aad),
            b"remove" => {
                let leaf = convert::leaf_of(&group.roster(), &d.removed_id)?;
                group.propose_remove(leaf, aad)
            }
            b"externalPSK" => group.propose_external_psk(ExternalPskId::new(d.psk_id), aad),
            b"resumptionPSK" => group.propose_resumption_psk(d.epoch_id, aad),
            b"groupContextExtensions" => {
                group.propose_group_context_extensions(convert::extensions(&d.extensions)?, aad)
            }
            b"reinit" => {
                let suite = convert::suite(d.cipher_suite)?;
                let extensions = convert::extensions(&d.extensions)?;
                let (id, version) = (Some(d.group_id), ProtocolVersion::MLS_10);
                group.propose_reinit(id, version, suite, extensions, aad)
            }
            other => {
                return Err(wrong(format!(
                    "unknown type {:?}",
                    String::from_utf8_lossy(other)
                )))
            }
        };
        Ok(ProposalResponse {
            proposal: convert::encoded(&message.map_err(failed)?)?,
        })
    }

    fn free(&mut self, r: FreeRequest) -> Answer<FreeResponse> {
        self.members.take(r.state_id)?;
        Ok(FreeResponse {})
    }
}
