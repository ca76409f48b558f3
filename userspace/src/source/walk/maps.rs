//! The maps that the programs which walk TDs share with userspace.

use std::{collections::BTreeMap, os::fd::OwnedFd};

use aya::{
    Pod,
    maps::{Map, MapData, MapError},
};
use septwatch_common::walk::{Difference, Found, MAX_DIFFERENCES, Told};

use super::super::kernel::{KernelError, map_error, typed};
use crate::hooks::{load::LoadError, relocated};

/// What is asked.
pub const ASKED: &str = "WALK_ASKED";
/// VMs that were found.
pub const FOUND: &str = "WALK_FOUND";
/// What a step came to.
pub const TOLD: &str = "WALK_TOLD";
/// What differs.
pub const DIFFERENCES: &str = "WALK_DIFFERENCES";

/// See ebpf/src/walk: `Asked`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct AskedPod {
    /// 1: TDs that are found and not known are entered.
    pub enter: u64,
    /// Files that were found.
    pub found: u64,
}
// SAFETY: numbers only, without padding.
unsafe impl Pod for AskedPod {}

/// A [`Found`] in a map.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct FoundPod(pub Found);
// SAFETY: numbers only, without padding.
unsafe impl Pod for FoundPod {}

/// A [`Told`] in a map.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct ToldPod(pub Told);
// SAFETY: numbers only, without padding.
unsafe impl Pod for ToldPod {}

/// [`Difference`]s in a map.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct DifferencesPod(pub [Difference; MAX_DIFFERENCES]);
// SAFETY: numbers only, without padding.
unsafe impl Pod for DifferencesPod {}

/// Descriptors of all that a walk needs.
pub struct Maps {
    all: BTreeMap<&'static str, OwnedFd>,
    /// Programs that are loaded later refer to these by the numbers of their descriptors.
    _own: Vec<Map>,
}

impl Maps {
    /// By name, of those that are not used otherwise.
    pub(in crate::source) fn of(map: &mut impl FnMut(&str) -> Option<Map>) -> Result<Self, KernelError> {
        let mut maps = Self { all: BTreeMap::new(), _own: Vec::new() };
        for name in [ASKED, FOUND, TOLD, DIFFERENCES] {
            let own = map(name).ok_or(LoadError::Missing(name))?;
            maps.add(name, &own)?;
            maps._own.push(own);
        }
        Ok(maps)
    }

    /// One more.
    pub(in crate::source) fn add(&mut self, name: &'static str, map: &Map) -> Result<(), KernelError> {
        let own = relocated::descriptor(map).try_clone_to_owned();
        self.all.insert(name, own.map_err(MapError::IoError).map_err(map_error(name))?);
        Ok(())
    }

    /// Another descriptor of one, as what it is.
    pub(super) fn typed<M>(&self, name: &'static str) -> Result<M, KernelError>
    where
        M: TryFrom<Map, Error = MapError>,
    {
        let own = self.all.get(name).ok_or(LoadError::Missing(name))?;
        let data = own.try_clone().map_err(MapError::IoError).and_then(MapData::from_fd);
        typed(name, Some(data.and_then(Map::from_map_data).map_err(map_error(name))?))
    }
}
