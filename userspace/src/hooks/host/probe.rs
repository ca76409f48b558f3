//! Which kinds of programs this kernel takes: each is loaded and attached, and let go of at once. The programs do
//! nothing. Only system calls in here; what to bind where is decided in `plan`.

use std::{
    ffi::{CStr, CString},
    fs, io, mem,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    os::unix::ffi::OsStrExt as _,
};

use aya_obj::generated::{
    PERF_EVENT_IOC_SET_BPF, PERF_FLAG_FD_CLOEXEC, bpf_attach_type, bpf_attr, bpf_cmd, bpf_map_type,
    bpf_prog_type, perf_event_attr,
};
use serde::Serialize;

use crate::hooks::btf::{Btf, Kind};

/// What came of trying.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// It was done.
    Works,
    /// It was refused, or cannot be tried: why.
    Refused(String),
    /// Not tried, because the plan is for a kernel that is not running.
    Assumed,
}

impl Probe {
    /// Whether a plan may count on it.
    pub fn usable(&self) -> bool {
        !matches!(self, Self::Refused(_))
    }

    fn of(result: Result<(), String>) -> Self {
        match result {
            Ok(()) => Self::Works,
            Err(why) => Self::Refused(why),
        }
    }
}

/// What this kernel lets this process do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Allowed {
    /// fentry and fexit programs.
    pub fexit: Probe,
    /// Tracepoints with typed arguments.
    pub tp_btf: Probe,
    /// Tracepoints with untyped arguments.
    pub raw_tp: Probe,
    /// Breakpoints in kernel functions.
    pub kprobe: Probe,
    /// Breakpoints in this process' own functions, for the demo.
    pub uprobe: Probe,
    /// Security hooks, for reactions.
    pub lsm: Probe,
    /// The ring buffer.
    pub ring_buffer: Probe,
    /// `bpf_probe_read_kernel`, which lockdown confidentiality takes away.
    pub read_kernel: Probe,
}

/// Functions that exist to be traced, or are quiet enough for a moment's attachment: the first that BTF has.
const QUIET_FUNCTIONS: [&str; 2] = ["bpf_fentry_test1", "tdh_mem_track"];
const QUIET_LSM: &str = "bpf_lsm_bpf";
const TRACEPOINT: &CStr = c"mm_page_free";

impl Allowed {
    /// Names that the kernel's BTF must have been read with for [`Self::probe`].
    pub const NAMES: [&str; 4] =
        [QUIET_FUNCTIONS[0], QUIET_FUNCTIONS[1], QUIET_LSM, "btf_trace_mm_page_free"];

    /// What a plan for a kernel that is not running counts on.
    pub fn assumed() -> Self {
        let assumed = || Probe::Assumed;
        Self {
            fexit: assumed(),
            tp_btf: assumed(),
            raw_tp: assumed(),
            kprobe: assumed(),
            uprobe: assumed(),
            lsm: assumed(),
            ring_buffer: assumed(),
            read_kernel: assumed(),
        }
    }

    /// Tries everything on the running kernel, of which `vmlinux` is the BTF if it has any.
    pub fn probe(vmlinux: Option<&Btf>) -> Self {
        let id = |kind, name: &str| {
            let vmlinux = vmlinux.ok_or("needs the kernel's BTF")?;
            vmlinux.named(kind, name).next().ok_or_else(|| format!("there is no {name} to try it on"))
        };
        let quiet = QUIET_FUNCTIONS.iter().find_map(|name| Some((*name, id(Kind::Func, name).ok()?)));
        let quiet = quiet.ok_or_else(|| match vmlinux {
            None => "needs the kernel's BTF".to_owned(),
            Some(_) => format!("there is none of {} to try it on", QUIET_FUNCTIONS.join(", ")),
        });
        use bpf_attach_type::{BPF_LSM_MAC, BPF_TRACE_FEXIT, BPF_TRACE_RAW_TP};
        use bpf_prog_type::{BPF_PROG_TYPE_LSM, BPF_PROG_TYPE_RAW_TRACEPOINT, BPF_PROG_TYPE_TRACING};
        let typed = |program_type, attach_type: bpf_attach_type, id: Result<u32, String>| {
            let program = load(program_type, &NOTHING, attach_type as u32, id?)?;
            raw_tracepoint_open(&program, None)
        };
        Self {
            fexit: Probe::of(typed(BPF_PROG_TYPE_TRACING, BPF_TRACE_FEXIT, quiet.clone().map(|(_, id)| id))),
            tp_btf: Probe::of(typed(
                BPF_PROG_TYPE_TRACING,
                BPF_TRACE_RAW_TP,
                id(Kind::Typedef, "btf_trace_mm_page_free"),
            )),
            raw_tp: Probe::of(
                load(BPF_PROG_TYPE_RAW_TRACEPOINT, &NOTHING, 0, 0)
                    .and_then(|program| raw_tracepoint_open(&program, Some(TRACEPOINT))),
            ),
            kprobe: Probe::of(kprobe(quiet.as_ref().map_or(QUIET_FUNCTIONS[0], |(name, _)| name))),
            uprobe: Probe::of(uprobe()),
            lsm: Probe::of(typed(BPF_PROG_TYPE_LSM, BPF_LSM_MAC, id(Kind::Func, QUIET_LSM))),
            ring_buffer: Probe::of(ring_buffer()),
            read_kernel: Probe::of(load(BPF_PROG_TYPE_RAW_TRACEPOINT, &READ_KERNEL, 0, 0).map(drop)),
        }
    }
}

/// `struct bpf_insn` as a number: code, registers, offset, immediate.
const fn insn(code: u8, dst: u8, src: u8, imm: i32) -> u64 {
    code as u64 | (dst as u64) << 8 | (src as u64) << 12 | (imm as u32 as u64) << 32
}

const MOV_IMM: u8 = 0xb7;
const MOV_REG: u8 = 0xbf;
const ADD_IMM: u8 = 0x07;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;

const NOTHING: [u64; 2] = [insn(MOV_IMM, 0, 0, 0), insn(EXIT, 0, 0, 0)];
/// `bpf_probe_read_kernel(stack - 8, 8, NULL)`: helper 113. Loaded, never run.
const READ_KERNEL: [u64; 7] = [
    insn(MOV_REG, 1, 10, 0),
    insn(ADD_IMM, 1, 0, -8),
    insn(MOV_IMM, 2, 0, 8),
    insn(MOV_IMM, 3, 0, 0),
    insn(CALL, 0, 0, 113),
    insn(MOV_IMM, 0, 0, 0),
    insn(EXIT, 0, 0, 0),
];

fn load(
    program_type: bpf_prog_type,
    insns: &[u64],
    attach_type: u32,
    btf_id: u32,
) -> Result<OwnedFd, String> {
    let mut log = [0_u8; 512];
    // SAFETY: bpf_attr is a union of plain integers, for which zero is a value.
    let mut attr = unsafe { mem::zeroed::<bpf_attr>() };
    // SAFETY: all of it was set to zero above, whichever member is looked at.
    let fields = unsafe { &mut attr.__bindgen_anon_3 };
    fields.prog_type = program_type as u32;
    fields.insn_cnt = insns.len() as u32;
    fields.insns = insns.as_ptr() as u64;
    fields.license = c"GPL".as_ptr() as u64;
    fields.expected_attach_type = attach_type;
    fields.attach_btf_id = btf_id;
    fields.log_level = 1;
    fields.log_size = log.len() as u32;
    fields.log_buf = log.as_mut_ptr() as u64;
    bpf(bpf_cmd::BPF_PROG_LOAD, &mut attr).map_err(|error| {
        let said = CStr::from_bytes_until_nul(&log).map(CStr::to_string_lossy).unwrap_or_default();
        match said.lines().next() {
            Some(line) if !line.starts_with("processed ") => format!("loading: {error}: {line}"),
            _ => format!("loading: {error}"),
        }
    })
}

/// Attaches, and detaches as the link is dropped.
fn raw_tracepoint_open(program: &OwnedFd, name: Option<&CStr>) -> Result<(), String> {
    // SAFETY: as in `load`.
    let mut attr = unsafe { mem::zeroed::<bpf_attr>() };
    attr.raw_tracepoint.name = name.map_or(0, |name| name.as_ptr() as u64);
    attr.raw_tracepoint.prog_fd = program.as_raw_fd() as u32;
    bpf(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &mut attr).map(drop).map_err(|error| format!("attaching: {error}"))
}

fn ring_buffer() -> Result<(), String> {
    // SAFETY: as in `load`.
    let mut attr = unsafe { mem::zeroed::<bpf_attr>() };
    // SAFETY: as in `load`.
    let fields = unsafe { &mut attr.__bindgen_anon_1 };
    fields.map_type = bpf_map_type::BPF_MAP_TYPE_RINGBUF as u32;
    fields.max_entries = rustix::param::page_size() as u32;
    bpf(bpf_cmd::BPF_MAP_CREATE, &mut attr).map(drop).map_err(|error| format!("creating: {error}"))
}

/// A `bpf(2)` command that answers with a new descriptor.
fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<OwnedFd> {
    // SAFETY: `attr` is of the size given; the pointers in it are to memory that lives until the call returns.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command as u32, attr, size_of::<bpf_attr>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the commands used in here return a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn kprobe(function: &str) -> Result<(), String> {
    let name = CString::new(function).map_err(|error| error.to_string())?;
    perf_probe("kprobe", &name, 0, -1)
}

/// The function that the uprobe is tried on.
#[inline(never)]
extern "C" fn uprobe_target() {
    std::hint::black_box(());
}

fn uprobe() -> Result<(), String> {
    let exe = "/proc/self/exe";
    let path = fs::read_link(exe).map_err(|error| format!("{exe}: {error}"))?;
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|error| error.to_string())?;
    perf_probe("uprobe", &path, file_offset(uprobe_target as *const () as u64)?, 0)
}

/// Where in its file the code at `address` of this process lies.
fn file_offset(address: u64) -> Result<u64, String> {
    let maps = fs::read_to_string("/proc/self/maps").map_err(|error| format!("/proc/self/maps: {error}"))?;
    maps.lines()
        .find_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let (start, end) = words.next()?.split_once('-')?;
            let number = |digits| u64::from_str_radix(digits, 16).ok();
            let (start, end) = (number(start)?, number(end)?);
            let offset = number(words.nth(1)?)?;
            (start..end).contains(&address).then(|| address - start + offset)
        })
        .ok_or_else(|| format!("/proc/self/maps does not have address {address:#x}"))
}

/// Opens a breakpoint event of this kind and gives it a program; both go as the descriptors are dropped.
fn perf_probe(pmu: &str, target: &CStr, offset: u64, pid: i32) -> Result<(), String> {
    let device = format!("/sys/bus/event_source/devices/{pmu}/type");
    let number = fs::read_to_string(&device).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("this kernel has no {pmu}s (no {device})"),
        _ => format!("{device}: {error}"),
    })?;
    let number = number.trim().parse::<u32>().map_err(|error| format!("{device}: {error}"))?;
    let program = load(bpf_prog_type::BPF_PROG_TYPE_KPROBE, &NOTHING, 0, 0)?;
    // SAFETY: perf_event_attr is of plain integers, for which zero is a value.
    let mut attr = unsafe { mem::zeroed::<perf_event_attr>() };
    attr.type_ = number;
    attr.size = size_of::<perf_event_attr>() as u32;
    attr.__bindgen_anon_3.config1 = target.as_ptr() as u64;
    attr.__bindgen_anon_4.config2 = offset;
    let cpu = if pid < 0 { 0 } else { -1 };
    // SAFETY: `attr` has its size in it; `target` lives until the call returns.
    let fd = unsafe {
        libc::syscall(libc::SYS_perf_event_open, &raw const attr, pid, cpu, -1, PERF_FLAG_FD_CLOEXEC)
    };
    if fd < 0 {
        return Err(format!("opening: {}", io::Error::last_os_error()));
    }
    // SAFETY: perf_event_open returns a new descriptor that nobody else owns.
    let event = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    // SAFETY: this request takes a descriptor by value, and no pointer.
    let done = unsafe {
        libc::ioctl(event.as_raw_fd(), libc::c_ulong::from(PERF_EVENT_IOC_SET_BPF), program.as_raw_fd())
    };
    if done < 0 { Err(format!("attaching: {}", io::Error::last_os_error())) } else { Ok(()) }
}
