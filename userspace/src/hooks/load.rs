//! Loading the eBPF programs: maps in the size of this host, globals with the shapes of this kernel.
//!
//! Programs are only put into the kernel when they are attached: see [`crate::hooks::attach`].

use aya::{Btf, Ebpf, EbpfLoader};
use septwatch_common::{
    Leaf,
    config::{CHUNK, MARKS_SHIFT, MAX_ENTERED, MAX_MARKS, MAX_PROBED, NO_ARGUMENT, SHAPES, Shape},
    kvm::{MEMBERS, NO_MEMBER, POINTS, PointArgs},
};
use thiserror::Error;

/// The programs, as userspace/build.rs compiled them.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/septwatch-bpf"));
/// The same, which log.
static LOGGING: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/septwatch-bpf-log"));

/// The object whose programs log, or the one whose programs do not.
pub(super) fn object(logs: bool) -> &'static [u8] {
    if logs { LOGGING } else { OBJECT }
}

/// Where `struct page` of a frame lies: at `base + pfn * size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageStruct {
    /// Address of frame 0's.
    pub base: u64,
    /// Bytes of one.
    pub size: u64,
}

impl PageStruct {
    /// The address that belongs to a frame.
    pub const fn of(self, pfn: u64) -> u64 {
        self.base.wrapping_add(pfn.wrapping_mul(self.size))
    }
}

/// Whose functions are observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// The kernel's.
    Kernel,
    /// This process' own: the demo.
    User,
}

/// Sizes of the ring buffers in bytes; powers of two, at least a page.
#[derive(Clone, Copy, Debug)]
pub struct Rings {
    /// Lifecycle and violations.
    pub vital: u32,
    /// Page records.
    pub pages: u32,
}

impl Default for Rings {
    fn default() -> Self {
        // Vital: some 6,700 violations, for a time in which nobody reads.
        Self { vital: 1 << 22, pages: 1 << 22 }
    }
}

/// What the programs must know of this host.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How a `struct page *` becomes a frame number.
    pub page: PageStruct,
    /// Offset of `tdr_page` in `struct tdx_td`, in bytes.
    pub tdr_page: u64,
    /// Offset of `tdvpr_page` in `struct tdx_vp`, in bytes.
    pub tdvpr_page: u64,
    /// Whose functions are observed.
    pub memory: Memory,
    /// Whether this kernel only counts pages before finalize (up to Linux 6.18), so that a BLOCK of them may be
    /// refused.
    pub premap_exempt: bool,
    /// Where the observed functions have their arguments.
    pub shapes: Vec<(Leaf, Shape)>,
    /// Where KVM's own functions have theirs.
    pub points: [PointArgs; POINTS],
    /// Where the members lie that the programs read.
    pub members: [u64; MEMBERS],
    /// Whether KVM's zapping function is given the frame itself, not an entry of the mirror page table.
    pub zap_takes_pfn: bool,
    /// Address of `kvm_gmem_fallocate`; 0 where it is not known.
    pub gmem_fallocate: u64,
    /// Address of `kvm_vm_release`; 0 where it is not known.
    pub kvm_vm_release: u64,
    /// Turns that a walk waits between its two looks at a frame: for tests.
    pub walk_delay: u32,
    /// Frames of System RAM.
    pub frames: u64,
    /// The highest of them.
    pub highest_pfn: u64,
    /// Whether some functions are probed at entry and return apart.
    pub probes: bool,
    /// Most memory that the ledger may take, in bytes; `None` is what all frames would need.
    pub ledger_limit: Option<u64>,
    /// Ring buffers.
    pub rings: Rings,
    /// Log level of the programs: 0 is off, 1 error to 5 trace.
    pub log_level: u8,
    /// Whether it is measured how long SEAMCALLs take.
    pub latency: bool,
}

impl Settings {
    /// Of programs that are attached nowhere, for measurements and tests: nothing is known of KVM.
    pub fn detached(frames: u64, highest_pfn: u64) -> Self {
        Self {
            page: PageStruct { base: 0, size: 64 },
            tdr_page: 0,
            tdvpr_page: 0,
            memory: Memory::Kernel,
            premap_exempt: false,
            shapes: Vec::new(),
            points: [[NO_ARGUMENT; 4]; POINTS],
            members: [NO_MEMBER; MEMBERS],
            zap_takes_pfn: false,
            gmem_fallocate: 0,
            kvm_vm_release: 0,
            walk_delay: 0,
            frames,
            highest_pfn,
            probes: false,
            ledger_limit: None,
            rings: Rings::default(),
            log_level: 0,
            latency: false,
        }
    }
}

/// The programs cannot be loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    /// By the kernel or by aya.
    #[error("the eBPF object cannot be loaded")]
    Object(#[from] aya::EbpfError),
    /// The object and this binary do not belong together.
    #[error("the eBPF object has no {0}")]
    Missing(&'static str),
    /// The object cannot be read a second time.
    #[error("the eBPF object cannot be read: {0}")]
    Parse(#[from] aya_obj::ParseError),
    /// Its types cannot be put right.
    #[error("the types of the eBPF object: {0}")]
    Types(#[from] aya_obj::btf::BtfError),
    /// The kernel does not take them.
    #[error("the types of the eBPF object: {0}")]
    Btf(#[from] super::bpf::BpfError),
    /// Its programs cannot be put together.
    #[error("the eBPF object cannot be linked: {0}")]
    Link(#[from] aya_obj::relocation::EbpfRelocationError),
}

/// Bytes that a chunk of the ledger takes in the kernel: see [`CHUNK`].
pub const CHUNK_BYTES: u64 = 4096;

/// Ring buffer of the programs' log: programs that do not log have none.
pub(super) const LOGS: &str = "AYA_LOGS";

/// Its size in bytes. aya-log drops without a word what finds it full: room for what a storm logs while the reader is
/// away.
const LOG_BYTES: u32 = 1 << 22;

/// Chunks that a ledger of this size may have.
pub fn chunks(frames: u64, limit: Option<u64>) -> u64 {
    // One more than fits, because memory does not begin at a multiple of a chunk.
    let all = frames.div_ceil(CHUNK as u64) + 16;
    limit.map_or(all, |limit| all.min(limit / CHUNK_BYTES)).max(1)
}

/// Words of the filter in front of the ledger.
pub fn marks(highest_pfn: u64) -> u64 {
    ((highest_pfn >> MARKS_SHIFT) + 1).min(MAX_MARKS)
}

/// Creates the maps and prepares the programs.
///
/// # Errors
/// The kernel refuses maps (privileges, memory), or the object is not what this binary expects.
pub fn load(settings: &Settings, btf: Option<&Btf>) -> Result<Ebpf, LoadError> {
    let chunks = u32::try_from(chunks(settings.frames, settings.ledger_limit)).unwrap_or(u32::MAX);
    let marks = u32::try_from(marks(settings.highest_pfn)).unwrap_or(u32::MAX);
    let shift = match settings.page.size {
        size if size.is_power_of_two() => u64::from(size.trailing_zeros()),
        _ => 0xff,
    };
    let shape_at = |at| {
        let known = settings.shapes.iter().find(|(leaf, _)| *leaf as usize == at);
        known.map_or(Shape::NONE, |(_, shape)| *shape)
    };
    let shapes: Vec<u8> = (0..SHAPES).flat_map(|at| shape_at(at).to_bytes()).collect();
    let bytes = |numbers: &[u64]| numbers.iter().flat_map(|number| number.to_ne_bytes()).collect::<Vec<_>>();
    let (points, members) = (bytes(settings.points.as_flattened()), bytes(&settings.members));
    let takes_pfn = u64::from(settings.zap_takes_pfn);
    let user = u64::from(settings.memory == Memory::User);
    let exempt = u64::from(settings.premap_exempt);
    let latency = u64::from(settings.latency);
    let mut loader = EbpfLoader::new();
    loader
        .btf(btf)
        .map_max_entries("LEDGER", chunks)
        .map_max_entries("MARKS", marks)
        .map_max_entries("VITAL", settings.rings.vital)
        .map_max_entries("PAGES", settings.rings.pages)
        .map_max_entries("ENTERED", if settings.latency { MAX_ENTERED } else { 1 })
        .map_max_entries("CALLS", if settings.probes { MAX_PROBED } else { 1 })
        .map_max_entries("POINT_CALLS", if settings.probes { MAX_PROBED } else { 1 })
        .override_global("VMEMMAP_BASE", &settings.page.base, true)
        .override_global("PAGE_STRUCT_SHIFT", &shift, true)
        .override_global("PAGE_STRUCT_SIZE", &settings.page.size, true)
        .override_global("TDR_PAGE", &settings.tdr_page, true)
        .override_global("TDVPR_PAGE", &settings.tdvpr_page, true)
        .override_global("USER_MEMORY", &user, true)
        .override_global("PREMAP_EXEMPT", &exempt, true)
        .override_global("SEAMCALL_SHAPES", &shapes[..], true)
        .override_global("POINT_ARGS", &points[..], true)
        .override_global("MEMBER_OFFSETS", &members[..], true)
        .override_global("ZAP_TAKES_PFN", &takes_pfn, true)
        .override_global("GMEM_FALLOCATE", &settings.gmem_fallocate, true)
        .override_global("KVM_VM_RELEASE", &settings.kvm_vm_release, true)
        .override_global("WALK_DELAY", &settings.walk_delay, true)
        .override_global("LATENCY", &latency, true);
    if settings.log_level != 0 {
        loader.map_max_entries(LOGS, LOG_BYTES).override_global("AYA_LOG_LEVEL", &settings.log_level, true);
    }
    Ok(loader.load(object(settings.log_level != 0))?)
}
