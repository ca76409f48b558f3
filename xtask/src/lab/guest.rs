//! What is inside a machine: BusyBox, KVM's modules, the lab's VMM, septwatch, and an init that runs what the first
//! disk says and leaves all it produced on the second.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::boot::{self, Initrd};
use super::kernel::Image;
use super::scenario::{Kind, Vmm};
use super::{machine, place, qemu, selftests};
use crate::step::{Outcome, step};
use crate::{build, run, setup};

/// The target under which programs for a machine are linked statically.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Runs `/in/run` and leaves `/out` on the second disk. `septwatch` writes there too. The kernel looks at both disks'
/// controllers at once, and may name either first: the one that is an archive is that to read.
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
vendor=kvm-intel
grep -q AuthenticAMD /proc/cpuinfo && vendor=kvm-amd
for module in $(cat /modules/$vendor.order); do
  options=
  [ $module = kvm-intel.ko ] && options=tdx=1
  insmod /modules/$module $options || echo \"LAB: insmod $module failed\"
done
# QEMU has a root of its own, with the libraries of its distribution.
if [ -d /qemu ]; then
  for folder in dev proc sys out; do
    mkdir -p /qemu/$folder
    mount --bind /$folder /qemu/$folder
  done
  mkdir -p /qemu/tmp
fi
for tenth in $(seq 100); do [ -b /dev/sda ] && [ -b /dev/sdb ] && break; usleep 100000; done
disk=/dev/sda out=/dev/sdb
tar -tf $disk ./run >/dev/null 2>&1 || { disk=/dev/sdb; out=/dev/sda; }
tar -xf $disk -C /in || echo 'LAB: neither disk is the archive'
cd /tmp
sh /in/run
dmesg > /out/dmesg
for file in state owned frames calls inject; do
  cat /sys/kernel/debug/softtdx/$file > /out/$file 2>/dev/null
done
tar -cf $out -C /out . && sync
echo
echo LAB-DONE
sleep 1000
";

/// What `/in/run` is for a scenario: septwatch watches, with these `$options`, the VMM runs the script.
pub const RUN_SCENARIO: &str = "\
# With a VMM that is not the lab's, the system calls that take pages from a TD are worth knowing.
if [ -d /qemu ]; then
  cd /sys/kernel/tracing
  echo mono >trace_clock
  echo 'p:lab/set_memory_attributes kvm_vm_ioctl cmd=%si:x32 gpa=+u0(%dx):x64 size=+u8(%dx):x64 attributes=+u16(%dx):x64' >kprobe_events
  echo 'p:lab/fallocate kvm_gmem_fallocate mode=%si:x32 offset=%dx:x64 size=%cx:x64' >>kprobe_events
  # KVM_SET_MEMORY_ATTRIBUTES
  echo 'cmd == 0x4020aed2' >events/lab/set_memory_attributes/filter
  echo 1 >events/lab/enable
  cd /tmp
fi
watcher=
if [ -x /bin/septwatch ]; then
  septwatch ${watch:-watch} --json $options >/out/septwatch.json 2>/out/septwatch.err &
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
if [ -d /qemu ]; then
  cat /sys/kernel/tracing/trace >/out/syscalls
fi
";

/// What a machine boots from.
pub struct Boot {
    pub kernel: PathBuf,
    pub initrd: PathBuf,
    /// With both on it; only machines with a boot loader have one.
    pub cd: PathBuf,
}

/// The tree's programs, as they are now.
pub struct Programs {
    lab_vmm: PathBuf,
    septwatch: Option<PathBuf>,
}

impl Programs {
    /// Builds them. `septwatch` is used instead of the tree's, where given.
    ///
    /// # Errors
    /// One cannot be built.
    pub fn build(septwatch: Option<&Path>) -> Result<Self> {
        setup::packages::ensure("boot tools", &boot::TOOLS)?;
        Ok(Self { lab_vmm: lab_vmm()?, septwatch: self::septwatch(septwatch)? })
    }

    /// Makes what a machine of this kind boots from, with this VMM in it.
    ///
    /// # Errors
    /// The VMM cannot be fetched or built, or a file cannot be written.
    pub fn boot(&self, image: &Image, vmm: Vmm, kind: Kind) -> Result<Boot> {
        let mut initrd = Initrd::default();
        match vmm {
            Vmm::Lab => {}
            Vmm::Qemu => qemu::ensure()?.add_to(&mut initrd)?,
            Vmm::Selftests => {
                for program in selftests::ensure(image)? {
                    let name = program.file_name().unwrap_or_default();
                    initrd.program(&format!("bin/{}", name.display()), &program)?;
                }
            }
        }
        step("boot disk", || {
            self.fill(&mut initrd, image)?;
            // In the target folder, not in the cache: it holds this tree's programs.
            let folder = target_folder().join("lab/boot");
            fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
            let name = format!("{}-{vmm:?}-{kind:?}", image.name).to_lowercase();
            let boot = Boot {
                kernel: image.folder.join("bzImage"),
                initrd: folder.join(format!("{name}.cpio")),
                cd: folder.join(format!("{name}.iso")),
            };
            initrd.write(&boot.initrd)?;
            let made = match kind {
                Kind::Bochs => {
                    boot::cd(&boot.kernel, &boot.initrd, machine::TSC_KHZ, &boot.cd)?;
                    &boot.cd
                }
                Kind::Qemu => &boot.initrd,
            };
            Ok((Outcome::Done(made.display().to_string()), boot))
        })
    }

    /// What is in every machine.
    fn fill(&self, initrd: &mut Initrd, image: &Image) -> Result<()> {
        initrd.text("init", INIT);
        initrd.program("bin/busybox", Path::new("/bin/busybox"))?;
        initrd.file("bin/lab-vmm", &self.lab_vmm)?;
        if let Some(septwatch) = &self.septwatch {
            initrd.program("bin/septwatch", septwatch)?;
        }
        let built = fs::read_dir(&image.folder);
        for entry in built.with_context(|| format!("cannot read {}", image.folder.display()))? {
            let from = entry.with_context(|| format!("cannot read {}", image.folder.display()))?.path();
            if from.extension().is_some_and(|extension| extension == "ko" || extension == "order") {
                let name = from.file_name().unwrap_or_default();
                initrd.file(&format!("modules/{}", name.display()), &from)?;
            }
        }
        Ok(())
    }
}

/// The lab's VMM, linked statically, in a target folder of its own: other flags, other objects.
fn lab_vmm() -> Result<PathBuf> {
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
    let stripped = stripped();
    fs::create_dir_all(target_folder().join("lab")).context("cannot create the lab's target folder")?;
    run::quiet(Command::new("objcopy").arg("--strip-debug").arg(&program).arg(&stripped))?;
    Ok(Some(stripped))
}

/// The septwatch that machines have.
pub fn stripped() -> PathBuf {
    target_folder().join("lab/septwatch")
}

/// Where cargo builds this workspace.
pub fn target_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| place::repository().join("target"), PathBuf::from)
}
