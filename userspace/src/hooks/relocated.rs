//! The programs a second time, as instructions that refer to the maps of the first: for what aya does not load.

use std::{
    collections::HashSet,
    ffi::CStr,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd},
};

use aya::{Ebpf, maps::Map};
use aya_obj::{Object, btf::BtfFeatures, generated::bpf_insn};

use super::{
    bpf::{self, Types},
    load::{self, LOGS, LoadError},
};

/// The object, linked against maps that are there.
pub struct Relocated {
    object: Object,
    /// Its own types, in the kernel.
    btf: Option<OwnedFd>,
}

/// A program of it.
pub struct Code<'a> {
    /// Its instructions.
    pub instructions: &'a [bpf_insn],
    /// Its licence.
    pub license: &'a CStr,
    /// What its functions are.
    pub types: Option<Types<'a>>,
}

impl Relocated {
    /// Links it against the maps of `ebpf`, of which none may have been taken yet.
    ///
    /// # Errors
    /// A map is missing: the object and this binary do not belong together.
    pub fn against(ebpf: &Ebpf) -> Result<Self, LoadError> {
        let mut object = Object::parse(load::object(ebpf.map(LOGS).is_some()))?;
        // Kernels with TDX know every kind of type that the object has.
        let every_kind = BtfFeatures::new(true, true, true, true, true, true, true, true);
        let btf = match object.fixup_and_sanitize_btf(&every_kind)? {
            Some(types) => Some(bpf::load_btf(&types.to_bytes())?),
            None => None,
        };
        let definitions: Vec<_> = object.maps.drain().collect();
        let mut maps: Vec<(&str, RawFd, &aya_obj::Map)> = Vec::new();
        for (name, definition) in &definitions {
            let map = ebpf.map(name).ok_or(LoadError::Missing("map of the name that it refers to"))?;
            maps.push((name, descriptor(map).as_raw_fd(), definition));
        }
        let sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
        object.relocate_maps(maps.into_iter(), &sections)?;
        object.relocate_calls(&sections)?;
        Ok(Self { object, btf })
    }

    /// A program, by its name.
    pub fn program(&self, name: &str) -> Option<Code<'_>> {
        let program = self.object.programs.get(name)?;
        let function = self.object.functions.get(&program.function_key())?;
        let functions = &function.func_info.func_info[..];
        let types = self.btf.as_ref().map(|btf| Types { btf: btf.as_fd(), functions });
        Some(Code { instructions: &function.instructions, license: &program.license, types })
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
