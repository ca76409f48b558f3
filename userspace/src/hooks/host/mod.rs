//! What this host allows and has, found out by trying and reading, never from the kernel's version.
//! What follows from it for hooks is decided in `plan`.

mod identity;
mod memory;
mod probe;
mod system;

pub use identity::{build_id, tdx_module};
pub use memory::{Memory, MemoryError, Range};
pub use probe::{Allowed, Probe};
pub use system::{Capability, Cgroup, Host, Lockdown, Mounts, Tdx, missing_capabilities};
