//! The emulator: Bochs, which emulates VMX in software on any CPU, and its two BIOS images.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::{place, width};
use crate::apt::{Index, Private};
use crate::setup::packages;
use crate::step::{Outcome, note, step};
use crate::{lock, run};

/// The suite whose Bochs is built: 3.0 is the first with all that TDX hosts want of a CPU model and is released.
const SUITE: &str = "trixie";
const OLDEST: u32 = 3;

/// The CPU model that KVM takes for one with TDX.
pub const CPU_MODEL: &str = "sapphire_rapids";

const CONFIGURE: [&str; 13] = [
    "--with-nogui",
    "--enable-smp",
    "--enable-x86-64",
    "--enable-vmx=2",
    "--enable-cpu-level=6",
    "--enable-all-optimizations",
    "--enable-long-phy-address",
    "--enable-avx",
    "--enable-evex",
    "--enable-cet",
    "--enable-memtype",
    "--enable-pci",
    "--enable-configurable-msrs",
];

/// Bits of physical address that a TD with 4-level paging wants (KVM checks it in INIT_VM).
const WIDTH: u8 = 48;

/// Bochs emulates 40 where nobody asks for more.
const ADDRESS_WIDTH: (&str, &str) = ("define BX_PHY_ADDRESS_WIDTH 40", "define BX_PHY_ADDRESS_WIDTH 48");

/// A Bochs that can be the lab's machine.
pub struct Bochs {
    pub program: PathBuf,
    pub bios: PathBuf,
    pub vga_bios: PathBuf,
}

impl Bochs {
    /// How every configuration of it begins: no screen, one disk channel, and a serial port that goes to the
    /// file `console`.
    pub fn configuration(&self) -> String {
        format!(
            "\
plugin_ctrl: unmapped=1, biosdev=1, speaker=0, extfpuirq=0, parallel=0, serial=1
config_interface: textconfig
display_library: nogui
romimage: file={bios}
vgaromimage: file={vga}
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
vga: extension=none
com1: enabled=1, mode=file, dev=console
log: bochs.log
panic: action=fatal
",
            bios = self.bios.display(),
            vga = self.vga_bios.display(),
        )
    }
}

/// One that is there, else one that is built.
///
/// # Errors
/// It cannot be fetched or built, or a package is missing that cannot be installed.
pub fn ensure() -> Result<Bochs> {
    let _lock = lock::alone("machine")?;
    if let Some(bochs) = on_path()? {
        return Ok(bochs);
    }
    let known = place::folder("bochs")?;
    let key = place::key(&[SUITE, &CONFIGURE.join(" "), ADDRESS_WIDTH.1]);
    let folder = known.join(key);
    let bochs = Bochs {
        program: folder.join("bochs"),
        bios: folder.join("BIOS-bochs-latest"),
        vga_bios: folder.join("vgabios.bin"),
    };
    if !bochs.program.is_file() {
        packages::ensure("machine tools", &[("g++", "g++"), ("make", "make"), ("xz", "xz-utils")])?;
        step("machine", || {
            build(&bochs, &folder)?;
            Ok((Outcome::Done(format!("Bochs built in {}", folder.display())), ()))
        })?;
    }
    Ok(bochs)
}

/// The one on PATH, if it is new and wide enough and its BIOS images are where the distribution's packages put them.
fn on_path() -> Result<Option<Bochs>> {
    let text = |arguments: &[&str]| {
        let output = Command::new("bochs").args(arguments).output().ok()?;
        Some(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let Some(version) = text(&["--help"]).as_deref().and_then(major_version) else { return Ok(None) };
    let models = text(&["--help", "cpu"]).unwrap_or_default();
    let bios = PathBuf::from("/usr/share/bochs/BIOS-bochs-latest");
    let vga_bios = PathBuf::from("/usr/share/vgabios/vgabios.bin");
    if version < OLDEST || !models.contains(CPU_MODEL) || !bios.is_file() || !vga_bios.is_file() {
        return Ok(None);
    }
    let bochs = Bochs { program: "bochs".into(), bios, vga_bios };
    Ok(match width::ask(&bochs)? {
        Some(bits) if bits >= WIDTH => Some(bochs),
        bits => {
            let bits = bits.map_or("an unknown number of".to_owned(), |bits| bits.to_string());
            note(
                "machine",
                format_args!(
                    "the Bochs on PATH emulates {bits} bits of physical address, {WIDTH} are needed"
                ),
            );
            None
        }
    })
}

/// From `Bochs x86 Emulator 3.0` in the banner.
fn major_version(banner: &str) -> Option<u32> {
    let (_, rest) = banner.split_once("Emulator ")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn build(bochs: &Bochs, folder: &Path) -> Result<()> {
    note("machine", "fetching Bochs");
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let work = tempfile::tempdir_in(place::folder("bochs")?).context("no folder to build in")?;
    fetch_bios(bochs, work.path())?;

    let sources = Private::open(SUITE, Index::Sources)?;
    let versions = sources.versions("bochs")?;
    let version = versions.first().with_context(|| format!("{SUITE} has no source package bochs"))?;
    let archive = sources.download_upstream("bochs", version, work.path())?;
    let tree = work.path().join("tree");
    fs::create_dir(&tree).context("cannot unpack Bochs")?;
    run::quiet(Command::new("tar").arg("-C").arg(&tree).args(["--strip-components=1", "-xf"]).arg(archive))?;
    widen(&tree.join("config.h.in"))?;

    note("machine", format_args!("compiling Bochs {version}"));
    let jobs = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    run::quiet(Command::new("./configure").args(CONFIGURE).current_dir(&tree))?;
    run::quiet(
        run::idle("make").args([&format!("-j{jobs}"), "bochs"]).env_remove("MAKEFLAGS").current_dir(&tree),
    )?;
    fs::copy(tree.join("bochs"), &bochs.program).context("Bochs left no program")?;
    Ok(())
}

fn widen(header: &Path) -> Result<()> {
    let text = fs::read_to_string(header).with_context(|| format!("cannot read {}", header.display()))?;
    ensure!(text.contains(ADDRESS_WIDTH.0), "this Bochs sets its address width elsewhere");
    fs::write(header, text.replace(ADDRESS_WIDTH.0, ADDRESS_WIDTH.1))
        .with_context(|| format!("cannot write {}", header.display()))
}

/// The BIOS images are packages of their own, for any architecture.
fn fetch_bios(bochs: &Bochs, work: &Path) -> Result<()> {
    let binaries = Private::open(SUITE, Index::Binaries)?;
    for (package, inside, to) in [
        ("bochsbios", "usr/share/bochs/BIOS-bochs-latest", &bochs.bios),
        ("vgabios", "usr/share/vgabios/vgabios.bin", &bochs.vga_bios),
    ] {
        let versions = binaries.versions(package)?;
        let Some(version) = versions.first() else { bail!("{SUITE} has no package {package}") };
        let deb = binaries.download_deb(package, version, work)?;
        let unpacked = work.join(package);
        run::quiet(Command::new("dpkg-deb").arg("-x").arg(deb).arg(&unpacked))?;
        fs::copy(unpacked.join(inside), to)
            .with_context(|| format!("{package} {version} has no {inside}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_banner_tells_the_version() {
        assert_eq!(major_version("    Bochs x86 Emulator 3.0\n"), Some(3));
        assert_eq!(major_version("    Bochs x86 Emulator 2.7\n"), Some(2));
        assert_eq!(major_version("no such thing"), None);
    }
}
