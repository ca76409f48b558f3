//! What a machine boots from: an initrd with everything in it, and a CD with kernel and initrd.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::run;

/// The kernel's command line. `tsc_early_khz` is the machine's instructions per millisecond (`machine::IPS`): with
/// any other value timers run too slowly. A kernel that panics stays as it is.
const COMMAND_LINE: &str = "console=ttyS0,115200 log_buf_len=16M printk.time=1 tsc=reliable no_timer_check idle=halt panic=0 random.trust_cpu=on quiet";

/// What the kernel keeps free for another that begins when it crashes.
const CRASH_MEMORY: &str = "crashkernel=192M";

/// The command line of a kernel that begins when another has crashed.
pub fn crash_command_line(khz: u32) -> String {
    format!(
        "console=ttyS0,115200 tsc=reliable no_timer_check idle=halt panic=0 nr_cpus=1 reset_devices quiet tsc_early_khz={khz}"
    )
}

/// Where Debian keeps isolinux.
const ISOLINUX: &str = "/usr/lib/ISOLINUX/isolinux.bin";
const LDLINUX: &str = "/usr/lib/syslinux/modules/bios/ldlinux.c32";

/// What making a CD needs.
pub const TOOLS: [(&str, &str); 4] = [
    ("xorriso", "xorriso"),
    (ISOLINUX, "isolinux"),
    (LDLINUX, "syslinux-common"),
    ("busybox", "busybox-static"),
];

/// Files for an initrd, by their path in it without the leading slash.
#[derive(Default)]
pub struct Initrd {
    files: BTreeMap<String, Entry>,
}

struct Entry {
    content: Vec<u8>,
    mode: u32,
}

impl Initrd {
    /// Adds a file with this text.
    pub fn text(&mut self, path: &str, text: &str) {
        self.files.insert(path.to_owned(), Entry { content: text.into(), mode: 0o100_755 });
    }

    /// Adds a file of this machine.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn file(&mut self, path: &str, from: &Path) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.files.insert(path.to_owned(), Entry { content, mode: 0o100_755 });
        Ok(())
    }

    /// Adds a program and the libraries that it is linked to, at the paths where they are here.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn program(&mut self, path: &str, from: &Path) -> Result<()> {
        self.file(path, from)?;
        // A static program makes ldd fail: it has none.
        let Ok(text) = run::quiet(Command::new("ldd").arg(from)) else { return Ok(()) };
        for library in libraries(&text) {
            self.file(library.to_string_lossy().trim_start_matches('/'), &library)?;
        }
        Ok(())
    }

    /// Writes it as a cpio archive in the format `newc` (the kernel's Documentation/driver-api/early-userspace).
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, to: &Path) -> Result<()> {
        let mut archive = Vec::new();
        let mut folders = Vec::new();
        for path in self.files.keys() {
            for (end, _) in path.match_indices('/') {
                let folder = &path[..end];
                if !folders.contains(&folder) {
                    folders.push(folder);
                }
            }
        }
        let mut inode = 0;
        for folder in folders {
            inode += 1;
            member(&mut archive, inode, folder, 0o040_755, &[]);
        }
        for (path, entry) in &self.files {
            inode += 1;
            member(&mut archive, inode, path, entry.mode, &entry.content);
        }
        member(&mut archive, 0, "TRAILER!!!", 0, &[]);
        let mut file = fs::File::create(to).with_context(|| format!("cannot create {}", to.display()))?;
        file.write_all(&archive).with_context(|| format!("cannot write {}", to.display()))
    }
}

fn member(archive: &mut Vec<u8>, inode: u32, name: &str, mode: u32, content: &[u8]) {
    let header = format!(
        "070701{inode:08x}{mode:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}",
        0,
        0,
        1,
        0,
        content.len(),
        0,
        0,
        0,
        0,
        name.len() + 1,
        0
    );
    archive.extend(header.bytes());
    archive.extend(name.bytes());
    archive.push(0);
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend(content);
    archive.resize(archive.len().next_multiple_of(4), 0);
}

/// The paths in what `ldd` prints: `libc.so.6 => /lib/x/libc.so.6 (0x…)`, and the loader without an arrow.
fn libraries(text: &str) -> Vec<PathBuf> {
    let words = text.lines().filter_map(|line| {
        let line = line.split_once("=>").map_or(line, |(_, path)| path).trim();
        line.split(' ').next()
    });
    words.filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

/// Makes a CD that boots this kernel with this initrd; with memory for a crash kernel, where asked.
///
/// # Errors
/// A file cannot be copied, or xorriso fails.
pub fn cd(kernel: &Path, initrd: &Path, khz: u32, crash: bool, to: &Path) -> Result<()> {
    let folder = tempfile::tempdir().context("no folder for the CD")?;
    let copy = |from: &Path, name: &str| {
        fs::copy(from, folder.path().join(name)).with_context(|| format!("cannot copy {}", from.display()))
    };
    copy(kernel, "bzimage")?;
    copy(initrd, "initrd")?;
    copy(Path::new(ISOLINUX), "isolinux.bin")?;
    copy(Path::new(LDLINUX), "ldlinux.c32")?;
    let crash = if crash { CRASH_MEMORY } else { "" };
    let config = format!(
        "DEFAULT lab\nPROMPT 0\nLABEL lab\n  KERNEL bzimage\n  INITRD initrd\n  APPEND {COMMAND_LINE} tsc_early_khz={khz} {crash}\n"
    );
    fs::write(folder.path().join("isolinux.cfg"), config).context("cannot write the boot loader's file")?;
    run::quiet(
        Command::new("xorriso")
            .args(["-as", "mkisofs", "-quiet", "-R", "-o"])
            .arg(to)
            .args(["-b", "isolinux.bin", "-c", "boot.cat"])
            .args(["-no-emul-boot", "-boot-load-size", "4", "-boot-info-table"])
            .arg(folder.path()),
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use super::*;

    #[test]
    fn libraries_are_read_from_ldd() {
        let text = "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x2)\n\t/lib64/ld-linux-x86-64.so.2 (0x3)\n";
        let found = libraries(text);
        assert_eq!(
            found,
            [Path::new("/lib/x86_64-linux-gnu/libc.so.6"), Path::new("/lib64/ld-linux-x86-64.so.2")]
        );
        assert!(libraries("\tstatically linked\n").is_empty());
    }

    #[test]
    fn an_initrd_is_a_cpio_archive() {
        if Command::new("cpio").arg("--version").output().is_err() {
            eprintln!("skipped: no cpio to read the archive with");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let mut initrd = Initrd::default();
        initrd.text("init", "#!/bin/sh\n");
        initrd.text("lib/x/y", "abc");
        let path = folder.path().join("initrd");
        initrd.write(&path).unwrap();
        let listed =
            run::quiet(Command::new("sh").arg("-c").arg(format!("cpio -it < {}", path.display()))).unwrap();
        assert_eq!(listed.lines().collect::<Vec<_>>(), ["lib", "lib/x", "init", "lib/x/y"]);
    }
}
