//! A quicker machine for what needs no TD: QEMU, which emulates every CPU (TCG) and with it AMD's SVM, but no VMX.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::guest::Boot;
use super::machine::ends_with_us;
use crate::setup::packages;

const PROGRAM: &str = "qemu-system-x86_64";

/// Memory: room for the kernel's own tests.
const MEMORY: &str = "2G";

/// Makes sure that this machine has QEMU.
///
/// # Errors
/// It is missing and cannot be installed.
pub fn ensure() -> Result<()> {
    packages::ensure("QEMU", &[(PROGRAM, "qemu-system-x86")])
}

/// The machine: the same two disks and the same console as Bochs gives, but no boot loader is needed.
pub fn command(boot: &Boot, cpus: u32) -> Command {
    let mut command = ends_with_us(Path::new(PROGRAM));
    command.args(["-accel", "tcg,thread=multi", "-machine", "pc", "-cpu", "max", "-m", MEMORY]);
    command
        .args(["-smp", &cpus.to_string()])
        .arg("-kernel")
        .arg(&boot.kernel)
        .arg("-initrd")
        .arg(&boot.initrd);
    command.args(["-append", "console=ttyS0,115200 printk.time=1 panic=0 random.trust_cpu=on quiet"]);
    command.args([
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
        "-serial",
        "file:console",
    ]);
    for (index, image) in ["in.img", "out.img"].iter().enumerate() {
        command.arg("-drive").arg(format!("file={image},format=raw,if=ide,index={index}"));
    }
    command
}
