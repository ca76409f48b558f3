//! The report as text, for people. Nothing is judged in here.

use std::fmt;

use super::{Followed, Report, Running, Types};
use crate::hooks::{
    host::{Allowed, Cgroup, Host, Lockdown, Probe, Tdx},
    means::Means,
    plan::{Hook, PageToPfn, Plan, State},
    table::Need,
};

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Some(host) => render_host(f, host)?,
            None => row(f, "kernel", "not running: what the host allows is assumed, not tried")?,
        }
        row(f, "BTF", self.btf.dir.display())?;
        for part in &self.btf.parts {
            match &part.types {
                Types::Types(count) => item(f, part.name, format_args!("{count} types"))?,
                Types::None(why) => item(f, part.name, format_args!("none: {why}"))?,
            }
        }
        if let Some(ledger) = self.ledger {
            let mib = |bytes: u64| bytes.div_ceil(1 << 20);
            row(
                f,
                "ledger",
                format_args!(
                    "{} MiB for {} MiB of System RAM ({} frames, the highest is {:#x})",
                    mib(ledger.bytes),
                    mib(ledger.frames << 12),
                    ledger.frames,
                    ledger.highest_pfn
                ),
            )?;
        }
        if let Some(running) = &self.running {
            let Running { attached, hooks, reader } = running;
            let reader = reader.as_deref().unwrap_or("nobody: `septwatch watch` takes it over");
            row(f, "running", format_args!("a ledger with {attached} of {hooks} hooks, read by {reader}"))?;
        }
        if let Some(plan) = &self.plan {
            render_plan(f, plan)?;
        }
        if let Some(means) = &self.reactions {
            render_means(f, means)?;
        }
        if let Some(Followed { policy, armed, gaps, held }) = &self.followed {
            let policy = policy.as_deref().unwrap_or("not known");
            let armed = if *armed { "armed" } else { "not armed" };
            row(f, "policy", format_args!("{policy}, {armed}; {} TDs are held", held.len()))?;
            gaps.iter().try_for_each(|gap| item(f, "without", gap))?;
        }
        match &self.walk {
            Some(Probe::Refused(why)) => row(f, "running TDs", format_args!("cannot be taken over: {why}"))?,
            Some(_) => row(f, "running TDs", "can be taken over, and audited")?,
            None => {}
        }
        match &self.demo {
            Some(Probe::Refused(why)) => row(f, "demo", format_args!("cannot run: {why}"))?,
            Some(_) => row(f, "demo", "can run")?,
            None => {}
        }
        row(f, "verdict", &self.verdict.line)?;
        for problem in &self.verdict.problems {
            writeln!(f, "  {}", problem.what)?;
            writeln!(f, "    would help: {}", problem.help)?;
        }
        Ok(())
    }
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, value: impl fmt::Display) -> fmt::Result {
    writeln!(f, "{name:<13} {value}")
}

fn item(f: &mut fmt::Formatter<'_>, name: &str, value: impl fmt::Display) -> fmt::Result {
    writeln!(f, "  {name:<17} {value}")
}

fn render_host(f: &mut fmt::Formatter<'_>, host: &Host) -> fmt::Result {
    row(f, "kernel", &host.release)?;
    row(
        f,
        "TDX",
        match host.tdx {
            Tdx::Enabled => "enabled in kvm_intel",
            Tdx::Disabled => "off in kvm_intel",
            Tdx::NotBuilt => "kvm_intel knows no TDX",
            Tdx::NoKvmIntel => "kvm_intel is not loaded",
        },
    )?;
    row(
        f,
        "lockdown",
        match host.lockdown {
            Lockdown::None => "none",
            Lockdown::Integrity => "integrity",
            Lockdown::Confidentiality => "confidentiality",
            Lockdown::Unknown if host.mounts.securityfs.is_some() => "this kernel has none",
            Lockdown::Unknown => {
                "unknown: securityfs is not mounted (mount -t securityfs securityfs /sys/kernel/security)"
            }
        },
    )?;
    row(f, "capabilities", "of this process")?;
    for cap in &host.capabilities {
        let held = match (cap.held, cap.required) {
            (true, _) => "held",
            (false, true) => "ABSENT, required",
            (false, false) => "absent",
        };
        item(f, cap.name, format_args!("{held}: {}", cap.purpose))?;
    }
    row(f, "programs", "tried just now")?;
    render_allowed(f, &host.allowed)?;
    if let (false, Some(limit)) = (host.allowed.ring_buffer.usable(), host.memlock_limit) {
        item(f, "memlock limit", format_args!("{limit} bytes: counts on kernels that charge maps to it"))?;
    }
    if let Some(modules) = &host.security_modules
        && !modules.iter().any(|module| module == "bpf")
    {
        item(
            f,
            "",
            "`bpf` is not among the active security modules: lsm programs never run (boot with lsm=…,bpf)",
        )?;
    }
    match &host.mounts.bpffs {
        Some(place) => row(f, "bpffs", place)?,
        None => row(f, "bpffs", "not mounted (mount -t bpf bpf /sys/fs/bpf)")?,
    }
    match &host.mounts.tracefs {
        Some(place) => row(f, "tracefs", place)?,
        None => row(f, "tracefs", "not mounted (mount -t tracefs tracefs /sys/kernel/tracing)")?,
    }
    row(
        f,
        "cgroup",
        match host.cgroup {
            Cgroup::V2 => "version 2",
            Cgroup::Hybrid => "versions 1 and 2: events name that of version 2",
            Cgroup::V1 => "version 1: events name no cgroup",
            Cgroup::None => "not mounted: events name no cgroup",
        },
    )?;
    if let Err(why) = &host.memory {
        row(f, "System RAM", why)?;
    }
    Ok(())
}

fn render_allowed(f: &mut fmt::Formatter<'_>, allowed: &Allowed) -> fmt::Result {
    let Allowed { fexit, tp_btf, raw_tp, kprobe, uprobe, lsm, ring_buffer, read_kernel } = allowed;
    for (name, probe) in [
        ("fexit", fexit),
        ("tp_btf", tp_btf),
        ("raw_tp", raw_tp),
        ("kprobe", kprobe),
        ("uprobe", uprobe),
        ("lsm", lsm),
        ("ring buffer", ring_buffer),
        ("probe_read_kernel", read_kernel),
    ] {
        match probe {
            Probe::Works => item(f, name, "works")?,
            Probe::Assumed => item(f, name, "assumed")?,
            Probe::Refused(why) => item(f, name, format_args!("refused, {why}"))?,
        }
    }
    Ok(())
}

fn render_plan(f: &mut fmt::Formatter<'_>, plan: &Plan) -> fmt::Result {
    match &plan.page_to_pfn {
        PageToPfn::Kallsyms { .. } => {
            row(f, "page to pfn", "kallsyms: vmemmap_base is read from the kernel")?
        }
        PageToPfn::Calibrate { reason } => row(f, "page to pfn", format_args!("calibrate: {reason}"))?,
        PageToPfn::Undecided => {
            row(f, "page to pfn", "kallsyms or calibrate: decided where the kernel runs")?
        }
    }
    let bound = plan.hooks.iter().filter(|hook| hook.bound().is_some()).count();
    row(f, "hooks", format_args!("{bound} of {} bound", plan.hooks.len()))?;
    plan.hooks.iter().try_for_each(|hook| render_hook(f, hook))
}

fn render_means(f: &mut fmt::Formatter<'_>, means: &Means) -> fmt::Result {
    let each = [
        ("refuse fallocate", &means.refuse_fallocate),
        ("pin inodes", &means.pin_inodes),
        ("refuse new VMs", &means.refuse_create_vm),
        ("crash_kexec", &means.crash_kexec),
        ("crash kernel", &means.crash_kernel),
        ("sysrq", &means.sysrq),
        ("hard offline", &means.hard_offline),
        ("freezer", &means.freezer),
    ];
    let usable = each.iter().filter(|(_, probe)| probe.usable()).count();
    row(f, "reactions", format_args!("{usable} of {} means", each.len()))?;
    each.iter().try_for_each(|(name, probe)| match probe {
        Probe::Works => item(f, name, "works"),
        Probe::Assumed => item(f, name, "assumed"),
        Probe::Refused(why) => item(f, name, format_args!("no: {why}")),
    })
}

fn render_hook(f: &mut fmt::Formatter<'_>, hook: &Hook) -> fmt::Result {
    let reason = match &hook.state {
        State::Bound(bound) => return writeln!(f, "  {:<33} {bound}", hook.name),
        State::Missing { reason } => reason,
    };
    let need = match hook.need {
        Need::Required => "MISSING, required",
        Need::Useful => "missing",
    };
    writeln!(f, "  {:<33} {need}: {reason}", hook.name)?;
    match hook.lost {
        [] => writeln!(f, "  {:<33} no detection is lost, only detail: {}", "", hook.purpose),
        lost => writeln!(f, "  {:<33} lost: {}", "", lost.join(", ")),
    }
}
