//! The agent's HTTP server under attack, over real sockets, by what anybody can see of it from outside.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

mod crowds;
mod heads;
mod pages;
mod sockets;
mod support;
mod tls;
