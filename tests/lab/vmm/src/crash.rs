//! Crash kernels: loading one, and what it finds in the memory of the kernel that crashed.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::mem::offset_of;
use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, Result, ensure};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use septwatch_common::Violation;
use septwatch_common::react::{CRASH_MAGIC, CrashNote};

/// `KEXEC_FILE_ON_CRASH`
const ON_CRASH: libc::c_ulong = 2;

/// Puts a kernel into the memory that `crashkernel=` keeps free, for when this one crashes.
///
/// # Errors
/// A file cannot be read, or the kernel does not take them.
pub fn load(kernel: &str, initrd: &str, command_line: &str) -> Result<()> {
    let open = |path: &str| File::open(path).with_context(|| format!("cannot open {path}"));
    let (kernel, initrd) = (open(kernel)?, open(initrd)?);
    let command_line = CString::new(command_line).context("a zero in the command line")?;
    // SAFETY: both descriptors are open, and the text ends in the zero that its length counts.
    let result = unsafe {
        libc::syscall(
            libc::SYS_kexec_file_load,
            kernel.as_raw_fd(),
            initrd.as_raw_fd(),
            command_line.as_bytes_with_nul().len(),
            command_line.as_ptr(),
            ON_CRASH,
        )
    };
    ensure!(result == 0, "kexec_file_load: {}", io::Error::last_os_error());
    Ok(())
}

/// How the software module's counts begin (`softtdx/truth.c`).
const TRUTH_MAGIC: [u8; 16] = *b"softtdx-truth\0\0\0";

/// What follows it there, each of 8 bytes.
const TRUTH: [&str; 5] = ["calls", "failed", "failed_ns", "frames", "frame_ns"];

/// How much of a dump is mapped at a time, how much of that is in the next part, too, and the longest of what is looked
/// for, which is aligned to `WORD`. (Reading it is many times slower: the kernel maps and unmaps every page.)
const PART: u64 = 32 << 20;
const OVERLAP: u64 = 4096;
const LONGEST: usize = 128;
const WORD: usize = 8;

/// Prints a line for each of the notes that septwatch left, `LAB-NOTE`, and for what the software module had counted,
/// `LAB-TRUTH`. A dump has some of the memory twice.
///
/// # Errors
/// The dump cannot be mapped.
pub fn read(dump: &str) -> Result<()> {
    let file = File::open(dump).with_context(|| format!("cannot open {dump}"))?;
    let size = file.metadata().with_context(|| format!("cannot look at {dump}"))?.len();
    let mut told = BTreeSet::new();
    for from in (0..size).step_by(usize::try_from(PART)?) {
        let length = usize::try_from((PART + OVERLAP).min(size - from))?;
        // SAFETY: a new mapping, which nothing else knows of.
        let at =
            unsafe { mmap(std::ptr::null_mut(), length, ProtFlags::READ, MapFlags::PRIVATE, &file, from) };
        let at = at.with_context(|| format!("cannot map {dump} from {from:#x}"))?;
        // SAFETY: it is so long, and holds the memory of a kernel that has ended: it does not change any more.
        look_through(unsafe { std::slice::from_raw_parts(at.cast(), length) }, &mut told);
        // SAFETY: what was found in it was copied.
        unsafe { munmap(at, length) }.context("cannot unmap a dump")?;
    }
    Ok(())
}

/// Word by word, and more only where the first fits: the machine is slow, and its memory large.
fn look_through(memory: &[u8], told: &mut BTreeSet<String>) {
    let firsts = [word(&CRASH_MAGIC, 0), word(&TRUTH_MAGIC, 0)];
    let (words, _) = memory.as_chunks::<WORD>();
    for (n, bytes) in words.iter().enumerate() {
        if firsts.contains(&u64::from_le_bytes(*bytes))
            && let Some(line) = memory.get(n * WORD..n * WORD + LONGEST).and_then(found)
            && !told.contains(&line)
        {
            println!("{line}");
            told.insert(line);
        }
    }
}

/// What begins here, if anything does.
fn found(memory: &[u8]) -> Option<String> {
    match *memory.first_chunk::<16>()? {
        CRASH_MAGIC => note(memory),
        TRUTH_MAGIC => {
            let counts = TRUTH.iter().enumerate();
            let words = counts.map(|(n, name)| format!(" {name}={}", word(memory, 16 + n * WORD)));
            Some(format!("LAB-TRUTH{}", words.collect::<String>()))
        }
        _ => None,
    }
}

/// The programs that know how a note begins have these bytes too, with something else behind them.
fn note(memory: &[u8]) -> Option<String> {
    let word = |at: usize| word(memory, at);
    let half = |at: usize| word(at) as u32;
    let note = CrashNote {
        magic: CRASH_MAGIC,
        wanted_ns: word(offset_of!(CrashNote, wanted_ns)),
        pfn: word(offset_of!(CrashNote, pfn)),
        gfn: word(offset_of!(CrashNote, gfn)),
        td: word(offset_of!(CrashNote, td)),
        status: word(offset_of!(CrashNote, status)),
        leaf: half(offset_of!(CrashNote, leaf)),
        violation: half(offset_of!(CrashNote, violation)),
        rule: half(offset_of!(CrashNote, rule)),
        zero: half(offset_of!(CrashNote, zero)),
        check: word(offset_of!(CrashNote, check)),
    };
    if note.wanted_ns == 0 || note.check != note.sum() {
        return None;
    }
    let violation = Violation::ALL.get(note.violation as usize)?.name();
    let CrashNote { wanted_ns, pfn, gfn, td, status, leaf, rule, .. } = note;
    Some(format!(
        "LAB-NOTE wanted_ns={wanted_ns} violation={violation} leaf={leaf} status={status:#018x} td={td} gfn={gfn:#x} \
         pfn={pfn:#x} rule={rule}"
    ))
}

fn word(memory: &[u8], at: usize) -> u64 {
    memory[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_told_from_its_beginning_alone() {
        let mut memory = vec![0u8; LONGEST];
        memory[..16].copy_from_slice(&CRASH_MAGIC);
        assert_eq!(found(&memory), None, "no time: nothing was decided");
        let mut put = |at: usize, byte: u8| {
            memory[at] = byte;
            found(&memory)
        };
        put(offset_of!(CrashNote, wanted_ns), 7);
        put(offset_of!(CrashNote, td), 3);
        put(offset_of!(CrashNote, leaf), 29);
        let violation = Violation::ZapFailed as u8;
        assert_eq!(put(offset_of!(CrashNote, violation), violation), None, "what only begins as one");
        put(offset_of!(CrashNote, check), 7 ^ 3 ^ 29);
        let line = put(offset_of!(CrashNote, check) + 4, violation);
        assert_eq!(
            line.as_deref(),
            Some(
                "LAB-NOTE wanted_ns=7 violation=zap-failed leaf=29 status=0x0000000000000000 td=3 gfn=0x0 pfn=0x0 rule=0"
            )
        );
        assert_eq!(put(offset_of!(CrashNote, gfn) + 3, 1), None, "another frame than the sum's");
    }

    #[test]
    fn what_is_in_a_dump_twice_is_told_once() {
        let mut memory = vec![0u8; 4 * LONGEST];
        for at in [WORD, 2 * LONGEST] {
            memory[at..at + 16].copy_from_slice(&TRUTH_MAGIC);
        }
        // What is cut off is in the next part.
        let end = memory.len() - 16;
        memory[end..].copy_from_slice(&CRASH_MAGIC);
        let mut told = BTreeSet::new();
        look_through(&memory, &mut told);
        assert_eq!(told.len(), 1);
    }

    #[test]
    fn the_modules_counts_are_read() {
        let mut memory = vec![0u8; LONGEST];
        memory[..16].copy_from_slice(&TRUTH_MAGIC);
        memory[16] = 9;
        memory[40] = 1;
        let line = found(&memory).unwrap_or_default();
        assert_eq!(line, "LAB-TRUTH calls=9 failed=0 failed_ns=0 frames=1 frame_ns=0");
    }
}
