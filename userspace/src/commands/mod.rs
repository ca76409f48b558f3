//! One file per subcommand: its arguments, and what it does with the library. No rule of the domain lives here.

pub mod explain;
