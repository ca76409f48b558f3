//! How many bits of physical address a Bochs emulates. It does not say, so a CPU of it is asked: a boot sector executes
//! CPUID and writes the answer to the serial port.

use std::fs::{self, File};
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::bochs::{Bochs, CPU_MODEL};
use super::machine::{CYLINDER, ends_with_us};
use crate::run;

/// mov dx, 0x3fb; mov al, 3; out dx, al: characters of 8 bits. mov eax, 0x80000008; cpuid; mov dx, 0x3f8; out dx, al;
/// hlt; jmp back. EAX 7:0 is the number of bits (Intel SDM, CPUID).
const CODE: [u8; 21] = [
    0xba, 0xfb, 0x03, 0xb0, 0x03, 0xee, 0x66, 0xb8, 0x08, 0x00, 0x00, 0x80, 0x0f, 0xa2, 0xba, 0xf8, 0x03,
    0xee, 0xf4, 0xeb, 0xfd,
];

/// From power-on through the BIOS to the boot sector takes a second.
const LIMIT: Duration = Duration::from_secs(30);

/// Asks; `None` when no answer comes.
///
/// # Errors
/// The machine's files cannot be written, or the emulator cannot be started.
pub fn ask(bochs: &Bochs) -> Result<Option<u8>> {
    let folder = tempfile::tempdir().context("no folder for a machine")?;
    let write = |name: &str, content: &[u8]| {
        fs::write(folder.path().join(name), content).with_context(|| format!("cannot write {name}"))
    };
    let mut sector = vec![0; 512];
    sector[..CODE.len()].copy_from_slice(&CODE);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    write("disk", &sector)?;
    let disk = File::options().write(true).open(folder.path().join("disk")).context("cannot open disk")?;
    disk.set_len(CYLINDER).context("cannot grow disk")?;
    write("bochsrc", configuration(bochs).as_bytes())?;
    let mut command = ends_with_us(&bochs.program);
    command.args(["-q", "-f", "bochsrc"]).current_dir(folder.path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = run::Killed(command.spawn().context("cannot run Bochs")?);
    let start = Instant::now();
    while start.elapsed() < LIMIT {
        let said = fs::read(folder.path().join("console")).unwrap_or_default();
        if let Some(bits) = said.first() {
            return Ok(Some(*bits));
        }
        if child.0.try_wait().context("cannot wait for Bochs")?.is_some() {
            break;
        }
        sleep(Duration::from_millis(50));
    }
    Ok(None)
}

fn configuration(bochs: &Bochs) -> String {
    format!(
        "\
{base}cpu: model={CPU_MODEL}, ips=50000000
memory: guest=32, host=32
ata0-master: type=disk, path=disk, mode=flat
boot: disk
clock: sync=none
",
        base = bochs.configuration(),
    )
}
