//! `septwatch top`.

pub mod screen;
pub mod stderr;
pub mod terminal;
