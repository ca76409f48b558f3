//! One emulated machine: its configuration, its two data disks, its life. What runs in it is not known here.
//!
//! Files go in as a tar archive on the first disk and come out as one on the second; the serial port is the console.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::bochs::{Bochs, CPU_MODEL};
use super::guest::Boot;
use super::tcg;
use crate::run;

/// Emulated instructions per emulated second. The host manages about four times as many: time runs fast inside.
const IPS: u32 = 50_000_000;

/// What `tsc_early_khz` must be on the kernel's command line.
pub const TSC_KHZ: u32 = IPS / 1000;

/// Memory in MiB; and where the initrd is larger than a quarter of that, for it is there twice while it is unpacked.
const MEMORY: u64 = 1024;
const MUCH_MEMORY: u64 = 2048;

/// A cylinder of 16 heads and 63 sectors: Bochs wants disks of whole ones.
pub const CYLINDER: u64 = 16 * 63 * 512;
const OUT_CYLINDERS: u64 = 256;

/// The console says this when the second disk holds all that is to come out.
pub const DONE: &str = "LAB-DONE";

/// What a crash kernel says when it has read the memory of the one before.
pub const DUMP_READ: &str = "LAB-DUMP-READ";

/// What a kernel that panicked says last.
const PANICKED: &str = "---[ end Kernel panic";

/// MSR 0x87, IA32_MKTME_KEYID_PARTITIONING: no MKTME key ids, 255 of TDX (`SOFTTDX_MAX_HKIDS` less one). The columns
/// are in Bochs' msrs.def.
const MSRS: &str = "0x087     0    000000ff   00000000    00000000   00000000   00000000   00000000\n";

/// How often the console is looked at.
const POLL: Duration = Duration::from_millis(50);

/// How a machine's life ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    Done,
    /// The kernel panicked, and no other has begun.
    Panicked,
    /// A crash kernel began, and has read its dump.
    CrashKernel,
    /// The time that was given is over.
    TimedOut,
    /// The emulator ended before the guest said that it is done.
    Died,
}

/// What emulates a machine.
pub enum Emulator {
    Bochs(Bochs),
    Tcg,
}

/// A machine with its files in a folder of its own.
pub struct Machine {
    folder: PathBuf,
    command: Command,
}

impl Machine {
    /// Writes a machine's files: configuration, and `input` (a folder) on the first disk.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn prepare(emulator: &Emulator, folder: &Path, boot: &Boot, input: &Path, cpus: u32) -> Result<Self> {
        let command = match emulator {
            Emulator::Bochs(bochs) => {
                write(folder, "msrs.def", MSRS)?;
                let initrd = fs::metadata(&boot.initrd).context("no initrd")?.len() >> 20;
                let memory = if initrd > MEMORY / 4 { MUCH_MEMORY } else { MEMORY };
                write(folder, "bochsrc", &configuration(bochs, &boot.cd, cpus, memory))?;
                let mut command = ends_with_us(&bochs.program);
                command.args(["-q", "-f", "bochsrc"]);
                command
            }
            Emulator::Tcg => tcg::command(boot, cpus),
        };
        let disk = folder.join("in.img");
        run::quiet(Command::new("tar").arg("-C").arg(input).arg("-cf").arg(&disk).arg("."))?;
        grow(&disk, fs::metadata(&disk).context("no first disk")?.len())?;
        let out = folder.join("out.img");
        File::create(&out).with_context(|| format!("cannot create {}", out.display()))?;
        grow(&out, OUT_CYLINDERS * CYLINDER)?;
        Ok(Self { folder: folder.to_owned(), command })
    }

    /// Where the console's output is.
    pub fn console(&self) -> PathBuf {
        self.folder.join("console")
    }

    /// Runs the machine until its guest is done, with what the console says going to `watch` as it comes.
    ///
    /// # Errors
    /// The emulator cannot be started.
    pub fn run(&mut self, limit: Duration, mut watch: impl FnMut(&str)) -> Result<End> {
        let log = self.folder.join("emulator.out");
        let out = File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let errors = out.try_clone().context("cannot share the emulator's log")?;
        self.command.current_dir(&self.folder).stdin(Stdio::null()).stdout(out).stderr(errors);
        let child =
            self.command.spawn().with_context(|| format!("cannot run `{}`", run::line(&self.command)))?;
        let mut child = run::Killed(child);
        let start = Instant::now();
        let mut console = Console { path: self.console(), read: 0, text: String::new() };
        loop {
            let ended = child.0.try_wait().context("cannot wait for the emulator")?.is_some();
            watch(console.more());
            let says = |what: &str| console.text.lines().any(|line| line.trim_end() == what);
            if says(DONE) {
                return Ok(End::Done);
            }
            if says(DUMP_READ) {
                return Ok(End::CrashKernel);
            }
            if console.text.contains(PANICKED) {
                return Ok(End::Panicked);
            }
            if ended {
                return Ok(End::Died);
            }
            if start.elapsed() > limit {
                return Ok(End::TimedOut);
            }
            std::thread::sleep(POLL);
        }
    }

    /// Unpacks what the guest left on the second disk.
    ///
    /// # Errors
    /// It is not an archive.
    pub fn unpack(&self, to: &Path) -> Result<()> {
        fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
        run::quiet(Command::new("tar").arg("-C").arg(to).arg("-xf").arg(self.folder.join("out.img")))?;
        Ok(())
    }
}

/// An emulator that the kernel ends with the thread that runs it, also where that has no time to (SIGKILL, SIGTERM).
pub fn ends_with_us(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    let path = folder.join(name);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

struct Console {
    path: PathBuf,
    read: u64,
    text: String,
}

impl Console {
    /// What came since the last call.
    fn more(&mut self) -> &str {
        let before = self.text.len();
        let mut bytes = Vec::new();
        if let Ok(mut file) = File::open(&self.path)
            && file.seek(SeekFrom::Start(self.read)).is_ok()
            && let Ok(length) = file.read_to_end(&mut bytes)
        {
            self.read += length as u64;
            self.text += &String::from_utf8_lossy(&bytes);
        }
        &self.text[before..]
    }
}

/// Makes a file as long as a disk of whole cylinders that holds so many bytes.
fn grow(path: &Path, bytes: u64) -> Result<()> {
    let file = File::options().write(true).open(path);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    let length = bytes.max(1).next_multiple_of(CYLINDER);
    file.set_len(length)
        .and_then(|()| (&file).flush())
        .with_context(|| format!("cannot grow {}", path.display()))
}

/// AMX would break the kernel's XSETBV, and LA57 trips a check of Bochs.
fn configuration(bochs: &Bochs, cd: &Path, cpus: u32, memory: u64) -> String {
    format!(
        "\
{base}cpu: model={CPU_MODEL}, count={cpus}, ips={IPS}, ignore_bad_msrs=1, msrs=msrs.def, reset_on_triple_fault=0, \
exclude_features=\"amx,amx_int8,amx_bf16,la57\"
memory: guest={memory}, host={memory}
ata0-master: type=cdrom, path={cd}, status=inserted
ata1: enabled=1, ioaddr1=0x170, ioaddr2=0x370, irq=15
ata1-master: type=disk, path=in.img, mode=flat
ata1-slave: type=disk, path=out.img, mode=flat
boot: cdrom
pci: enabled=1, chipset=i440fx
clock: sync=none, time0=utc
error: action=report
info: action=ignore
debug: action=ignore
",
        base = bochs.configuration(),
        cd = cd.display(),
    )
}
