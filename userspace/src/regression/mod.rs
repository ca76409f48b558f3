//! Recordings as regression traces: what a run came to, what was expected of it, and what changed between two.
//!
//! This room only computes. It attaches nothing, prints nothing, and knows no command line: what enters is recordings and
//! texts of expectations, what leaves is figures, checks and differences. Nothing here may ask the running kernel.

pub mod answers;
pub mod bless;
pub mod bound;
pub mod changes;
pub mod check;
pub mod expect;
pub mod loss;
pub mod order;
pub mod run;
pub mod tolerance;
