//! The mls-rs peer.
//!
//! An mls-rs group is a value that can be cloned, so a state id here is such a value and a new
//! epoch is a clone that has advanced. What the interface asks for call by call and mls-rs asks its
//! rules object (path, place of the tree, encryption) is set in that object before each call.

mod convert;
mod member;
mod peer;
mod replay;

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    rust_grpc::run(peer::MlsRs::new(), replay::Replay::default())
}
