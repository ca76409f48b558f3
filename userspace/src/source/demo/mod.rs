//! The demo's actors: a TDX module in software, the VMM that plays KVM's part, and real memory between them.
//!
//! They cause events and know the truth about each; they are watched from outside, at the entry and the return of
//! the module's functions and in the real page allocator. Nothing in this room may know how it is watched or what
//! is thought of it: the demo's result is worth something only because the two sides share no code.

pub mod memory;
pub mod module;
pub mod scenarios;
pub mod storm;
pub mod vmm;
