//! A real VMM as a child: QEMU in its own root, started as anybody would start a TD with it. Nothing of it is
//! changed; what its guest does is scripted in the software module.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::module;

/// The root that the machine's init has prepared: QEMU, its libraries and its firmware.
const ROOT: &str = "/qemu";

const ARGUMENTS: &str = "/usr/bin/qemu-system-x86_64 -accel kvm -object tdx-guest,id=tdx \
    -machine q35,confidential-guest-support=tdx,kernel-irqchip=split -cpu host -smp 1 -m 128M \
    -bios /usr/share/ovmf/OVMF.inteltdx.ms.fd -nodefaults -display none -serial none -monitor none \
    -no-reboot -action";

/// What it does when its guest has reported a fatal error, as every scripted guest does in the end.
const EXIT: &str = "panic=exit-failure";
const PAUSE: &str = "panic=pause";

/// How often the module is asked whether QEMU has made its TD. From there to the first entry of a VCPU there are
/// more than ten thousand SEAMCALLs: what the guest does can be scripted in time.
const POLL: Duration = Duration::from_millis(1);

/// How often it is asked whether a TD has a page, for which it looks at every frame.
const POLL_OWNED: Duration = Duration::from_millis(200);

struct Qemu {
    child: Child,
    /// Where its stderr goes.
    said: String,
    /// The number that the software module gave its TD.
    td: u32,
}

/// The QEMUs of one process, by name.
#[derive(Default)]
pub struct Qemus(BTreeMap<String, Qemu>);

impl Qemus {
    /// `NAME start [pause]`, `NAME guest …`, `NAME has PAGE`, `NAME watch`, `NAME wait`, `NAME kill`.
    ///
    /// # Errors
    /// What QEMU or the module refuse, and what is no command.
    pub fn perform(&mut self, words: &[&str]) -> Result<String> {
        match words {
            [name, "start", rest @ ..] => {
                let at_end = match rest {
                    [] => EXIT,
                    ["pause"] => PAUSE,
                    _ => bail!("QEMU cannot be started with `{}`", rest.join(" ")),
                };
                ensure!(!self.0.contains_key(*name), "there is a QEMU {name} already");
                let qemu = Qemu::start(name, at_end)?;
                let answer = format!("number={}", qemu.td);
                self.0.insert((*name).to_owned(), qemu);
                Ok(answer)
            }
            [name, "guest", what @ ..] => {
                let qemu = self.0.get(*name).with_context(|| format!("no QEMU {name}"))?;
                module::script_guest(qemu.td, 0, what).map(|()| String::new())
            }
            [name, "has", page] => {
                let qemu = self.0.get_mut(*name).with_context(|| format!("no QEMU {name}"))?;
                qemu.wait_for_page(module::bytes(page)?).map(|()| String::new())
            }
            [name, "watch"] => {
                let qemu = self.0.get(*name).with_context(|| format!("no QEMU {name}"))?;
                module::watch(qemu.td)
            }
            [name, verb @ ("wait" | "kill")] => {
                let mut qemu = self.0.remove(*name).with_context(|| format!("no QEMU {name}"))?;
                if *verb == "kill" {
                    qemu.child.kill().context("cannot kill QEMU")?;
                }
                let status = qemu.child.wait().context("cannot wait for QEMU")?;
                Ok(ended(status, &qemu.said))
            }
            _ => bail!("no command `qemu {}`", words.join(" ")),
        }
    }
}

impl Qemu {
    /// Starts one and waits until its TD is there.
    fn start(name: &str, at_end: &str) -> Result<Self> {
        let said = format!("/out/qemu-{name}.err");
        let stderr = File::create(&said).with_context(|| format!("cannot create {said}"))?;
        let mut command = Command::new("chroot");
        command.arg(ROOT).args(ARGUMENTS.split_whitespace()).arg(at_end);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        let mut qemu = Self { child: command.spawn().context("cannot run chroot")?, said, td: 0 };
        loop {
            if let Some(status) = qemu.child.try_wait().context("cannot wait for QEMU")? {
                bail!("QEMU made no TD: {}", ended(status, &qemu.said));
            }
            if let Some(td) = module::newest_td(qemu.child.id())? {
                qemu.td = td;
                return Ok(qemu);
            }
            std::thread::sleep(POLL);
        }
    }

    /// Waits until its TD owns the page at this address.
    fn wait_for_page(&mut self, gpa: u64) -> Result<()> {
        while module::frame_of(self.td, gpa).is_err() {
            if let Some(status) = self.child.try_wait().context("cannot wait for QEMU")? {
                bail!("QEMU ended before its TD had the page: {}", ended(status, &self.said));
            }
            std::thread::sleep(POLL_OWNED);
        }
        Ok(())
    }
}

/// One that nobody waited for does not outlive its process.
impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How it ended, and what it complained of first. (What a guest's registers were is not of interest.)
fn ended(status: ExitStatus, said: &str) -> String {
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("code={code}"),
        (None, signal) => format!("signal={}", signal.unwrap_or_default()),
    };
    let said = fs::read_to_string(said).unwrap_or_default();
    match said.lines().find_map(|line| line.split_once("qemu-system-x86_64: ")) {
        Some((_, complaint)) => format!("{how} {complaint}"),
        None => how,
    }
}
