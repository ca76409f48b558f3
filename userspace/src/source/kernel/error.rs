//! What can go wrong with the programs, and with their maps.

use aya::maps::{Map, MapError};
use thiserror::Error;

use crate::{
    hooks::{attach::AttachError, bpf::BpfError, load::LoadError},
    source::event::WireError,
};

/// The programs cannot be read.
#[derive(Debug, Error)]
pub enum KernelError {
    /// They cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// They cannot be attached or detached.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// A map cannot be read or written.
    #[error("map {name}")]
    Map {
        /// Which.
        name: &'static str,
        /// Why.
        #[source]
        source: MapError,
    },
    /// A map cannot be read at once.
    #[error("map {name}")]
    Values {
        /// Which.
        name: &'static str,
        /// Why.
        #[source]
        source: BpfError,
    },
    /// A record is not one of ours.
    #[error("a record from the kernel")]
    Wire(#[from] WireError),
}

pub(in crate::source) fn map_error(name: &'static str) -> impl FnOnce(MapError) -> KernelError {
    move |source| KernelError::Map { name, source }
}

pub(in crate::source) fn typed<M>(name: &'static str, map: Option<Map>) -> Result<M, KernelError>
where
    M: TryFrom<Map, Error = MapError>,
{
    M::try_from(map.ok_or(LoadError::Missing(name))?).map_err(map_error(name))
}
