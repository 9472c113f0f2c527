//! What the Rust benchmark drivers share: requests and answers by line, and clocks.
//!
//! A request is a line of JSON on the standard input, its answer one on the standard output; bytes
//! are base64. See ../../README.md for the requests.

use std::fmt::{Debug, Display};
use std::io::{self, BufRead, Write};
use std::time::Instant;

use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use serde_json::{json, Value};

/// What a request ends in: a value, or words for a person.
pub type Answer<T> = Result<T, String>;

pub fn failed(error: impl Display) -> String {
    error.to_string()
}

/// For errors without words of their own.
pub fn shown(error: impl Debug) -> String {
    format!("{error:?}")
}

/// Nanoseconds by the clock and of the processor, over all threads of this process.
#[derive(Default)]
pub struct Clock {
    wall: Vec<u64>,
    cpu: Vec<u64>,
}

fn processor_time() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the call only writes to `time`, which outlives it.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

impl Clock {
    pub fn run<T>(&mut self, function: impl FnOnce() -> T) -> T {
        let (wall, cpu) = (Instant::now(), processor_time());
        let result = function();
        self.cpu.push(processor_time() - cpu);
        self.wall.push(wall.elapsed().as_nanos() as u64);
        result
    }
}

/// One call of each primitive, repeated; for `primitives`.
pub const CALLS: usize = 200;
/// About what is signed where a member's leaf is signed.
pub const CONTENT: [u8; 300] = [7; 300];
/// About what is hashed into an HPKE context.
pub const INFO: [u8; 150] = [7; 150];
/// A path secret.
pub const SECRET: [u8; 32] = [7; 32];

/// Times a primitive, in nanoseconds of the processor for one call.
pub fn price<T>(mut call: impl FnMut() -> Answer<T>) -> Answer<f64> {
    call()?;
    let mut times = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        let start = processor_time();
        call()?;
        times.push(processor_time() - start);
    }
    times.sort_unstable();
    Ok(times[CALLS / 2] as f64)
}

/// What a provider's primitives cost, in nanoseconds.
pub struct Prices {
    pub sign: f64,
    pub verify: f64,
    pub seal: f64,
    pub open: f64,
}

/// A Commit that was made, with what goes to new members.
pub struct Committed {
    pub commit: Vec<u8>,
    pub welcome: Option<Vec<u8>>,
    pub tree: Option<Vec<u8>>,
}

/// A library with members that are called by name; only what the clock runs is timed.
pub trait Library {
    fn primitives(&mut self) -> Answer<Prices>;
    fn package(&mut self, member: &str) -> Answer<Vec<u8>>;
    fn create(&mut self, member: &str) -> Answer<()>;
    fn join(
        &mut self,
        clock: &mut Clock,
        member: &str,
        welcome: &[u8],
        tree: Option<&[u8]>,
    ) -> Answer<()>;
    fn commit(
        &mut self,
        clock: &mut Clock,
        member: &str,
        packages: &[Vec<u8>],
        remove: &[u32],
        inside: bool,
    ) -> Answer<Committed>;
    fn process(&mut self, clock: &mut Clock, member: &str, commit: &[u8]) -> Answer<()>;
    fn encrypt(
        &mut self,
        clock: &mut Clock,
        member: &str,
        data: &[u8],
        count: u64,
    ) -> Answer<Vec<Vec<u8>>>;
    fn decrypt(&mut self, clock: &mut Clock, member: &str, messages: &[Vec<u8>]) -> Answer<()>;
    fn save(&mut self, clock: &mut Clock, member: &str) -> Answer<usize>;
    fn load(&mut self, clock: &mut Clock, member: &str) -> Answer<usize>;
    fn drop(&mut self, member: &str) -> Answer<()>;
}

fn text(value: &Value) -> Answer<&str> {
    value.as_str().ok_or_else(|| failed("expected a text"))
}

fn number(value: &Value) -> Answer<u64> {
    value.as_u64().ok_or_else(|| failed("expected a number"))
}

fn bytes(value: &Value) -> Answer<Vec<u8>> {
    STANDARD.decode(text(value)?).map_err(failed)
}

fn optional(value: &Value) -> Answer<Option<Vec<u8>>> {
    if value.is_null() {
        Ok(None)
    } else {
        bytes(value).map(Some)
    }
}

fn list<T>(value: &Value, item: impl Fn(&Value) -> Answer<T>) -> Answer<Vec<T>> {
    let items = value.as_array().ok_or_else(|| failed("expected a list"))?;
    items.iter().map(item).collect()
}

fn encoded(data: &[u8]) -> Value {
    Value::String(STANDARD.encode(data))
}

fn leaf(value: &Value) -> Answer<u32> {
    u32::try_from(number(value)?).map_err(failed)
}

fn answer(library: &mut dyn Library, request: &Value) -> Answer<Value> {
    let mut clock = Clock::default();
    if request["do"] == "primitives" {
        let prices = library.primitives()?;
        return Ok(json!({"prices": {
            "sign": prices.sign,
            "verify": prices.verify,
            "seal": prices.seal,
            "open": prices.open,
        }}));
    }
    let member = text(&request["member"])?;
    let mut given = match text(&request["do"])? {
        "package" => json!({"package": encoded(&library.package(member)?)}),
        "create" => {
            library.create(member)?;
            json!({})
        }
        "join" => {
            let (welcome, tree) = (bytes(&request["welcome"])?, optional(&request["tree"])?);
            library.join(&mut clock, member, &welcome, tree.as_deref())?;
            json!({})
        }
        "commit" => {
            let packages = list(&request["packages"], bytes)?;
            let remove = list(&request["remove"], leaf)?;
            let inside = request["inside"] == true;
            let made = library.commit(&mut clock, member, &packages, &remove, inside)?;
            json!({
                "commit": encoded(&made.commit),
                "welcome": made.welcome.as_deref().map(encoded),
                "tree": made.tree.as_deref().map(encoded),
            })
        }
        "process" => {
            library.process(&mut clock, member, &bytes(&request["commit"])?)?;
            json!({})
        }
        "encrypt" => {
            let size = usize::try_from(number(&request["size"])?).map_err(failed)?;
            let count = number(&request["count"])?;
            let sent = library.encrypt(&mut clock, member, &vec![0; size], count)?;
            json!({"messages": sent.iter().map(|m| encoded(m)).collect::<Vec<_>>()})
        }
        "decrypt" => {
            let messages = list(&request["messages"], bytes)?;
            library.decrypt(&mut clock, member, &messages)?;
            json!({})
        }
        "save" => json!({"bytes": library.save(&mut clock, member)?}),
        "load" => json!({"bytes": library.load(&mut clock, member)?}),
        "drop" => {
            library.drop(member)?;
            json!({})
        }
        other => return Err(format!("unknown request {other}")),
    };
    given["wall"] = json!(clock.wall);
    given["cpu"] = json!(clock.cpu);
    Ok(given)
}

/// Answers until the input ends. The first request is `open`, with the suite and the provider.
pub fn serve(
    open: impl Fn(u16, &str) -> Answer<Box<dyn Library>>,
    version: &str,
) -> io::Result<()> {
    let mut library: Option<Box<dyn Library>> = None;
    for line in io::stdin().lock().lines() {
        let request: Value = serde_json::from_str(&line?)?;
        let answered = match &mut library {
            Some(library) => answer(library.as_mut(), &request),
            None => opened(&open, &request).map(|opened| {
                library = Some(opened);
                json!({"version": version})
            }),
        };
        let value = answered.unwrap_or_else(|words| json!({"error": words}));
        let mut output = io::stdout().lock();
        writeln!(output, "{value}")?;
        output.flush()?;
    }
    Ok(())
}

fn opened(
    open: &impl Fn(u16, &str) -> Answer<Box<dyn Library>>,
    request: &Value,
) -> Answer<Box<dyn Library>> {
    let suite = u16::try_from(number(&request["suite"])?).map_err(failed)?;
    open(suite, text(&request["provider"])?)
}
