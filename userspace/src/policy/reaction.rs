//! What can be done about a violation.

use std::time::Duration;

use rustix::io::Errno;

/// A reaction, with what the policy says of how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// Standard error, and the journal where there is one.
    Log,
    /// Somebody is told.
    Notify(Notify),
    /// The TD's guest_memfd give back no page.
    Hold(Hold),
    /// SIGSTOP to the VMM.
    Stop,
    /// The VMM's cgroup is frozen.
    Freeze,
    /// SIGKILL to the VMM, once the TD is held.
    Kill,
    /// SIGKILL to the VMM, held or not: what it still maps is given back, mapped or not.
    UnsafeKill,
    /// The frame is taken offline, as hardware that fails is.
    Quarantine,
    /// No new VM is made on this host.
    Cordon(Cordon),
    /// The host goes down.
    Panic,
}

/// Who is told, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notify {
    /// By what.
    pub channel: Channel,
    /// When it is given up.
    pub timeout: Duration,
}

/// A way to tell somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Channel {
    /// A program and its arguments, run without a shell; the violation comes as JSON on its standard input.
    Command(Vec<String>),
    /// The violation is sent there as JSON, by POST.
    Webhook(String),
}

/// How a TD is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// What fallocate on its guest_memfd answers.
    pub errno: Errno,
    /// Its inodes are pinned as soon as they are seen, not when a zap has failed.
    pub ready: bool,
}

/// Which VMs are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cordon {
    /// What KVM_CREATE_VM answers.
    pub errno: Errno,
    /// VMs of every type, not only TDs.
    pub every_type: bool,
}

impl Reaction {
    /// Its name in policies, audit logs and metrics.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Notify(_) => "notify",
            Self::Hold(_) => "hold",
            Self::Stop => "stop",
            Self::Freeze => "freeze",
            Self::Kill => "kill",
            Self::UnsafeKill => "unsafe-kill",
            Self::Quarantine => "quarantine",
            Self::Cordon(_) => "cordon",
            Self::Panic => "panic",
        }
    }

    /// Whether it does something to the host or to a VM, instead of telling somebody: such a one needs an armed policy, an
    /// armed agent and a verdict that is certain.
    pub const fn acts(&self) -> bool {
        !matches!(self, Self::Log | Self::Notify(_))
    }
}
