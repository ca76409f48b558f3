//! What the eBPF programs and userspace agree on.
//!
//! Nothing in here may need `std` or an allocator: the same code is compiled into the eBPF object and into
//! the `septwatch` binary, so that there is one copy of every rule.
#![no_std]

pub mod config;
pub mod kvm;
pub mod leaf;
pub mod level;
pub mod line;
pub mod react;
pub mod sept;
pub mod status;
pub mod td;
pub mod tracker;
pub mod violation;
pub mod walk;
pub mod wire;
pub mod zap;

pub use leaf::Leaf;
pub use level::Level;
pub use line::{Line, Op, PageKind, State, apply};
pub use status::Status;
pub use td::{Life, Td};
pub use violation::{Suspect, Violation};
