//! The kernel's side of the house: what can be hooked, loading, attaching.

pub mod attach;
pub mod load;
