//! What an agent tells others than the person in front of it: outputs, each with a queue and a loss counter of its own.
//!
//! Nothing in here talks to the kernel, and nothing that an output waits for may hold up detection: what does not fit into
//! a queue is counted as lost.

pub mod bus;
pub mod http;
pub mod journal;
pub mod jsonl;
pub mod message;
pub mod metrics;
pub mod otlp;
pub mod outlet;
pub mod pause;
pub mod snapshot;
