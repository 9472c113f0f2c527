//! The gRPC side of the interop peers that are written in Rust.
//!
//! A peer implements [`Peer`], one plain method for each call, and hands itself to [`serve`]. Calls
//! run one after another, and a panic inside a library becomes an INTERNAL status instead of the
//! end of the server. Test vectors are played without gRPC, see [`replay`].

pub mod replay;

use std::any::Any;
use std::error::Error;
use std::fmt::Display;
use std::net::{Ipv4Addr, SocketAddr};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Mutex, PoisonError};

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// The interface's messages and service, generated.
pub mod wire {
    #![allow(clippy::all)]
    tonic::include_proto!("mls_client");
}

use wire::mls_client_server::{MlsClient, MlsClientServer};
use wire::*;

const MAX_MESSAGE: usize = 64 << 20;

/// Why a call gave no answer.
#[derive(Debug)]
pub enum Refusal {
    /// The library lacks what the call needs.
    Lacking(String),
    /// The request names something that is not there, or of the wrong kind.
    WrongArgument(String),
    /// The library refused or failed.
    Failed(String),
}

/// The outcome of a call.
pub type Answer<T> = Result<T, Refusal>;

/// Turns a library's error into a refusal that carries its words.
pub fn failed(error: impl Display) -> Refusal {
    Refusal::Failed(error.to_string())
}

/// A refusal because of the request.
pub fn wrong(text: impl Into<String>) -> Refusal {
    Refusal::WrongArgument(text.into())
}

/// A refusal because of the library.
pub fn lacking(text: impl Into<String>) -> Refusal {
    Refusal::Lacking(text.into())
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Lacking(text) => Status::unimplemented(text),
            Refusal::WrongArgument(text) => Status::invalid_argument(text),
            Refusal::Failed(text) => Status::internal(text),
        }
    }
}

fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied());
    format!("the library panicked: {}", text.unwrap_or("no message"))
}

struct Service<P>(Mutex<P>);

impl<P> Service<P> {
    fn answer<T>(&self, call: impl FnOnce(&mut P) -> Answer<T>) -> Result<Response<T>, Status> {
        let mut peer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match catch_unwind(AssertUnwindSafe(|| call(&mut peer))) {
            Ok(answer) => answer.map(Response::new).map_err(Status::from),
            Err(payload) => Err(Status::internal(panic_text(payload.as_ref()))),
        }
    }
}

macro_rules! interface {
    ($($call:ident($request:ident) -> $response:ident;)*) => {
        /// An implementation under test: one method for each call of the interface.
        pub trait Peer: Send + 'static {
            $(#[allow(missing_docs)] fn $call(&mut self, request: $request) -> Answer<$response>;)*
        }

        #[tonic::async_trait]
        impl<P: Peer> MlsClient for Service<P> {
            $(async fn $call(&self, request: Request<$request>) -> Result<Response<$response>, Status> {
                self.answer(|peer| peer.$call(request.into_inner()))
            })*
        }
    };
}

interface! {
    name(NameRequest) -> NameResponse;
    supported_ciphersuites(SupportedCiphersuitesRequest) -> SupportedCiphersuitesResponse;
    create_group(CreateGroupRequest) -> CreateGroupResponse;
    create_key_package(CreateKeyPackageRequest) -> CreateKeyPackageResponse;
    join_group(JoinGroupRequest) -> JoinGroupResponse;
    external_join(ExternalJoinRequest) -> ExternalJoinResponse;
    group_info(GroupInfoRequest) -> GroupInfoResponse;
    state_auth(StateAuthRequest) -> StateAuthResponse;
    export(ExportRequest) -> ExportResponse;
    protect(ProtectRequest) -> ProtectResponse;
    unprotect(UnprotectRequest) -> UnprotectResponse;
    store_psk(StorePskRequest) -> StorePskResponse;
    add_proposal(AddProposalRequest) -> ProposalResponse;
    update_proposal(UpdateProposalRequest) -> ProposalResponse;
    remove_proposal(RemoveProposalRequest) -> ProposalResponse;
    external_psk_proposal(ExternalPskProposalRequest) -> ProposalResponse;
    resumption_psk_proposal(ResumptionPskProposalRequest) -> ProposalResponse;
    group_context_extensions_proposal(GroupContextExtensionsProposalRequest) -> ProposalResponse;
    commit(CommitRequest) -> CommitResponse;
    handle_commit(HandleCommitRequest) -> HandleCommitResponse;
    handle_pending_commit(HandlePendingCommitRequest) -> HandleCommitResponse;
    re_init_proposal(ReInitProposalRequest) -> ProposalResponse;
    re_init_commit(CommitRequest) -> CommitResponse;
    handle_pending_re_init_commit(HandlePendingCommitRequest) -> HandleReInitCommitResponse;
    handle_re_init_commit(HandleCommitRequest) -> HandleReInitCommitResponse;
    re_init_welcome(ReInitWelcomeRequest) -> CreateSubgroupResponse;
    handle_re_init_welcome(HandleReInitWelcomeRequest) -> JoinGroupResponse;
    create_branch(CreateBranchRequest) -> CreateSubgroupResponse;
    handle_branch(HandleBranchRequest) -> HandleBranchResponse;
    new_member_add_proposal(NewMemberAddProposalRequest) -> NewMemberAddProposalResponse;
    create_external_signer(CreateExternalSignerRequest) -> CreateExternalSignerResponse;
    add_external_signer(AddExternalSignerRequest) -> ProposalResponse;
    external_signer_proposal(ExternalSignerProposalRequest) -> ProposalResponse;
    free(FreeRequest) -> FreeResponse;
}

/// Does what the command line says: serves the peer, or lets the client play test vectors.
pub fn run(peer: impl Peer, client: impl replay::Replayer) -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [flag, port] if flag == "--port" => serve(peer, port.parse()?),
        [flag] if flag == "--replay" => replay::replay(client),
        _ => Err("usage: --port N, or --replay".into()),
    }
}

/// Serve a peer on a port until the process is ended.
fn serve<P: Peer>(peer: P, port: u16) -> Result<(), Box<dyn Error>> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await?;
        println!("listening on {}", listener.local_addr()?);
        let service = MlsClientServer::new(Service(Mutex::new(peer)))
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener))
            .await?;
        Ok(())
    })
}

/// Ids and what they stand for; no id is given twice.
#[derive(Debug)]
pub struct Table<T> {
    what: &'static str,
    entries: std::collections::HashMap<u32, T>,
}

impl<T> Table<T> {
    /// An empty table; `what` is named when an id is unknown.
    pub fn new(what: &'static str) -> Self {
        Self {
            what,
            entries: Default::default(),
        }
    }

    /// Keeps an entry under an id.
    pub fn put(&mut self, id: u32, entry: T) {
        self.entries.insert(id, entry);
    }

    /// The entry of an id.
    pub fn get(&mut self, id: u32) -> Answer<&mut T> {
        let what = self.what;
        self.entries
            .get_mut(&id)
            .ok_or_else(|| wrong(format!("there is no {what} {id}")))
    }

    /// Whether an id is there.
    pub fn has(&self, id: u32) -> bool {
        self.entries.contains_key(&id)
    }

    /// Takes an entry out.
    pub fn take(&mut self, id: u32) -> Answer<T> {
        let what = self.what;
        self.entries
            .remove(&id)
            .ok_or_else(|| wrong(format!("there is no {what} {id}")))
    }
}
