//! The OpenMLS peer.
//!
//! An OpenMLS group lives half in memory and half in a storage provider. A state id here is a pair
//! of both; a call that makes a new epoch copies the storage, loads the group from the copy and
//! advances that, so that the old id keeps serving its own epoch.

mod convert;
mod member;
mod peer;
mod replay;

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    rust_grpc::run(peer::OpenMls::new(), replay::Replay::default())
}
