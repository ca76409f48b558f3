//! What the scenarios of a run need: emulators, and what each kind of machine boots from.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::guest::{self, Boot, Programs};
use super::kernel::Image;
use super::machine::{Emulator, Machine};
use super::scenario::{Kind, Vmm};
use super::{bochs, costs, tcg};

/// What tells machines apart.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Wanted {
    pub kind: Kind,
    /// Who drives KVM in it.
    pub vmm: Vmm,
    /// It has a crash kernel loaded.
    pub crash: bool,
    /// It has what septwatch's cost is compared with.
    pub tools: bool,
}

/// Everything to start machines with.
#[derive(Default)]
pub struct Machines {
    emulators: BTreeMap<Kind, Emulator>,
    boots: BTreeMap<Wanted, Boot>,
}

impl Machines {
    /// Builds or fetches what these machines need. `septwatch` is put into them instead of the tree's, where given.
    ///
    /// # Errors
    /// Something cannot be built, fetched or installed.
    pub fn prepare(
        image: &Image,
        septwatch: Option<&Path>,
        wanted: impl IntoIterator<Item = Wanted>,
    ) -> Result<Self> {
        let mut machines = Self::default();
        let mut programs = None;
        for wanted in wanted {
            if let Entry::Vacant(emulator) = machines.emulators.entry(wanted.kind) {
                emulator.insert(match wanted.kind {
                    Kind::Bochs => Emulator::Bochs(bochs::ensure()?),
                    Kind::Qemu => tcg::ensure().map(|()| Emulator::Tcg)?,
                });
            }
            if let Entry::Vacant(boot) = machines.boots.entry(wanted) {
                let programs = match &programs {
                    Some(programs) => programs,
                    None => programs.insert(Programs::build(septwatch)?),
                };
                boot.insert(programs.boot(image, wanted)?);
            }
        }
        Ok(machines)
    }

    /// One machine with what septwatch's cost is compared with, among it septwatches with `other` programs.
    ///
    /// # Errors
    /// As for [`Self::prepare`].
    pub fn prepare_with(
        image: &Image,
        septwatch: &Path,
        others: &[(&str, PathBuf)],
        wanted: Wanted,
    ) -> Result<Self> {
        for (programs, path) in others {
            guest::strip(path, &costs::stripped(programs))?;
        }
        Self::prepare(image, Some(septwatch), [wanted])
    }

    /// One of the machines that were prepared, with its files in this folder.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn machine(&self, wanted: Wanted, folder: &Path, input: &Path, cpus: u32) -> Result<Machine> {
        let prepared = self.emulators.get(&wanted.kind).zip(self.boots.get(&wanted));
        let (emulator, boot) = prepared.context("a kind of machine that was not prepared")?;
        Machine::prepare(emulator, folder, boot, input, cpus)
    }
}
