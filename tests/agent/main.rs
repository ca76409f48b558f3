//! `septwatch agent`: as a service, and with the real programs that others watch it by.
#![expect(clippy::unwrap_used, clippy::panic, reason = "inside of a test, a panic is its failure")]

mod bus;
mod container;
mod credentials;
mod fleet;
mod hostile;
mod kubernetes;
mod otlp;
mod package;
mod prometheus;
mod servers;
mod service;
mod web;
