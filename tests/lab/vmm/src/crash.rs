//! Crash kernels: loading one, and what it finds in the memory of the kernel that crashed.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _};
use std::mem::offset_of;
use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, Result, ensure};
use septwatch_common::Violation;
use septwatch_common::react::{CRASH_MAGIC, CrashNote, QUICK_RULES};

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

/// How much is read at a time, and how much of it is looked at again with what follows: the longest of what is looked
/// for. Everything that is looked for is aligned to `WORD`.
const CHUNK: usize = 1 << 20;
const AGAIN: usize = 128;
const WORD: usize = 8;

/// Prints a line for each of the notes that septwatch left, `LAB-NOTE`, and for what the software module had counted,
/// `LAB-TRUTH`. A dump has some of the memory twice.
///
/// # Errors
/// The dump cannot be read.
pub fn read(dump: &str) -> Result<()> {
    let mut file = File::open(dump).with_context(|| format!("cannot open {dump}"))?;
    let mut memory = vec![0u8; AGAIN];
    let mut told = BTreeSet::new();
    loop {
        let got = (&mut file).take(CHUNK as u64).read_to_end(&mut memory);
        let got = got.with_context(|| format!("cannot read {dump}"))?;
        // Word by word, and more only where the first fits: the machine is slow, and its memory large.
        let firsts = [word(&CRASH_MAGIC, 0), word(&TRUTH_MAGIC, 0)];
        let (words, _) = memory[..memory.len() - AGAIN].as_chunks::<WORD>();
        for (n, bytes) in words.iter().enumerate() {
            let at = n * WORD;
            if firsts.contains(&u64::from_le_bytes(*bytes))
                && let Some(line) = found(&memory[at..at + AGAIN])
                && !told.contains(&line)
            {
                println!("{line}");
                told.insert(line);
            }
        }
        if got == 0 {
            return Ok(());
        }
        memory.drain(..memory.len() - AGAIN);
    }
}

/// What begins here, if anything does.
fn found(memory: &[u8]) -> Option<String> {
    match memory.first_chunk::<16>()? {
        &CRASH_MAGIC => note(memory),
        &TRUTH_MAGIC => {
            let counts = TRUTH.iter().enumerate();
            let words = counts.map(|(n, name)| format!(" {name}={}", word(memory, 16 + n * WORD)));
            Some(format!("LAB-TRUTH{}", words.collect::<String>()))
        }
        _ => None,
    }
}

/// Numbers of SEAMCALL leaves, and what stands for none in a note.
const LEAVES: u64 = 64;
const NO_LEAF: u64 = 0xff;

/// The programs that know how a note begins have these bytes too, with something else behind them.
fn note(memory: &[u8]) -> Option<String> {
    let half = |at: usize| word(memory, at) & 0xffff_ffff;
    let wanted = word(memory, offset_of!(CrashNote, wanted_ns));
    let violation = Violation::ALL.get(usize::try_from(half(offset_of!(CrashNote, violation))).ok()?)?;
    let (leaf, rule) = (half(offset_of!(CrashNote, leaf)), half(offset_of!(CrashNote, rule)));
    let known = (leaf < LEAVES || leaf == NO_LEAF) && rule < u64::from(QUICK_RULES);
    if wanted == 0 || !known || half(offset_of!(CrashNote, zero)) != 0 {
        return None;
    }
    Some(format!(
        "LAB-NOTE wanted_ns={wanted} violation={} leaf={leaf} status={:#018x} td={} gfn={:#x} pfn={:#x} rule={rule}",
        violation.name(),
        word(memory, offset_of!(CrashNote, status)),
        word(memory, offset_of!(CrashNote, td)),
        word(memory, offset_of!(CrashNote, gfn)),
        word(memory, offset_of!(CrashNote, pfn)),
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
        let mut memory = vec![0u8; AGAIN];
        memory[..16].copy_from_slice(&CRASH_MAGIC);
        assert_eq!(found(&memory), None, "no time: nothing was decided");
        memory[offset_of!(CrashNote, wanted_ns)] = 7;
        memory[offset_of!(CrashNote, td)] = 3;
        memory[offset_of!(CrashNote, leaf)] = 29;
        memory[offset_of!(CrashNote, violation)] = Violation::ZapFailed as u8;
        let line = found(&memory).unwrap_or_default();
        assert_eq!(
            line,
            "LAB-NOTE wanted_ns=7 violation=zap-failed leaf=29 status=0x0000000000000000 td=3 gfn=0x0 pfn=0x0 rule=0"
        );
        for (at, other) in [
            (offset_of!(CrashNote, violation), 200),
            (offset_of!(CrashNote, leaf), 100),
            (offset_of!(CrashNote, rule), 100),
            (offset_of!(CrashNote, zero), 1),
        ] {
            let before = std::mem::replace(&mut memory[at], other);
            assert_eq!(found(&memory), None, "{other} at {at}");
            memory[at] = before;
        }
    }

    #[test]
    fn the_modules_counts_are_read() {
        let mut memory = vec![0u8; AGAIN];
        memory[..16].copy_from_slice(&TRUTH_MAGIC);
        memory[16] = 9;
        memory[40] = 1;
        let line = found(&memory).unwrap_or_default();
        assert_eq!(line, "LAB-TRUTH calls=9 failed=0 failed_ns=0 frames=1 frame_ns=0");
    }
}
