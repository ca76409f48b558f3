//! The subcommands, one module each: arguments and what they do.

pub mod doctor;
