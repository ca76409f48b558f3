//! What the VMM, the kernel and the software module leave, as items of a timeline.

use septwatch_common::Status;

use super::Item;
use crate::lab::oracle::COMPLAINTS;

/// In front of each command that it gives, the lab's VMM writes this and its time into the kernel's log: so what the
/// kernel's own clock says can be told in CLOCK_MONOTONIC (`tests/lab/vmm/src/script.rs`).
const MARK: &str = "lab-vmm: ";

/// Besides complaints, what the kernel says when a SEAMCALL fails.
const TELLING: &str = " failed: 0x";

/// The bits of a SEAMCALL's first operand that are a guest physical address.
const GPA: u64 = 0x000f_ffff_ffff_f000;

/// The VMM's commands: when each was given, if it was not answered before anything else happened, and its answer.
pub(super) fn commands(vmm: &str, dmesg: &str) -> Vec<Item> {
    let given = log_lines(dmesg).filter_map(|(ns, text)| Some((ns?, text.strip_prefix(MARK)?)));
    let mut items: Vec<Item> = given
        .filter_map(|(_, text)| {
            let (time, command) = text.split_once(' ')?;
            Some(Item::new(nanoseconds(time)?, "vmm", command, command))
        })
        .collect();
    items.extend(vmm.lines().filter_map(|line| {
        let (time, rest) = line.split_once(' ')?;
        let (_, said) = rest.split_once(' ')?;
        Some(Item::new(nanoseconds(time)?, "vmm", said, said))
    }));
    items
}

/// The kernel's warnings and its word on failed SEAMCALLs.
pub(super) fn kernel_log(dmesg: &str) -> Vec<Item> {
    let telling = |text: &str| COMPLAINTS.iter().chain([&TELLING]).any(|part| text.contains(part));
    let lines = log_lines(dmesg).filter(|(_, text)| !text.starts_with(MARK) && telling(text));
    lines
        .filter(|(_, text)| !text.contains("Call Trace"))
        .filter_map(|(ns, text)| Some(Item::new(ns?, "kernel", text, text)))
        .collect()
}

/// The lines of `dmesg` with their time in CLOCK_MONOTONIC, none before the first mark.
fn log_lines(dmesg: &str) -> impl Iterator<Item = (Option<u64>, &str)> {
    let mut offset = None;
    dmesg.lines().filter_map(move |line| {
        let (time, text) = line.strip_prefix('[')?.split_once("] ")?;
        let logged = i128::from(nanoseconds(time.trim_start())?);
        let marked = text.strip_prefix(MARK).and_then(|rest| nanoseconds(rest.split(' ').next()?));
        if let Some(marked) = marked {
            offset = Some(i128::from(marked) - logged);
        }
        Some((offset.and_then(|offset| u64::try_from(logged + offset).ok()), text))
    })
}

/// From seconds with a fraction.
fn nanoseconds(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.')?;
    let digits = u32::try_from(fraction.len()).ok().filter(|digits| (1..=9).contains(digits))?;
    let fraction: u64 = fraction.parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(1_000_000_000)?.checked_add(fraction * 10_u64.pow(9 - digits))
}

/// The SEAMCALLs that failed or that a rule was for: `N ns=N cpu=N pid=N LEAF rcx=… rdx=… r8=… -> STATUS rcx=… rdx=…
/// [rule=N [lie=…]]`.
pub(super) fn calls(text: &str) -> Vec<Item> {
    text.lines().filter_map(call).collect()
}

fn call(line: &str) -> Option<Item> {
    let (asked, answered) = line.split_once(" -> ")?;
    let leaf = asked.split(' ').nth(4)?;
    let status = number(answered.split(' ').next()?)?;
    let rule = value(answered, "rule");
    // What TDH.VP.ENTER returns is an exit, not a status.
    if (status == 0 || leaf == "VP_ENTER") && rule.is_none() {
        return None;
    }
    let name = format!("TDH.{}", leaf.replace('_', "."));
    let mut what = name.clone();
    if leaf.starts_with("MEM_") && leaf != "MEM_TRACK" {
        what += &format!(" gpa {:#x}", number(value(asked, "rcx")?)? & GPA);
    } else {
        what += &format!(" rcx {}", value(asked, "rcx")?);
    }
    let said = if status == 0 { "success".to_owned() } else { Status(status).to_string() };
    what += &format!(" -> {said}");
    if let Some(rule) = rule {
        what += &format!(", by rule {rule}");
    }
    if let Some(lie) = value(answered, "lie") {
        what += &format!(" (lie: {lie})");
    }
    let kind = format!("{name} {status:#x} {}", rule.unwrap_or_default());
    Some(Item::new(value(asked, "ns")?.parse().ok()?, "module", kind, what))
}

/// System calls of another VMM than the lab's, from ftrace's log on the clock `mono`:
/// `COMM-TID [CPU] FLAGS SECONDS: NAME: (FUNCTION) key=… …`.
pub(super) fn syscalls(text: &str) -> Vec<Item> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(syscall).collect()
}

fn syscall(line: &str) -> Option<Item> {
    let (head, rest) = line.split_once(": ")?;
    let (name, rest) = rest.split_once(": (")?;
    let (_, arguments) = rest.split_once(") ")?;
    let task = head.rsplit_once(" [")?.0.trim();
    let (name, arguments) = match name {
        "set_memory_attributes" => ("KVM_SET_MEMORY_ATTRIBUTES", arguments.split_once(' ')?.1),
        "fallocate" => ("fallocate of a guest_memfd", arguments),
        other => (other, arguments),
    };
    let what = format!("{name} {arguments}, by {task}");
    Some(Item::new(nanoseconds(head.rsplit(' ').next()?)?, "syscall", what.clone(), what))
}

/// Frames that the allocator took or gave while a TD owned them: `WHAT ns=N call=N pfn=… type=… td=N gpa=… level=N
/// state=… pid=N comm=…`.
pub(super) fn frames(text: &str) -> Vec<Item> {
    text.lines().filter_map(frame).collect()
}

fn frame(line: &str) -> Option<Item> {
    let (what, rest) = line.split_once(' ')?;
    let of = |key| value(rest, key);
    let comm = rest.split_once(" comm=")?.1;
    let text = format!(
        "{what} pfn {}: TD {}'s {} at gpa {}, {}; by {comm} (tid {})",
        of("pfn")?,
        of("td")?,
        of("type")?,
        of("gpa")?,
        of("state")?,
        of("pid")?
    );
    Some(Item::new(of("ns")?.parse().ok()?, "truth", what, text))
}

fn value<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

/// In hexadecimal with `0x`, or decimal.
fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use super::*;

    const DMESG: &str = "\
[    0.100000] BUG: before the first mark nothing has a time
[    1.000000] lab-vmm: 0.900000000 td a
[    1.200000] WARNING: arch/x86/kvm/vmx/tdx.c:1 at f, CPU#0: x/1
[    1.200100] Call Trace:
[    2.000000] lab-vmm: 1.950000000 punch a 16 1
[    2.000500] SEAMCALL TDH_MEM_PAGE_REMOVE failed: 0x8000020000000092
[    2.000600] something else
";

    #[test]
    fn the_kernels_clock_is_brought_to_that_of_the_marks() {
        let items = kernel_log(DMESG);
        let found: Vec<_> =
            items.iter().map(|item| (item.ns, item.what.split(' ').next().unwrap())).collect();
        assert_eq!(found, [(1_100_000_000, "WARNING:"), (1_950_500_000, "SEAMCALL")]);
    }

    #[test]
    fn commands_have_a_beginning_and_an_answer() {
        let items = commands("1.960000 vmm punch a 16 1 -> ok\n", DMESG);
        let found: Vec<_> = items.iter().map(|item| (item.ns, item.what.as_str())).collect();
        assert_eq!(
            found,
            [(900_000_000, "td a"), (1_950_000_000, "punch a 16 1"), (1_960_000_000, "punch a 16 1 -> ok")]
        );
    }

    #[test]
    fn calls_that_failed_or_lied_are_told() {
        let text = "\
# 3 earlier calls are gone
4 ns=10 cpu=0 pid=7 MEM_PAGE_REMOVE rcx=0x100010000 rdx=0x1 r8=0x0 -> 0x8000020000000092 rcx=0x0 rdx=0x0 rule=0
5 ns=20 cpu=0 pid=7 MEM_TRACK rcx=0x1000 rdx=0x0 r8=0x0 -> 0x0000000000000000 rcx=0x0 rdx=0x0
6 ns=30 cpu=0 pid=7 MEM_TRACK rcx=0x1000 rdx=0x0 r8=0x0 -> 0x0000000000000000 rcx=0x0 rdx=0x0 rule=1 lie=nothing
7 ns=40 cpu=0 pid=7 VP_ENTER rcx=0x1000 rdx=0x0 r8=0x0 -> 0x000000000000004d rcx=0x0 rdx=0x0
";
        let items = calls(text);
        let found: Vec<_> = items.iter().map(|item| (item.ns, item.what.as_str())).collect();
        assert_eq!(
            found,
            [
                (
                    10,
                    "TDH.MEM.PAGE.REMOVE gpa 0x100010000 -> \
                     TDX_OPERAND_BUSY (0x8000020000000092, operand SEPT_TREE), by rule 0"
                ),
                (30, "TDH.MEM.TRACK rcx 0x1000 -> success, by rule 1 (lie: nothing)")
            ]
        );
    }

    #[test]
    fn system_calls_are_told_with_their_arguments() {
        let text = "\
# tracer: nop
       CPU 0/KVM-311     [000] ..... 146.526900: set_memory_attributes: (kvm_vm_ioctl+0x0/0xdf0 [kvm]) cmd=0x4020aed2 gpa=0x2000000 size=0x1000 attributes=0x0
       CPU 0/KVM-311     [000] ..... 146.640000: fallocate: (kvm_gmem_fallocate+0x0/0x2a0 [kvm]) mode=0x3 offset=0x2000000 size=0x1000
";
        let items = syscalls(text);
        let found: Vec<_> = items.iter().map(|item| (item.ns, item.what.as_str())).collect();
        assert_eq!(
            found,
            [
                (
                    146_526_900_000,
                    "KVM_SET_MEMORY_ATTRIBUTES gpa=0x2000000 size=0x1000 attributes=0x0, by CPU 0/KVM-311"
                ),
                (
                    146_640_000_000,
                    "fallocate of a guest_memfd mode=0x3 offset=0x2000000 size=0x1000, by CPU 0/KVM-311"
                )
            ]
        );
    }

    #[test]
    fn a_frame_says_whose_it_was_and_who_took_it() {
        let line = "reused-while-owned ns=5 call=2 pfn=0x1a type=REG td=1 gpa=0x1000 level=0 state=BLOCKED pid=9 comm=a b\n";
        let items = frames(line);
        assert_eq!(
            items[0].what,
            "reused-while-owned pfn 0x1a: TD 1's REG at gpa 0x1000, BLOCKED; by a b (tid 9)"
        );
        assert!(frames("# 3 earlier frames are gone\n\n").is_empty());
    }
}
