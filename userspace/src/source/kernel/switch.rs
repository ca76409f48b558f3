//! Tracepoints that are attached only while somebody needs what they tell: on a host where nothing is lent, or nothing is
//! wrong, they cost nothing.

use std::os::fd::{AsFd as _, OwnedFd};

use crate::hooks::attach::{AttachError, Attached};

/// Who gets a frame that came back too early.
pub(super) const ALLOCATIONS: &[&str] = &["mm_page_alloc"];
/// Which frames come back, and how those of files left them.
pub(super) const RELEASES: &[&str] =
    &["mm_filemap_delete_from_page_cache", "mm_page_free", "mm_page_free_batched"];

/// Tracepoints that are attached and detached together.
#[derive(Debug)]
pub(super) struct Switch {
    names: &'static [&'static str],
    /// Of all of them, or of none.
    links: Vec<OwnedFd>,
}

impl Switch {
    pub(super) const fn of(names: &'static [&'static str]) -> Self {
        Self { names, links: Vec::new() }
    }

    pub(super) fn is_on(&self) -> bool {
        !self.links.is_empty()
    }

    /// Attaches or detaches; their programs are loaded.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn set(&mut self, attached: &Attached, on: bool) -> Result<(), AttachError> {
        if on == self.is_on() {
            return Ok(());
        }
        self.unpin(attached);
        self.links.clear();
        if on {
            self.links =
                self.names.iter().map(|name| attached.open_tracepoint(name)).collect::<Result<_, _>>()?;
            for (name, link) in self.names.iter().zip(&self.links) {
                attached.pins().map_or(Ok(()), |pins| pins.link(name, link.as_fd()))?;
            }
        }
        Ok(())
    }

    /// From now on they are attached for as long as this process lives.
    pub(super) fn unpin(&self, attached: &Attached) {
        if let Some(pins) = attached.pins() {
            self.names.iter().for_each(|name| pins.drop_link(name));
        }
    }

    /// Holds what another process left attached, if that is all.
    pub(super) fn take_over(&mut self, attached: &Attached) {
        let links = self.names.iter().map(|name| attached.pins().and_then(|pins| pins.left_link(name)));
        self.links = links.collect::<Option<_>>().unwrap_or_default();
    }
}
