//! Policies: what is done about a violation, by whom, and when that is too late.
//!
//! A policy file is rules with ladders of reactions ([`reaction`]). The engine turns a verdict into decisions
//! ([`decision`]), purely: matching, limits, cool-down and every reason not to act are in it, and a recording drives it as
//! a live host does. What the kernel must do at once is compiled for it beforehand. Carrying decisions out, and the audit
//! log, come last; nothing else in septwatch acts on the host.

pub mod actor;
pub mod audit;
pub mod control;
pub mod decision;
pub mod engine;
pub mod explain;
pub mod file;
pub mod keeper;
pub mod latency;
mod limits;
mod matching;
pub mod quick;
pub mod react;
pub mod reaction;
pub mod schema;
pub mod shipped;
pub mod subject;

pub use matching::Fit;
