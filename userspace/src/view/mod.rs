//! How things look: lines for people, lines for machines. Nothing in here talks to the kernel, and nothing is decided.

pub mod fleet;
pub mod histogram;
pub mod json;
pub mod lines;
pub mod print;
pub mod stack;
pub mod top;
