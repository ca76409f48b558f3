//! Allocations are watched only while a window is open, or about to: on a host where nothing is wrong they cost nothing.

use std::os::fd::{AsFd as _, OwnedFd};

use super::KernelError;
use crate::hooks::attach::{AttachError, Attached};

/// The tracepoint.
pub(super) const ALLOC: &str = "mm_page_alloc";

/// What allocations are watched with.
pub struct Allocations<'a> {
    pub(super) attached: &'a Attached,
    pub(super) link: &'a mut Option<OwnedFd>,
}

impl Allocations<'_> {
    /// As [`super::Kernel::watch_allocations`].
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn watch(&mut self, on: bool) -> Result<(), KernelError> {
        if on == self.link.is_some() {
            return Ok(());
        }
        let pins = self.attached.pins();
        if let Some(pins) = pins {
            pins.drop_link(ALLOC);
        }
        *self.link = None;
        if on {
            let link = self.attached.open_tracepoint(ALLOC)?;
            if let Some(pins) = pins {
                pins.link(ALLOC, link.as_fd()).map_err(AttachError::from)?;
            }
            *self.link = Some(link);
        }
        Ok(())
    }
}
