//! septwatch: a ledger of the physical pages that a host lends to the Intel TDX module.

pub mod source;
