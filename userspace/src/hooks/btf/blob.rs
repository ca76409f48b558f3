//! The blob: header, sections, the one pass over the types. What the types mean is in `types`.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{BtfError, Malformed};

/// `BTF_MAX_TYPE`: the kernel takes no more types than this, base and module together.
pub(super) const MAX_TYPE: u32 = 0x000f_ffff;
const MAGIC: u16 = 0xeb9f;
/// `struct btf_header` up to `str_len`.
const HEADER_LEN: usize = 24;
/// `struct btf_header` with `layout_off` and `layout_len`.
const HEADER_LEN_LAYOUT: usize = 32;
/// `struct btf_type`
pub(super) const TYPE_LEN: usize = 12;

/// `BTF_KIND_*`, as far as a reader needs to tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the kernel's")]
pub enum Kind {
    Int = 1,
    Ptr,
    Array,
    Struct,
    Union,
    Enum,
    Fwd,
    Typedef,
    Volatile,
    Const,
    Restrict,
    Func,
    FuncProto,
    Var,
    Datasec,
    Float,
    DeclTag,
    TypeTag,
    Enum64,
}

impl Kind {
    const ALL: [Self; 19] = [
        Self::Int,
        Self::Ptr,
        Self::Array,
        Self::Struct,
        Self::Union,
        Self::Enum,
        Self::Fwd,
        Self::Typedef,
        Self::Volatile,
        Self::Const,
        Self::Restrict,
        Self::Func,
        Self::FuncProto,
        Self::Var,
        Self::Datasec,
        Self::Float,
        Self::DeclTag,
        Self::TypeTag,
        Self::Enum64,
    ];

    pub(super) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }

    /// Bytes that follow `struct btf_type`: once, and for each of its `vlen` elements.
    const fn layout(self) -> (usize, usize) {
        match self {
            Self::Int | Self::Var | Self::DeclTag => (4, 0),
            Self::Array => (12, 0),
            Self::Struct | Self::Union | Self::Datasec | Self::Enum64 => (0, 12),
            Self::Enum | Self::FuncProto => (0, 8),
            Self::Ptr
            | Self::Fwd
            | Self::Typedef
            | Self::Volatile
            | Self::Const
            | Self::Restrict
            | Self::Func
            | Self::Float
            | Self::TypeTag => (0, 0),
        }
    }
}

/// `struct btf_type`, decoded.
///
/// Linux 7.3 widened `info`: the kind from 5 to 7 bits (24 to 30), vlen from 16 to 24 (0 to 23). Older writers
/// left the added bits zero, so the wide reading is right for both.
#[derive(Clone, Copy, Debug)]
pub(super) struct Raw {
    /// Where the type starts, in bytes from the start of the file.
    pub at: usize,
    pub name_off: u32,
    pub kind: u8,
    pub kind_flag: bool,
    pub vlen: usize,
    /// `size` or `type`, as the kind has it.
    pub size_or_type: u32,
}

/// A BTF blob: of vmlinux, or of a module on top of it.
#[derive(Debug)]
pub struct Btf {
    pub(super) file: PathBuf,
    data: Vec<u8>,
    strings: Range<usize>,
    /// Where type `first_id + i` starts in `data`.
    offsets: Vec<u32>,
    /// Where the last type that was read ends.
    types_end: usize,
    first_id: u32,
    first_string: u32,
    base: Option<Arc<Btf>>,
    named: HashMap<String, Vec<u32>>,
    unread: Option<u8>,
}

impl Btf {
    /// Reads `data`, the BTF found in `file`; `base` is vmlinux' where `data` is a module's. Functions, structures,
    /// unions and typedefs are found by name later only if their name is in `wanted`.
    ///
    /// # Errors
    /// [`BtfError::Malformed`] where header, sections or the extent of a type are not sound. Contents of types are
    /// checked when they are asked for.
    pub fn parse(
        file: &Path,
        data: Vec<u8>,
        base: Option<Arc<Self>>,
        wanted: &HashSet<&str>,
    ) -> Result<Self, BtfError> {
        let fail = |offset, what| BtfError::Malformed { file: file.to_owned(), offset, what };
        if let Some(kind) = base.as_ref().and_then(|base| base.unread) {
            return Err(fail(0, Malformed::UnreadBase(kind)));
        }
        let header = Header::read(&data, base.is_some()).map_err(|(offset, what)| fail(offset, what))?;
        let mut btf = Self {
            file: file.to_owned(),
            strings: header.strings.clone(),
            offsets: Vec::with_capacity(header.types.len() / 20),
            types_end: header.types.start,
            first_id: base.as_ref().map_or(1, |base| base.next_id()),
            first_string: base.as_ref().map_or(0, |base| base.next_string()),
            base,
            named: HashMap::new(),
            unread: None,
            data,
        };
        btf.scan(&header, wanted)?;
        Ok(btf)
    }

    fn scan(&mut self, header: &Header, wanted: &HashSet<&str>) -> Result<(), BtfError> {
        let wanted = Wanted::new(wanted);
        let mut at = header.types.start;
        while at < header.types.end {
            let id = self.next_id();
            if id > MAX_TYPE {
                return Err(self.malformed(at, Malformed::TooManyTypes));
            }
            let raw = self
                .raw_at(at)
                .filter(|_| at + TYPE_LEN <= header.types.end)
                .ok_or_else(|| self.malformed(at, Malformed::TypeTruncated(id)))?;
            let kind = Kind::from_number(raw.kind);
            let Some((once, each)) = kind.map(Kind::layout).or_else(|| header.layout(&self.data, raw.kind))
            else {
                // Its length is unknown, so nothing after it can be found. What came before stays good.
                self.unread = Some(raw.kind);
                break;
            };
            // vlen has 24 bits and `each` 8: no overflow.
            let end = at + TYPE_LEN + once + each * if each == 0 { 0 } else { raw.vlen };
            if end > header.types.end {
                return Err(self.malformed(at, Malformed::TypeTruncated(id)));
            }
            // A type section lies within 4 GiB, its offsets being 32 bits wide.
            self.offsets.push(at as u32);
            if matches!(kind, Some(Kind::Func | Kind::Struct | Kind::Union | Kind::Typedef))
                && let Some(name) = self.bytes_of_string(raw.name_off).and_then(|bytes| wanted.find(bytes))
            {
                let name = name.to_owned();
                self.named.entry(name).or_default().push(id);
            }
            at = end;
            self.types_end = end;
        }
        Ok(())
    }

    /// The kind that ended the pass because its length is unknown, where one did.
    pub fn unread(&self) -> Option<u8> {
        self.unread.or_else(|| self.base.as_ref()?.unread)
    }

    /// The file that this was read from.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Number of types, without the base's.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Whether there is no type but the base's.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// Ids of the types of this kind and name, of this blob only; empty unless the name was wanted at reading.
    pub fn named(&self, kind: Kind, name: &str) -> impl Iterator<Item = u32> {
        let ids = self.named.get(name).map_or(&[][..], Vec::as_slice);
        ids.iter().copied().filter(move |id| self.raw(*id).is_ok_and(|raw| raw.kind == kind as u8))
    }

    /// The type `id` as it lies in its file, `struct btf_type` and what follows: for tools that copy types.
    ///
    /// # Errors
    /// [`BtfError::Unsound`] where there is no such type.
    pub fn encoded(&self, id: u32) -> Result<&[u8], BtfError> {
        let blob = self.home(id);
        let index =
            id.checked_sub(blob.first_id).ok_or_else(|| self.unsound(Malformed::NoSuchType(id)))? as usize;
        let start = *blob.offsets.get(index).ok_or_else(|| self.unsound(Malformed::NoSuchType(id)))? as usize;
        let end = blob.offsets.get(index + 1).map_or(blob.types_end, |next| *next as usize);
        blob.data.get(start..end).ok_or_else(|| self.unsound(Malformed::NoSuchType(id)))
    }

    /// The id of this blob's first type: 1, or the one after its base's last.
    pub fn first_id(&self) -> u32 {
        self.first_id
    }

    /// vmlinux' BTF, for a module's.
    pub fn base(&self) -> Option<&Self> {
        self.base.as_deref()
    }

    fn next_id(&self) -> u32 {
        self.first_id.saturating_add(self.offsets.len() as u32)
    }

    fn next_string(&self) -> u32 {
        self.first_string.saturating_add(self.strings.len() as u32)
    }

    /// The type with this id, of this blob or its base; never for id 0, which is `void`.
    pub(super) fn raw(&self, id: u32) -> Result<Raw, BtfError> {
        if id < self.first_id
            && let Some(base) = &self.base
        {
            return base.raw(id);
        }
        id.checked_sub(self.first_id)
            .and_then(|index| self.offsets.get(index as usize))
            .and_then(|at| self.raw_at(*at as usize))
            .ok_or_else(|| self.unsound(Malformed::NoSuchType(id)))
    }

    fn raw_at(&self, at: usize) -> Option<Raw> {
        let info = u32_at(&self.data, at + 4)?;
        Some(Raw {
            at,
            name_off: u32_at(&self.data, at)?,
            kind: (info >> 24 & 0x7f) as u8,
            kind_flag: info >> 31 != 0,
            vlen: (info & 0x00ff_ffff) as usize,
            size_or_type: u32_at(&self.data, at + 8)?,
        })
    }

    /// The word at `index` behind the `struct btf_type` of `id`.
    pub(super) fn word(&self, id: u32, raw: &Raw, index: usize) -> Result<u32, BtfError> {
        let blob = self.home(id);
        u32_at(&blob.data, raw.at + TYPE_LEN + 4 * index)
            .ok_or_else(|| blob.malformed(raw.at, Malformed::TypeTruncated(id)))
    }

    /// The blob that type `id` lies in.
    fn home(&self, id: u32) -> &Self {
        match &self.base {
            Some(base) if id < self.first_id => base.home(id),
            _ => self,
        }
    }

    /// The string at `offset`, of this blob or its base; empty for offset 0.
    ///
    /// # Errors
    /// [`BtfError::Unsound`] where there is no such string, or it is not UTF-8.
    pub fn string(&self, offset: u32) -> Result<&str, BtfError> {
        let bytes =
            self.bytes_of_string(offset).ok_or_else(|| self.unsound(Malformed::NoSuchString(offset)))?;
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        std::str::from_utf8(&bytes[..end]).map_err(|_| self.unsound(Malformed::NotUtf8(offset)))
    }

    /// From the start of a string to the end of its section.
    fn bytes_of_string(&self, offset: u32) -> Option<&[u8]> {
        if offset < self.first_string
            && let Some(base) = &self.base
        {
            return base.bytes_of_string(offset);
        }
        let section = self.data.get(self.strings.clone())?;
        section.get(offset.checked_sub(self.first_string)? as usize..).filter(|rest| !rest.is_empty())
    }

    pub(super) fn malformed(&self, offset: usize, what: Malformed) -> BtfError {
        BtfError::Malformed { file: self.file.clone(), offset, what }
    }

    pub(super) fn unsound(&self, what: Malformed) -> BtfError {
        BtfError::Unsound { file: self.file.clone(), what }
    }
}

struct Header {
    types: Range<usize>,
    strings: Range<usize>,
    layouts: Range<usize>,
}

impl Header {
    fn read(data: &[u8], split: bool) -> Result<Self, (usize, Malformed)> {
        let magic = data.get(..2).ok_or((0, Malformed::ShortHeader))?;
        match u16::from_ne_bytes([magic[0], magic[1]]) {
            MAGIC => {}
            other if other.swap_bytes() == MAGIC => return Err((0, Malformed::ByteOrder)),
            other => return Err((0, Malformed::Magic(other))),
        }
        let version = *data.get(2).ok_or((0, Malformed::ShortHeader))?;
        if version != 1 {
            return Err((2, Malformed::Version(version)));
        }
        let field = |at| u32_at(data, at).map(|value| value as usize).ok_or((at, Malformed::ShortHeader));
        let header_len = field(4)?;
        if header_len < HEADER_LEN || header_len > data.len() {
            return Err((4, Malformed::ShortHeader));
        }
        let section = |at: usize, name| {
            let start = header_len.saturating_add(field(at)?);
            let end = start.saturating_add(field(at + 4)?);
            if end > data.len() { Err((at, Malformed::Section(name))) } else { Ok(start..end) }
        };
        let types = section(8, "type")?;
        let strings = section(16, "string")?;
        // A module's strings go on where its base's end, so that only a base starts with the empty one.
        let text = &data[strings.clone()];
        let starts = split || text.first() == Some(&0);
        if !starts || text.last().is_some_and(|last| *last != 0) {
            return Err((strings.start, Malformed::Strings));
        }
        let layouts = if header_len >= HEADER_LEN_LAYOUT { section(24, "layout")? } else { 0..0 };
        Ok(Self { types, strings, layouts })
    }

    /// `struct btf_layout` of a kind that this reader does not know, as the writer described it.
    fn layout(&self, data: &[u8], kind: u8) -> Option<(usize, usize)> {
        let entry = data.get(self.layouts.clone())?.get(4 * usize::from(kind)..)?.get(..2)?;
        (kind != 0).then(|| (usize::from(entry[0]), usize::from(entry[1])))
    }
}

/// Which names are looked for, in the form that is quickest to ask 150,000 times.
struct Wanted<'a> {
    names: &'a HashSet<&'a str>,
    initial: [bool; 256],
    longest: usize,
}

impl<'a> Wanted<'a> {
    fn new(names: &'a HashSet<&'a str>) -> Self {
        let mut initial = [false; 256];
        for first in names.iter().filter_map(|name| name.as_bytes().first()) {
            initial[usize::from(*first)] = true;
        }
        Self { names, initial, longest: names.iter().map(|name| name.len()).max().unwrap_or(0) }
    }

    /// The name that `bytes` starts with, up to its NUL, if it is one of those looked for.
    fn find<'b>(&self, bytes: &'b [u8]) -> Option<&'b str> {
        if !self.initial[usize::from(*bytes.first()?)] {
            return None;
        }
        let end = bytes.iter().take(self.longest + 1).position(|byte| *byte == 0)?;
        std::str::from_utf8(&bytes[..end]).ok().filter(|name| self.names.contains(name))
    }
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    data.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_ne_bytes)
}
