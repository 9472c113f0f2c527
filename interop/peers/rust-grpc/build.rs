//! Generate the interface from the one interface file; protox spares the machine a `protoc`.

use std::error::Error;

const FOLDER: &str = "../../proto";
const FILE: &str = "mls_client.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={FOLDER}/{FILE}");
    let descriptors = protox::compile([FILE], [FOLDER])?;
    tonic_prost_build::configure()
        .build_client(false)
        .compile_fds(descriptors)?;
    Ok(())
}
