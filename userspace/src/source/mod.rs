//! Where events come from.
//!
//! A source turns what it observes into the one event type; nothing here judges an event or shows one.

pub mod counters;
pub mod demo;
pub mod event;
pub mod kernel;
pub mod open;
pub mod reactions;
pub mod session;
pub mod walk;
