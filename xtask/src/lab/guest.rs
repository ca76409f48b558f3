//! What is inside a machine: BusyBox, KVM's modules, the lab's VMM, septwatch, and an init that runs what the first
//! disk says and leaves all it produced on the second.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::boot::{self, Initrd};
use super::kernel::{Image, MODULES};
use super::{machine, place};
use crate::step::{Outcome, step};
use crate::{build, run, setup};

/// The target under which programs for a machine are linked statically.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Runs `/in/run` and leaves `/out` on the second disk. `septwatch` writes there too.
const INIT: &str = "\
#!/bin/busybox sh
/bin/busybox mkdir -p /bin /proc /sys /dev /tmp /run /in /out
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
mount -t tmpfs none /tmp
mount -t debugfs none /sys/kernel/debug
mount -t tracefs none /sys/kernel/tracing
mount -t bpf none /sys/fs/bpf
mount -t securityfs none /sys/kernel/security 2>/dev/null
ip link set lo up 2>/dev/null
for module in irqbypass kvm kvm-intel; do
  [ -e /modules/$module.ko ] || continue
  options=
  [ $module = kvm-intel ] && options=tdx=1
  insmod /modules/$module.ko $options || echo \"LAB: insmod $module failed\"
done
tar -xf /dev/sda -C /in || echo 'LAB: the first disk is no archive'
cd /tmp
sh /in/run
dmesg > /out/dmesg
for file in state owned frames calls inject; do
  cat /sys/kernel/debug/softtdx/$file > /out/$file 2>/dev/null
done
tar -cf /dev/sdb -C /out . && sync
echo
echo LAB-DONE
sleep 1000
";

/// What `/in/run` is for a scenario: septwatch watches, the VMM runs the script.
pub const RUN_SCENARIO: &str = "\
watcher=
if [ -x /bin/septwatch ]; then
  septwatch watch --json >/out/septwatch.json 2>/out/septwatch.err &
  watcher=$!
  for second in $(seq 400); do
    grep -q '\"type\":\"start\"' /out/septwatch.json && break
    kill -0 $watcher 2>/dev/null || break
    sleep 1
  done
fi
lab-vmm /in/script >/out/vmm 2>&1
echo $? >/out/vmm.code
if [ -n \"$watcher\" ]; then
  sleep 1
  kill -TERM $watcher
  wait $watcher
  echo $? >/out/septwatch.code
fi
";

/// Makes the CD for this kernel with what the tree's programs are now.
///
/// # Errors
/// A program cannot be built, or the CD cannot be made.
pub fn cd(image: &Image, septwatch: Option<&Path>) -> Result<PathBuf> {
    setup::packages::ensure("boot tools", &boot::TOOLS)?;
    let vmm = vmm()?;
    let septwatch = self::septwatch(septwatch)?;
    step("boot disk", || {
        let mut initrd = Initrd::default();
        initrd.text("init", INIT);
        initrd.program("bin/busybox", Path::new("/bin/busybox"))?;
        initrd.file("bin/lab-vmm", &vmm)?;
        if let Some(septwatch) = &septwatch {
            initrd.program("bin/septwatch", septwatch)?;
        }
        for module in MODULES {
            let name = Path::new(module).file_name().unwrap_or_default();
            let from = image.folder.join(name);
            if from.is_file() {
                initrd.file(&format!("modules/{}", name.display()), &from)?;
            }
        }
        // Of this tree: another one may make its own at the same time.
        let folder = target_folder().join("lab/boot");
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let archive = folder.join(format!("{}.cpio", image.name));
        initrd.write(&archive)?;
        let cd = folder.join(format!("{}.iso", image.name));
        boot::cd(&image.folder.join("bzImage"), &archive, machine::TSC_KHZ, &cd)?;
        fs::remove_file(&archive).with_context(|| format!("cannot remove {}", archive.display()))?;
        Ok((Outcome::Done(cd.display().to_string()), cd))
    })
}

/// The lab's VMM, linked statically, in a target folder of its own: other flags, other objects.
fn vmm() -> Result<PathBuf> {
    step("lab-vmm", || {
        let target = target_folder().join("lab");
        let mut cargo = setup::cargo()?;
        cargo
            .args(["build", "--release", "--quiet", "--package", "lab-vmm", "--target", TARGET])
            .env("CARGO_TARGET_DIR", &target)
            .env("CARGO_PROFILE_RELEASE_STRIP", "true")
            .env("RUSTFLAGS", "-C target-feature=+crt-static")
            .current_dir(place::tests_lab());
        run::quiet(&mut cargo)?;
        let program = target.join(TARGET).join("release/lab-vmm");
        Ok((Outcome::Present(program.display().to_string()), program))
    })
}

/// septwatch, stripped: the one that is given, else the tree's. Nothing if it cannot watch.
fn septwatch(given: Option<&Path>) -> Result<Option<PathBuf>> {
    let program = match given {
        Some(program) => program.to_owned(),
        None => {
            setup::for_building()?;
            build::septwatch()?
        }
    };
    let help = run::quiet(Command::new(&program).args(["watch", "--help"])).unwrap_or_default();
    if !help.contains("--json") {
        return Ok(None);
    }
    let stripped = target_folder().join("lab/septwatch");
    fs::create_dir_all(target_folder().join("lab")).context("cannot create the lab's target folder")?;
    run::quiet(Command::new("objcopy").arg("--strip-debug").arg(&program).arg(&stripped))?;
    Ok(Some(stripped))
}

/// Where cargo builds this workspace.
pub fn target_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| place::repository().join("target"), PathBuf::from)
}
