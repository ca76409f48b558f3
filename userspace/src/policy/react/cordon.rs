//! `cordon`: no new VM is made on this host. A program in the kernel refuses it; here it is told to, and the log says so.

use rustix::io::Errno;
use septwatch_common::react;

use super::{ReactError, host::Host, panic::kmsg};
use crate::policy::{actor::KernelSide, reaction::Cordon};

/// KERN_WARNING
const WARNING: u8 = 4;

/// Refuses new VMs from now on.
///
/// # Errors
/// The programs cannot be told.
pub fn cordon(
    host: &Host,
    cordon: Cordon,
    why: &str,
    kernel: &mut dyn KernelSide,
) -> Result<String, ReactError> {
    let errno = cordon.errno.raw_os_error().unsigned_abs().into();
    kernel.cordon(react::Cordon { errno, every_type: cordon.every_type.into() })?;
    let what = if cordon.every_type { "VMs of every type" } else { "TDs" };
    let answer = name(cordon.errno);
    let told =
        kmsg(host, WARNING, &format!("septwatch: new {what} are refused with {answer} from now on: {why}"));
    let mut detail = format!("new {what} are refused with {answer}");
    if let Err(error) = told {
        detail += &format!("; the kernel's log does not say so: {error}");
    }
    Ok(detail)
}

/// An errno in the kernel's words and by its number.
pub(in super::super) fn name(errno: Errno) -> String {
    // `Resource busy (os error 16)`
    std::io::Error::from(errno).to_string()
}
