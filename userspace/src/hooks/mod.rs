//! Hooks: which points of the kernel septwatch watches, how they are bound on this one, and what is lost where
//! one cannot be. [`plan::plan`] decides, from BTF, symbols and what the host allows, never from the release;
//! nothing in here knows what becomes of the events.

pub mod ahead;
pub mod attach;
pub mod bpf;
pub mod btf;
pub mod calibrate;
pub mod host;
pub mod load;
pub mod lock;
pub mod mapped;
pub mod means;
pub mod offsets;
pub mod pins;
pub mod plan;
pub mod points;
pub mod reactions;
pub(crate) mod relocated;
mod role;
pub mod shape;
pub mod symbols;
pub mod table;
