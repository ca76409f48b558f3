//! The programs a second time, as instructions that refer to the maps of the first: for what aya does not load.

use std::{
    collections::HashSet,
    ffi::CStr,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, RawFd},
};

use aya::{Ebpf, maps::Map};
use aya_obj::{Object, generated::bpf_insn};

use super::load::{self, LOGS, LoadError};

/// The object, linked against maps that are there.
pub struct Relocated(Object);

impl Relocated {
    /// Links it against the maps of `ebpf`, of which none may have been taken yet.
    ///
    /// # Errors
    /// A map is missing: the object and this binary do not belong together.
    pub fn against(ebpf: &Ebpf) -> Result<Self, LoadError> {
        let mut object = Object::parse(load::object(ebpf.map(LOGS).is_some()))?;
        let definitions: Vec<_> = object.maps.drain().collect();
        let mut maps: Vec<(&str, RawFd, &aya_obj::Map)> = Vec::new();
        for (name, definition) in &definitions {
            let map = ebpf.map(name).ok_or(LoadError::Missing("map of the name that it refers to"))?;
            maps.push((name, descriptor(map).as_raw_fd(), definition));
        }
        let sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
        object.relocate_maps(maps.into_iter(), &sections)?;
        object.relocate_calls(&sections)?;
        Ok(Self(object))
    }

    /// Instructions and licence of a program.
    pub fn program(&self, name: &str) -> Option<(&[bpf_insn], &CStr)> {
        let program = self.0.programs.get(name)?;
        let function = self.0.functions.get(&program.function_key())?;
        Some((&function.instructions, &program.license))
    }
}

/// A map's descriptor. aya gives none for a map of any kind.
pub fn descriptor(map: &Map) -> BorrowedFd<'_> {
    let (Map::Array(data)
    | Map::ArrayOfMaps(data)
    | Map::BloomFilter(data)
    | Map::CgroupArray(data)
    | Map::CgroupStorage(data)
    | Map::CgrpStorage(data)
    | Map::CpuMap(data)
    | Map::DevMap(data)
    | Map::DevMapHash(data)
    | Map::HashMap(data)
    | Map::HashOfMaps(data)
    | Map::InodeStorage(data)
    | Map::LpmTrie(data)
    | Map::LruHashMap(data)
    | Map::PerCpuArray(data)
    | Map::PerCpuCgroupStorage(data)
    | Map::PerCpuHashMap(data)
    | Map::PerCpuLruHashMap(data)
    | Map::PerfEventArray(data)
    | Map::ProgramArray(data)
    | Map::Queue(data)
    | Map::ReusePortSockArray(data)
    | Map::RingBuf(data)
    | Map::SockHash(data)
    | Map::SockMap(data)
    | Map::SkStorage(data)
    | Map::Stack(data)
    | Map::StackTraceMap(data)
    | Map::Unsupported(data)
    | Map::XskMap(data)) = map;
    data.fd().as_fd()
}
