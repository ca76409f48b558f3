//! What the eBPF programs and userspace agree on.
//!
//! Nothing in here may need `std` or an allocator: the same code is compiled into the eBPF object and into
//! the `septwatch` binary, so that there is one copy of every rule.
#![no_std]

pub mod leaf;
pub mod level;
pub mod sept;
pub mod status;

pub use leaf::Leaf;
pub use level::Level;
pub use status::Status;
