//! The bpf(2) calls that aya does not make: programs at functions of modules, links of our own, pins of both.
//!
//! aya loads a program at a function of vmlinux only: it never gives the kernel the descriptor of a module's BTF.

use std::{
    ffi::{CStr, CString},
    fs::File,
    io::{self, Read as _},
    mem::{self, size_of},
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use aya::Pod;
use aya_obj::generated::{
    bpf_attach_type, bpf_attr, bpf_btf_info, bpf_cmd, bpf_func_info, bpf_insn, bpf_prog_info, bpf_prog_type,
};

/// Bytes of the verifier's words that go into an error: its last ones.
const LOG: usize = 1 << 20;
const LOG_TAIL: usize = 600;

/// A call was refused.
#[derive(Debug, thiserror::Error)]
#[error("bpf({call}): {source}{log}")]
pub struct BpfError {
    /// The command.
    pub call: &'static str,
    /// Why.
    pub source: io::Error,
    /// What the verifier said, if it was the verifier; begins with a colon.
    pub log: String,
}

fn refused(call: &'static str) -> impl FnOnce(io::Error) -> BpfError {
    move |source| BpfError { call, source, log: String::new() }
}

fn zeroed() -> bpf_attr {
    // SAFETY: a union of plain numbers, for which all zeros are valid, and what the kernel wants of unused fields.
    unsafe { mem::zeroed() }
}

fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<libc::c_long> {
    // SAFETY: the attribute is valid for the whole call; what it points to is its caller's, and outlives it.
    let ret = unsafe {
        libc::syscall(libc::SYS_bpf, command as libc::c_long, std::ptr::from_mut(attr), size_of::<bpf_attr>())
    };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(ret) }
}

fn descriptor(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<OwnedFd> {
    let fd = bpf(command, attr)?;
    // SAFETY: the kernel has just made this descriptor, and nobody else has it. It fits: descriptors are ints.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// The types of a program's functions.
#[derive(Clone, Copy)]
pub struct Types<'a> {
    /// The object's own BTF.
    pub btf: BorrowedFd<'a>,
    /// Which function is where.
    pub functions: &'a [bpf_func_info],
}

/// A program for a point of the kernel that BTF describes: the entry or the return of a function, a tracepoint, a security
/// hook.
pub struct Tracing<'a> {
    /// The program's name.
    pub name: &'a str,
    /// Its instructions, relocated.
    pub instructions: &'a [bpf_insn],
    /// Its licence.
    pub license: &'a CStr,
    /// What its functions are: needed by those that call others, or lend one to a helper.
    pub types: Option<Types<'a>>,
    /// What kind of point: it decides the kind of program.
    pub attach_type: bpf_attach_type,
    /// BTF of the module that has the function; none for vmlinux.
    pub module: Option<BorrowedFd<'a>>,
    /// The id in it, of the function or of the tracepoint's typedef.
    pub function: u32,
}

impl Tracing<'_> {
    /// Puts it into the kernel.
    ///
    /// # Errors
    /// The kernel refuses it; the end of the verifier's log is in the error.
    pub fn load(&self) -> Result<OwnedFd, BpfError> {
        self.load_with(&mut []).or_else(|_| {
            let mut log = vec![0; LOG];
            self.load_with(&mut log).map_err(|source| {
                let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
                let text = String::from_utf8_lossy(&log[end.saturating_sub(LOG_TAIL)..end]);
                BpfError { call: "PROG_LOAD", source, log: format!(": {}", text.trim()) }
            })
        })
    }

    fn load_with(&self, log: &mut [u8]) -> io::Result<OwnedFd> {
        let mut attr = zeroed();
        // SAFETY: the field of the union that PROG_LOAD reads; all of it is zero.
        let load = unsafe { &mut attr.__bindgen_anon_3 };
        let kind = match self.attach_type {
            bpf_attach_type::BPF_LSM_MAC => bpf_prog_type::BPF_PROG_TYPE_LSM,
            _ => bpf_prog_type::BPF_PROG_TYPE_TRACING,
        };
        load.prog_type = kind as u32;
        load.expected_attach_type = self.attach_type as u32;
        load.insns = self.instructions.as_ptr() as u64;
        load.insn_cnt = u32::try_from(self.instructions.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        load.license = self.license.as_ptr() as u64;
        // The kernel keeps 15 bytes and a zero.
        for (to, from) in load.prog_name.iter_mut().zip(self.name.bytes().take(15)) {
            *to = from as libc::c_char;
        }
        load.attach_btf_id = self.function;
        load.__bindgen_anon_1.attach_btf_obj_fd = self.module.map_or(0, |btf| btf.as_raw_fd() as u32);
        if let Some(Types { btf, functions }) = self.types {
            load.prog_btf_fd = btf.as_raw_fd() as u32;
            load.func_info = functions.as_ptr() as u64;
            load.func_info_cnt = functions.len() as u32;
            load.func_info_rec_size = size_of::<bpf_func_info>() as u32;
        }
        if !log.is_empty() {
            load.log_level = 1;
            load.log_size = log.len() as u32;
            load.log_buf = log.as_mut_ptr() as u64;
        }
        descriptor(bpf_cmd::BPF_PROG_LOAD, &mut attr)
    }
}

/// Puts types into the kernel, in the format that the object has them in.
///
/// # Errors
/// The kernel does not take them.
pub fn load_btf(types: &[u8]) -> Result<OwnedFd, BpfError> {
    let mut attr = zeroed();
    // SAFETY: the field of the union that BTF_LOAD reads; all of it is zero.
    let load = unsafe { &mut attr.__bindgen_anon_7 };
    load.btf = types.as_ptr() as u64;
    load.btf_size = types.len() as u32;
    descriptor(bpf_cmd::BPF_BTF_LOAD, &mut attr).map_err(refused("BTF_LOAD"))
}

/// Attaches a program where it belongs: to the function that it was loaded for, or to the raw tracepoint of this name.
/// It is detached when the descriptor and every pin of it are gone.
///
/// # Errors
/// There is no such tracepoint, or the function cannot be traced.
pub fn attach(program: BorrowedFd<'_>, tracepoint: Option<&str>) -> Result<OwnedFd, BpfError> {
    let failed = refused("RAW_TRACEPOINT_OPEN");
    let Ok(name) = tracepoint.map(CString::new).transpose() else {
        return Err(failed(io::ErrorKind::InvalidInput.into()));
    };
    let mut attr = zeroed();
    attr.raw_tracepoint.prog_fd = program.as_raw_fd() as u32;
    attr.raw_tracepoint.name = name.as_ref().map_or(0, |name| name.as_ptr() as u64);
    descriptor(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &mut attr).map_err(failed)
}

/// Runs a raw tracepoint's program once, on this CPU, with these arguments; its answer.
///
/// # Errors
/// The kernel does not run it.
pub fn run(program: BorrowedFd<'_>, arguments: &[u64; 4]) -> Result<u32, BpfError> {
    let mut attr = zeroed();
    attr.test.prog_fd = program.as_raw_fd() as u32;
    attr.test.ctx_in = arguments.as_ptr() as u64;
    attr.test.ctx_size_in = size_of_val(arguments) as u32;
    bpf(bpf_cmd::BPF_PROG_TEST_RUN, &mut attr).map_err(refused("PROG_TEST_RUN"))?;
    // SAFETY: the kernel has written it.
    Ok(unsafe { attr.test.retval })
}

/// Runs an iterator's program over all that there is; it prints nothing.
///
/// # Errors
/// The kernel does not run it.
pub fn iterate(program: BorrowedFd<'_>) -> Result<(), BpfError> {
    let mut attr = zeroed();
    attr.link_create.__bindgen_anon_1.prog_fd = program.as_raw_fd() as u32;
    attr.link_create.attach_type = bpf_attach_type::BPF_TRACE_ITER as u32;
    let link = descriptor(bpf_cmd::BPF_LINK_CREATE, &mut attr).map_err(refused("LINK_CREATE"))?;
    let mut attr = zeroed();
    attr.iter_create.link_fd = link.as_raw_fd() as u32;
    let mut all =
        File::from(descriptor(bpf_cmd::BPF_ITER_CREATE, &mut attr).map_err(refused("ITER_CREATE"))?);
    loop {
        match all.read(&mut [0; 64]) {
            Ok(0) => return Ok(()),
            // It pauses after a million (bpf_seq_read).
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(refused("iterator")(error)),
        }
    }
}

fn path_of(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// Gives a program, link or map a name in a bpffs, under which it lives on.
///
/// # Errors
/// The folder is not in a bpffs, or something has the name.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> Result<(), BpfError> {
    let run = || {
        let name = path_of(path)?;
        let mut attr = zeroed();
        // SAFETY: the field of the union that OBJ_PIN reads; all of it is zero.
        let pin = unsafe { &mut attr.__bindgen_anon_4 };
        pin.pathname = name.as_ptr() as u64;
        pin.bpf_fd = object.as_raw_fd() as u32;
        bpf(bpf_cmd::BPF_OBJ_PIN, &mut attr)
    };
    run().map(drop).map_err(refused("OBJ_PIN"))
}

/// Opens what is pinned there.
///
/// # Errors
/// Nothing is.
pub fn open(path: &Path) -> Result<OwnedFd, BpfError> {
    let run = || {
        let name = path_of(path)?;
        let mut attr = zeroed();
        // SAFETY: the field of the union that OBJ_GET reads; all of it is zero.
        let get = unsafe { &mut attr.__bindgen_anon_4 };
        get.pathname = name.as_ptr() as u64;
        descriptor(bpf_cmd::BPF_OBJ_GET, &mut attr)
    };
    run().map_err(refused("OBJ_GET"))
}

/// The BTF of a loaded module, by the module's name.
///
/// # Errors
/// There is none of this name; looking needs CAP_SYS_ADMIN.
pub fn module_btf(module: &str) -> Result<OwnedFd, BpfError> {
    let mut id = 0;
    loop {
        let mut attr = zeroed();
        attr.__bindgen_anon_6.__bindgen_anon_1.start_id = id;
        bpf(bpf_cmd::BPF_BTF_GET_NEXT_ID, &mut attr).map_err(refused("BTF_GET_NEXT_ID"))?;
        // SAFETY: the kernel has written it.
        id = unsafe { attr.__bindgen_anon_6.next_id };
        let mut attr = zeroed();
        attr.__bindgen_anon_6.__bindgen_anon_1.btf_id = id;
        let Ok(btf) = descriptor(bpf_cmd::BPF_BTF_GET_FD_BY_ID, &mut attr) else { continue };
        if name_of(btf.as_fd()).is_ok_and(|name| name == module.as_bytes()) {
            return Ok(btf);
        }
    }
}

/// The name of a BTF object: `vmlinux`, or that of its module.
fn name_of(btf: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let mut name = vec![0; 64];
    // SAFETY: a struct of plain numbers.
    let mut info: bpf_btf_info = unsafe { mem::zeroed() };
    info.name = name.as_mut_ptr() as u64;
    info.name_len = name.len() as u32;
    info_of(btf, &mut info)?;
    name.truncate(name.iter().position(|byte| *byte == 0).unwrap_or(0));
    Ok(name)
}

/// When a program was loaded, in ns of CLOCK_BOOTTIME.
///
/// # Errors
/// The kernel does not tell.
pub fn loaded_ns(program: BorrowedFd<'_>) -> Result<u64, BpfError> {
    // SAFETY: a struct of plain numbers.
    let mut info: bpf_prog_info = unsafe { mem::zeroed() };
    info_of(program, &mut info).map_err(refused("OBJ_GET_INFO_BY_FD"))?;
    Ok(info.load_time)
}

/// The first `count` values of an array, in one call: one for each would take several times as long.
///
/// # Errors
/// The kernel refuses.
pub fn values<V: Pod>(array: BorrowedFd<'_>, count: u32) -> Result<Vec<V>, BpfError> {
    // SAFETY: plain data, for which all zeros are valid.
    let mut values: Vec<V> = vec![unsafe { mem::zeroed() }; count as usize];
    // The kernel tells them, too, and where it stopped.
    let (mut keys, mut next) = (vec![0_u32; count as usize], 0_u32);
    let mut attr = zeroed();
    attr.batch.map_fd = array.as_raw_fd() as u32;
    attr.batch.out_batch = (&raw mut next) as u64;
    attr.batch.keys = keys.as_mut_ptr() as u64;
    attr.batch.values = values.as_mut_ptr() as u64;
    attr.batch.count = count;
    match bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr) {
        // The array ends there.
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(refused("MAP_LOOKUP_BATCH")(error)),
        _ => {
            // SAFETY: the field of the union that was used above; the kernel wrote how many there were.
            values.truncate(unsafe { attr.batch.count } as usize);
            Ok(values)
        }
    }
}

/// What the kernel tells of an object, in the struct of its kind; what that points to stays as long as the call.
fn info_of<T>(object: BorrowedFd<'_>, info: &mut T) -> io::Result<()> {
    let mut attr = zeroed();
    attr.info.bpf_fd = object.as_raw_fd() as u32;
    attr.info.info_len = size_of::<T>() as u32;
    attr.info.info = std::ptr::from_mut(info) as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr).map(|_| ())
}
