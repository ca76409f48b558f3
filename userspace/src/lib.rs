//! septwatch: a ledger of the physical pages that a host lends to the Intel TDX module.

pub mod authorities;
pub mod collector;
pub mod commands;
pub mod confine;
pub mod explain;
pub mod export;
pub mod fleet;
pub mod here;
pub mod hooks;
mod locked;
pub mod minimize;
pub mod model;
pub mod policy;
pub mod recording;
pub mod regression;
pub mod report;
pub mod source;
mod told;
pub mod trust;
pub mod view;
