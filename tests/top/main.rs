//! `septwatch top` in a terminal: what a person sees who presses these keys, and what is left of it afterwards.
#![expect(clippy::unwrap_used, clippy::panic, reason = "inside of a test, a panic is its failure")]

mod demo;
mod recording;
mod screen;
mod sizes;
mod terminal;
