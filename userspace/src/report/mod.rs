//! A text about violations for the kernel's mailing list: what was found, on what, how it came about, how sure it is.
//!
//! It names neither the host nor a file; of processes, name and id.

mod collect;
mod life;
mod paper;
mod write;

pub use collect::{Case, Told, collect};
pub use life::Life;
pub use write::write;
