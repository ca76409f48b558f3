//! The hold keeper: a process that has nothing to do but to keep descriptors, so that a hold outlives the agent.
//!
//! It is started when the first hold is taken and ends by itself when it has none left. A TD's pages may be mapped as long
//! as it holds them, so nothing but a release ends it in good order: it has a session of its own, its own cgroup where it
//! can (a service that stops takes every process of its cgroup with it), ignores the signals that ask processes to end, and
//! is the last that the kernel takes when memory is short.
//!
//! It is reached by a socket that only root can open. A request is a line of JSON, with descriptors; the answer is lines of
//! JSON, and then the end. An agent of another version may be on the other side: words are added to the protocol, never
//! changed.

mod client;
mod serve;

use serde::{Deserialize, Serialize};

pub use client::Keeper;
pub use serve::{Outcome, serve};

/// Name of the socket in the folder of a running septwatch.
const SOCKET: &str = "holds.sock";
/// Name of the lock file: there is one keeper.
const LOCK: &str = "holds.lock";
/// The hidden subcommand that it is.
pub const COMMAND: &str = "hold-keeper";
/// Most descriptors of a request: SCM_MAX_FD is 253.
const MOST_FILES: usize = 250;
/// Longest request, in bytes.
const LONGEST: usize = 64 * 1024;

/// What is kept for a TD.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Kept {
    /// The TD's number.
    pub td: u32,
    /// Frame of its TDR: with the number, it tells it from one of an earlier ledger.
    pub tdr: Option<u64>,
    /// Its VMM.
    pub pid: u32,
    /// Why it is held; none: nothing has failed yet, and it is let go when the TD ends in good order.
    pub violation: Option<String>,
    /// Frames that were lent to it when it was held; 0: not known.
    pub frames: u64,
    /// Since when, in ns of CLOCK_MONOTONIC.
    pub since_ns: u64,
    /// The inodes: device and number.
    pub inodes: Vec<(u64, u64)>,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
enum Request {
    /// The descriptors that come with it are kept from now on, with those that are kept for this TD already.
    Take(Kept),
    /// What is kept: a [`Kept`] a line.
    List,
    /// What is kept for a TD is let go.
    Release {
        /// Its number.
        td: u32,
        /// Only if nothing has failed.
        ready: bool,
    },
}

/// A line of the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Reply {
    /// One of those that are kept; or that were released.
    Kept(Kept),
    /// All of it was told.
    End,
    /// It cannot be done.
    Error(String),
}
