//! What is inside a machine: BusyBox, KVM's modules, the lab's VMM, septwatch, and an init that runs what the first
//! disk says and leaves all it produced on the second.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::ValueEnum as _;

use super::boot::{self, Initrd};
use super::kernel::Image;
use super::machines::Wanted;
use super::scenario::{Kind, Vmm};
use super::{costs, machine, place, qemu, selftests};
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
mount -t cgroup2 none /sys/fs/cgroup
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
# A policy must be root's alone, and so must its folder.
chown -R 0:0 /in
chmod 700 /in
[ -f /in/policy.toml ] && chmod 600 /in/policy.toml
if [ -d /crash ]; then
  lab-vmm load-crash-kernel /crash/kernel /crash/initrd \"$(cat /crash/command-line)\" || echo 'LAB: no crash kernel'
fi
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
export watch options
[ -x /bin/septwatch ] && [ -z \"$late\" ] && lab-watch
lab-vmm /in/script >/out/vmm 2>&1
echo $? >/out/vmm.code
if [ -f /tmp/septwatch.pid ]; then
  sleep 1
  kill -TERM $(cat /tmp/septwatch.pid)
  for second in $(seq 400); do [ -f /out/septwatch.code ] && break; sleep 1; done
fi
if [ -d /out/audit ]; then
  cat /out/audit/*.jsonl >/out/audit.jsonl
fi
if [ -d /qemu ]; then
  cat /sys/kernel/tracing/trace >/out/syscalls
fi
";

/// `lab-watch`, in every machine with septwatch: starts it with `$watch` and `$options`, and waits until it watches. A
/// script may start another after it has ended the one before, which may have left half a line.
const WATCH: &str = "\
#!/bin/busybox sh
[ -s /out/septwatch.json ] && echo >>/out/septwatch.json
starts() { grep -c '\"type\":\"start\"' /out/septwatch.json 2>/dev/null; }
before=$(starts)
rm -f /tmp/septwatch.pid /out/septwatch.code
(
  septwatch ${watch:-watch} --json $options >>/out/septwatch.json 2>>/out/septwatch.err </dev/null &
  echo $! >/tmp/septwatch.pid
  wait $!
  echo $? >/out/septwatch.code
) >/dev/null 2>&1 &
for tenth in $(seq 4000); do
  [ \"$(starts)\" != \"$before\" ] && [ -s /out/septwatch.json ] && exit 0
  [ -f /out/septwatch.code ] && break
  usleep 100000
done
echo 'septwatch did not start'
exit 1
";

/// `lab-walked N`: waits until so many TDs that ran already were taken over, whole.
const WALKED: &str = "\
#!/bin/busybox sh
for tenth in $(seq 6000); do
  [ \"$(grep -c '\"walked\":\"complete\"' /out/septwatch.json)\" -ge $1 ] && exit 0
  grep '\"walked\":{\"suspect\"' /out/septwatch.json && exit 1
  [ -f /out/septwatch.code ] && break
  usleep 100000
done
echo 'not so many TDs were taken over'
exit 1
";

/// `lab-compare NAME`, while nothing moves: every line of the ledger, and who owns which frame by the software module.
const COMPARE: &str = "\
#!/bin/busybox sh
mkdir -p /out/cold
cat /sys/kernel/debug/softtdx/owned >/out/cold/$1.owned
septwatch audit --lines >/out/cold/$1.ledger 2>&1
echo code $?
";
/// `lab-audit NAME ARGUMENT...`: what `septwatch audit` says; the answer is its exit code, and how many frames differ.
const AUDIT: &str = "\
#!/bin/busybox sh
mkdir -p /out/cold
name=$1
shift
septwatch audit $* >/out/cold/$name.audit 2>&1
echo code $?, $(grep -c '^  pfn' /out/cold/$name.audit) differ
";

/// The init of a crash kernel: what is in the memory of the one before goes to the console.
const CRASH_INIT: &str = "\
#!/bin/busybox sh
/bin/busybox mkdir -p /proc /dev
/bin/busybox mount -t proc none /proc
/bin/busybox mount -t devtmpfs none /dev
echo
echo LAB-CRASH-KERNEL
/bin/lab-vmm read-dump /proc/vmcore || echo 'LAB: no dump'
echo LAB-DUMP-READ
/bin/busybox sleep 100000
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

    /// Makes what such a machine boots from.
    ///
    /// # Errors
    /// The VMM cannot be fetched or built, or a file cannot be written.
    pub fn boot(&self, image: &Image, wanted: Wanted) -> Result<Boot> {
        let mut initrd = Initrd::default();
        match wanted.vmm {
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
            let Wanted { kind, vmm, crash, tools } = wanted;
            let more =
                [(crash, "-crash"), (tools, "-tools")].map(|(is, name)| if is { name } else { "" }).concat();
            let name = format!("{}-{vmm:?}-{kind:?}{more}", image.name).to_lowercase();
            let boot = Boot {
                kernel: image.folder.join("bzImage"),
                initrd: folder.join(format!("{name}.cpio")),
                cd: folder.join(format!("{name}.iso")),
            };
            if crash {
                self.add_crash_kernel(&mut initrd, &boot)?;
            }
            if tools {
                for programs in costs::Watcher::value_variants().iter().filter_map(|one| one.programs()) {
                    let path = costs::stripped(programs);
                    if path.is_file() {
                        initrd.program(&format!("bin/septwatch-{programs}"), &path)?;
                    }
                }
                for tool in costs::TOOLS.map(Path::new).into_iter().filter(|tool| tool.is_file()) {
                    initrd.program(&tool.to_string_lossy()[1..], tool)?;
                }
            }
            initrd.write(&boot.initrd)?;
            let made = match kind {
                Kind::Bochs => {
                    boot::cd(&boot.kernel, &boot.initrd, machine::TSC_KHZ, crash, &boot.cd)?;
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
            for (name, script) in
                [("watch", WATCH), ("walked", WALKED), ("compare", COMPARE), ("audit", AUDIT)]
            {
                initrd.text(&format!("bin/lab-{name}"), script);
            }
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

impl Programs {
    /// The same kernel, with little to do.
    fn add_crash_kernel(&self, initrd: &mut Initrd, boot: &Boot) -> Result<()> {
        let mut inner = Initrd::default();
        inner.text("init", CRASH_INIT);
        inner.program("bin/busybox", Path::new("/bin/busybox"))?;
        inner.file("bin/lab-vmm", &self.lab_vmm)?;
        let path = boot.initrd.with_extension("inner");
        inner.write(&path)?;
        initrd.file("crash/initrd", &path)?;
        initrd.file("crash/kernel", &boot.kernel)?;
        initrd.text("crash/command-line", &boot::crash_command_line(machine::TSC_KHZ));
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
    strip(&program, &stripped)?;
    Ok(Some(stripped))
}

/// Copies a program without what only debuggers read.
///
/// # Errors
/// It cannot be read, or the copy not be written.
pub fn strip(program: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(target_folder().join("lab")).context("cannot create the lab's target folder")?;
    run::quiet(Command::new("objcopy").arg("--strip-debug").arg(program).arg(to))?;
    Ok(())
}

/// The septwatch that machines have.
pub fn stripped() -> PathBuf {
    target_folder().join("lab/septwatch")
}

/// Where cargo builds this workspace.
pub fn target_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| place::repository().join("target"), PathBuf::from)
}
