//! A client that plays test vectors through OpenMLS.

use std::sync::Arc;

use openmls::group::{MlsGroup, StagedWelcome};
use openmls::prelude::{
    Ciphersuite, KeyPackage, KeyPackageBundle, OpenMlsProvider, ProcessedMessageContent,
};
use openmls_basic_credential::SignatureKeyPair;
use openmls_traits::storage::StorageProvider;
use openmls_traits::types::HpkePrivateKey;
use rust_grpc::replay::{Invitation, Publication, Replayer, Start};
use rust_grpc::{failed, lacking, wrong, Answer};
use serde_json::json;

use crate::convert::{self, Identity, Store};
use crate::member::{join_config, store_psk, Member};

#[derive(Default)]
pub struct Replay {
    store: Store,
    suite: Option<Ciphersuite>,
    group: Option<MlsGroup>,
}

impl Replay {
    fn suite(&self) -> Answer<Ciphersuite> {
        self.suite.ok_or_else(|| wrong("there is no client yet"))
    }

    fn enter(&mut self, group: MlsGroup) -> Vec<u8> {
        let authenticator = group.epoch_authenticator().as_slice().to_vec();
        self.group = Some(group);
        authenticator
    }

    /// OpenMLS lets nobody bring keys of their own, but stores bundles in their serialised form.
    fn keep(&self, package: KeyPackage, invitation: &Invitation) -> Answer<()> {
        let key = |bytes: &[u8]| HpkePrivateKey::from(bytes.to_vec());
        let bundle: KeyPackageBundle = serde_json::from_value(json!({
            "key_package": package,
            "private_init_key": key(&invitation.init_priv),
            "private_encryption_key": { "key": key(&invitation.encryption_priv) },
        }))
        .map_err(failed)?;
        let reference = package.hash_ref(self.store.crypto()).map_err(failed)?;
        self.store
            .storage()
            .write_key_package(&reference, &bundle)
            .map_err(failed)
    }
}

impl Replayer for Replay {
    fn begin(&mut self, start: Start) -> Answer<()> {
        let suite = convert::suite(start.suite)?;
        *self = Self {
            suite: Some(suite),
            ..Self::default()
        };
        for (id, psk) in start.psks {
            store_psk(&self.store, suite, id, &psk)?;
        }
        Ok(())
    }

    fn join(&mut self, invitation: Invitation) -> Answer<Vec<u8>> {
        if invitation.continues {
            return Err(lacking("OpenMLS has neither reinitialisation nor branches"));
        }
        let package = convert::key_package(&self.store, &invitation.key_package)?;
        self.keep(package, &invitation)?;
        let config = join_config(false);
        let welcome = convert::welcome(&invitation.welcome)?;
        let tree = convert::tree(&invitation.tree)?;
        let staged = StagedWelcome::new_from_welcome(&self.store, &config, welcome, tree);
        let group = staged.map_err(failed)?.into_group(&self.store);
        Ok(self.enter(group.map_err(failed)?))
    }

    fn join_external(&mut self, publication: Publication) -> Answer<Vec<u8>> {
        let Publication {
            group_info,
            tree,
            identity,
            signature_priv,
            signature_pub,
        } = publication;
        let scheme = self.suite()?.signature_algorithm();
        let identity = Identity {
            name: identity,
            keys: SignatureKeyPair::from_raw(scheme, signature_priv, signature_pub),
        };
        let member = Member::join_external(
            Store::default(),
            Arc::new(identity),
            false,
            &group_info,
            &tree,
            Vec::new(),
        )?;
        Ok(self.enter(member.0.group))
    }

    fn receive(&mut self, message: &[u8]) -> Answer<Vec<u8>> {
        let message = convert::protocol_message(message)?;
        let store = &self.store;
        let group = self.group.as_mut().ok_or_else(|| wrong("not in a group"))?;
        let processed = group.process_message(store, message).map_err(failed)?;
        match processed.into_content() {
            ProcessedMessageContent::ProposalMessage(proposal)
            | ProcessedMessageContent::ExternalJoinProposalMessage(proposal) => group
                .store_pending_proposal(store.storage(), *proposal)
                .map_err(failed)?,
            ProcessedMessageContent::StagedCommitMessage(staged) => group
                .merge_staged_commit(store, *staged)
                .map_err(failed)?,
            ProcessedMessageContent::ApplicationMessage(_) => {}
            _ => return Err(failed("OpenMLS takes it for a message of its own")),
        }
        Ok(group.epoch_authenticator().as_slice().to_vec())
    }
}
