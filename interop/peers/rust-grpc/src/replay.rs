//! Test vectors played through a library: a client driven by JSON lines, without gRPC.
//!
//! Each line of the standard input is one thing to do, each line of the standard output what came
//! of it; `interop/peers/README.md` has the fields.

use std::error::Error;
use std::io::{stdin, stdout, BufRead, Write};
use std::panic::{catch_unwind, AssertUnwindSafe};

use serde_json::{json, Value};

use crate::{panic_text, wrong, Answer, Refusal};

/// The client of a vector, before it has joined anything.
pub struct Start {
    /// The number of the cipher suite.
    pub suite: u32,
    /// Seconds since 1970.
    pub now: u64,
    /// Ids and values of the external pre-shared keys that the client has.
    pub psks: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A key package with its private keys, and the Welcome that it opens.
pub struct Invitation {
    /// An MLSMessage.
    pub key_package: Vec<u8>,
    pub init_priv: Vec<u8>,
    pub encryption_priv: Vec<u8>,
    pub signature_priv: Vec<u8>,
    /// An MLSMessage.
    pub welcome: Vec<u8>,
    /// Empty where the tree is inside.
    pub tree: Vec<u8>,
    /// Whether the group goes on from the one that the client is in (11.2, 11.3).
    pub continues: bool,
}

/// A published GroupInfo, and who joins by it.
pub struct Publication {
    /// An MLSMessage.
    pub group_info: Vec<u8>,
    /// Empty where the tree is inside.
    pub tree: Vec<u8>,
    pub identity: Vec<u8>,
    pub signature_priv: Vec<u8>,
    pub signature_pub: Vec<u8>,
}

/// A client of a library; joining and receiving give the authenticator of the epoch it is in then.
pub trait Replayer {
    /// Forgets everything and is a new client.
    fn begin(&mut self, start: Start) -> Answer<()>;
    fn join(&mut self, invitation: Invitation) -> Answer<Vec<u8>>;
    fn join_external(&mut self, publication: Publication) -> Answer<Vec<u8>>;
    /// Takes a message in: goes to a Commit's epoch, keeps a proposal, reads what was written.
    fn receive(&mut self, message: &[u8]) -> Answer<Vec<u8>>;
}

fn bytes(line: &Value, name: &str) -> Answer<Vec<u8>> {
    let digits = line[name].as_str().unwrap_or_default();
    let pair = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    (0..digits.len())
        .step_by(2)
        .map(|at| pair(at).ok_or_else(|| wrong(format!("{name} is not hexadecimal"))))
        .collect()
}

fn number(line: &Value, name: &str) -> Answer<u64> {
    let found = line[name].as_u64();
    found.ok_or_else(|| wrong(format!("{name} is no number")))
}

fn start(line: &Value) -> Answer<Start> {
    let psks = line["external_psks"].as_array().into_iter().flatten();
    Ok(Start {
        suite: u32::try_from(number(line, "cipher_suite")?).map_err(crate::failed)?,
        now: number(line, "now")?,
        psks: psks
            .map(|psk| Ok((bytes(psk, "psk_id")?, bytes(psk, "psk")?)))
            .collect::<Answer<Vec<_>>>()?,
    })
}

fn done(client: &mut impl Replayer, line: &Value) -> Answer<Vec<u8>> {
    match line["do"].as_str() {
        Some("begin") => client.begin(start(line)?).map(|()| Vec::new()),
        Some("join") => client.join(Invitation {
            key_package: bytes(line, "key_package")?,
            init_priv: bytes(line, "init_priv")?,
            encryption_priv: bytes(line, "encryption_priv")?,
            signature_priv: bytes(line, "signature_priv")?,
            welcome: bytes(line, "welcome")?,
            tree: bytes(line, "ratchet_tree")?,
            continues: line["continues"] == 1,
        }),
        Some("join_external") => client.join_external(Publication {
            group_info: bytes(line, "group_info")?,
            tree: bytes(line, "ratchet_tree")?,
            identity: bytes(line, "identity")?,
            signature_priv: bytes(line, "signature_priv")?,
            signature_pub: bytes(line, "signature_pub")?,
        }),
        Some("receive") => client.receive(&bytes(line, "message")?),
        _ => Err(wrong("there is no such thing to do")),
    }
}

fn outcome(client: &mut impl Replayer, line: &Value) -> Value {
    let outcome = catch_unwind(AssertUnwindSafe(|| done(client, line)));
    match outcome.unwrap_or_else(|payload| Err(Refusal::Failed(panic_text(payload.as_ref())))) {
        Ok(bytes) => {
            let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            json!({ "ok": digits })
        }
        Err(Refusal::Lacking(text)) => json!({ "lacking": text }),
        Err(Refusal::WrongArgument(text) | Refusal::Failed(text)) => json!({ "refused": text }),
    }
}

/// Answers line by line until the input ends.
pub fn replay(mut client: impl Replayer) -> Result<(), Box<dyn Error>> {
    for line in stdin().lock().lines() {
        let answer = outcome(&mut client, &serde_json::from_str(&line?)?);
        let mut out = stdout().lock();
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}
