//! What is attached only while it is needed, and when that is.

use aya::maps::{Array, MapData, RingBuf};
use septwatch_common::{
    Life,
    config::{Control, Shared},
};

use super::{ControlPod, Kernel, KernelError, Switch, error::map_error};
use crate::{hooks::attach::Attached, source::walk};

/// Attaches and detaches what is needed from time to time.
pub struct Needed<'a> {
    attached: &'a Attached,
    allocations: &'a mut Switch,
    releases: &'a mut Switch,
    control: &'a mut Control,
    control_map: &'a mut Array<MapData, ControlPod>,
}

impl Needed<'_> {
    /// Watches allocations from now on, or no more.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn allocations(&mut self, on: bool) -> Result<(), KernelError> {
        Ok(self.allocations.set(self.attached, on)?)
    }

    /// Watches releases from now on: something is lent, or may be at once.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn releases(&mut self) -> Result<(), KernelError> {
        self.releases.set(self.attached, true)?;
        self.tell(true)
    }

    /// Tells the programs whether releases are watched.
    fn tell(&mut self, watched: bool) -> Result<(), KernelError> {
        let told = u64::from(watched);
        if self.control.releases == told {
            return Ok(());
        }
        self.control.releases = told;
        self.control_map.set(0, ControlPod(*self.control), 0).map_err(map_error("CONTROL"))
    }
}

impl Kernel {
    /// What is attached only while it is needed.
    pub fn needed(&mut self) -> Needed<'_> {
        self.ring_and_needed(true).1
    }

    /// The same, and a ring that says so.
    pub(super) fn ring_and_needed(&mut self, vital: bool) -> (&mut RingBuf<MapData>, Needed<'_>) {
        let Self { attached, allocations, releases, control, control_map, .. } = self;
        let ring = if vital { &mut self.vital } else { &mut self.pages };
        (ring, Needed { attached, allocations, releases, control, control_map })
    }

    /// Whether allocations are watched.
    pub fn watches_allocations(&self) -> bool {
        self.allocations.is_on()
    }

    /// Whether releases are watched.
    pub fn watches_releases(&self) -> bool {
        self.releases.is_on()
    }

    /// What the programs share.
    pub(super) fn shared(&self) -> Result<Shared, KernelError> {
        Ok(self.shared.get(&0, 0).map_err(map_error("SHARED"))?.0)
    }

    /// TDs that began before releases were watched.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn unwatched(&self) -> Result<u64, KernelError> {
        Ok(self.shared()?.unwatched)
    }

    /// Whether a TD lives, or has left something behind.
    ///
    /// # Errors
    /// The maps cannot be read.
    pub fn is_lent(&self) -> Result<bool, KernelError> {
        let records = self.records()?;
        Ok(records.iter().any(|(_, record)| record.life != Life::Gone as u8 || record.lent() != 0))
    }

    /// Detaches what sees releases, if nothing is lent: see `ebpf/src/releases.rs` for why no release is missed. Whether it
    /// is done.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn rest(&mut self) -> Result<bool, KernelError> {
        let before = self.shared()?.tds;
        if self.is_lent()? {
            return Ok(false);
        }
        self.needed().tell(false)?;
        // Programs that saw it otherwise have ended then.
        let settled = walk::settle().is_ok();
        if !settled || self.shared()?.tds != before {
            self.needed().tell(true)?;
            return Ok(false);
        }
        // A pin's hold goes after a grace period (`bpf_free_inode`). This process's is to be the last: then the tracepoints
        // are left here and now, not by a worker later.
        self.releases.unpin(&self.attached);
        let _ = walk::settle();
        self.releases.set(&self.attached, false)?;
        // Who attaches to a tracepoint again waits for those who were in it (`tracepoint_add_func`), and a TD's wait for that
        // would be one of them. Afterwards nobody waits.
        let _ = walk::settle();
        Ok(true)
    }
}
