//! The commands of one process. Each is answered by one line that ends its result: `ok …` or `error …`.
//!
//! Pages are counted from the start of the TD's memory.
//!
//! | command | what happens |
//! | --- | --- |
//! | `td NAME [pages=N] [init=N] [open]` | create a TD, measure `init` pages in, finalize (not with `open`) |
//! | `add NAME PAGE COUNT` | measure pages into an open one |
//! | `finalize NAME` | finalize an open one |
//! | `fault NAME PAGE COUNT` | KVM_PRE_FAULT_MEMORY |
//! | `guest NAME ept=PAGE` | script the guest: touch a page; `accept=PAGE ept=PAGE` accepts first |
//! | `guest NAME mapgpa=PAGE count=N shared\|private` | script the guest: ask for a conversion |
//! | `run NAME` | KVM_RUN until the guest ends or KVM refuses; conversions are done as asked |
//! | `convert NAME PAGE COUNT shared\|private` | KVM_SET_MEMORY_ATTRIBUTES |
//! | `punch NAME PAGE COUNT` | FALLOC_FL_PUNCH_HOLE on the guest_memfd |
//! | `delete-slot NAME`, `close-gmem NAME` | delete the memory slot, close the guest_memfd |
//! | `poison NAME PAGE` | a memory failure in the frame that holds this page |
//! | `poisoned NAME PAGE` | whether the kernel has that frame marked HWPoison |
//! | `create-vm TYPE` | KVM_CREATE_VM of this type; the VM is closed again |
//! | `watch NAME`, `back` | watch the frames of a TD's guest, of now and later; which of them came back since |
//! | `stress NAME OPERATIONS SEED` | random faults, conversions and punches |
//! | `churn NAME SEED FILE` | the same until the file is there |
//! | `drip NAME PAGE MS FILE` | punch page after page, one every so many milliseconds, until the file is there |
//! | `cycle NAME PAGE COUNT ROUNDS` | map and zap pages; instructions for each |
//! | `pages COUNT ROUNDS` | take and give back pages of a memfd; instructions for each |
//! | `destroy NAME`, `exit` | close all of a TD's descriptors; leave the process |
//! | `flip NAME PAGE`, `unflip` | make KVM's mirror page table say that the page is not mapped; put that right |
//! | `inject RULE`, `reset` | rules of the software module; make it forget everything |
//! | `selftest` | the software module's own test |
//! | `qemu NAME start`, `qemu NAME wait`, `qemu NAME kill` | a real VMM: until its TD is there, until it ends |
//! | `qemu NAME start pause` | the same; when its guest has ended it stays, and must be killed |
//! | `qemu NAME has PAGE` | wait until its TD owns this page |
//! | `qemu NAME watch` | watch the frames of its guest |
//! | `qemu NAME guest …` | script its guest, as `guest`; its pages are counted from address 0 |
//! | `exec PROGRAM ARGUMENT…` | run a program to its end |
//! | `memory MIB` | take and give back this much of the host's memory |

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use kvm_ioctls::{Kvm, VcpuExit};
use rustix::io::Errno;

use crate::cost;
use crate::module::{self, SHARED};
use crate::qemu::Qemus;
use crate::td::{MAP_GPA_RANGE, PAGE, Shape, Td};

/// More exits than any script has: a guest that does not end is an error.
const MAX_EXITS: u32 = 1000;

/// Takes commands from stdin, one a line, until there are no more.
///
/// # Errors
/// Only where stdin or stdout fail; a command that fails is answered.
pub fn serve() -> Result<()> {
    let mut tds = BTreeMap::new();
    let mut qemus = Qemus::default();
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let line = line.context("cannot read commands")?;
        if line == "exit" {
            break;
        }
        let answer = match perform(&mut tds, &mut qemus, &line) {
            Ok(said) if said.is_empty() => "ok".to_owned(),
            Ok(said) => format!("ok {said}"),
            Err(error) => format!("error {error:#}"),
        };
        writeln!(out, "{answer}").and_then(|()| out.flush()).context("cannot answer")?;
    }
    Ok(())
}

type Tds = BTreeMap<String, Td>;

fn perform(tds: &mut Tds, qemus: &mut Qemus, line: &str) -> Result<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (verb, rest) = words.split_first().context("an empty command")?;
    match (*verb, rest) {
        ("inject", _) => module::write("inject", &rest.join(" ")).map(|()| String::new()),
        ("unflip", []) => module::write("mirror", "restore").map(|()| String::new()),
        ("reset", []) => module::write("reset", "1").map(|()| String::new()),
        ("selftest", []) => module::selftest(),
        ("qemu", _) => qemus.perform(rest),
        ("exec", [program, arguments @ ..]) => execute(program, arguments),
        ("memory", [mib]) => take_memory(number(mib)?),
        ("back", []) => back(),
        ("pages", [count, rounds]) => cost::pages(number(count)?, number(rounds)?),
        ("create-vm", [kind]) => create_vm(number(kind)?),
        ("td", [name, options @ ..]) => {
            ensure!(!tds.contains_key(*name), "there is a TD {name} already");
            let td = Td::create(&shape(options)?)?;
            let said = format!("number={}", td.number);
            tds.insert((*name).to_owned(), td);
            Ok(said)
        }
        ("destroy", [name]) => {
            tds.remove(*name).with_context(|| format!("no TD {name}"))?;
            Ok(String::new())
        }
        (verb, [name, rest @ ..]) => {
            let td = tds.get_mut(*name).with_context(|| format!("no TD {name}, or no command `{verb}`"))?;
            on_td(td, verb, rest)
        }
        _ => bail!("no command `{line}`"),
    }
}

fn on_td(td: &mut Td, verb: &str, rest: &[&str]) -> Result<String> {
    match (verb, rest) {
        ("add", [page, count]) => td.populate(number(page)?, number(count)?)?,
        ("finalize", []) => td.finalize()?,
        ("fault", [page, count]) => {
            let (left, result) = td.pre_fault(number(page)?, number(count)?);
            result.with_context(|| format!("left={left}"))?;
            return Ok(format!("left={left}"));
        }
        ("guest", what) => module::script_guest(td.number, Td::gpa(0), what)?,
        ("flip", [page]) => {
            module::write("mirror", &format!("td={} gpa={:#x}", td.number, Td::gpa(number(page)?)))?;
        }
        ("run", []) => return run(td),
        ("convert", [page, count, to]) => td.convert(number(page)?, number(count)?, private(to)?)?,
        ("punch", [page, count]) => td.punch(number(page)?, number(count)?)?,
        ("delete-slot", []) => td.set_slot(0)?,
        ("close-gmem", []) => drop(td.gmem.take().context("it is closed already")?),
        ("poison", [page]) => return poison(td, number(page)?),
        ("poisoned", [page]) => return poisoned(td, number(page)?),
        ("watch", []) => return module::watch(td.number),
        ("cycle", [page, count, rounds]) => {
            return cost::cycle(td, number(page)?, number(count)?, number(rounds)?);
        }
        ("drip", [page, ms, file]) => return drip(td, number(page)?, number(ms)?, file),
        ("stress", [operations, seed]) => {
            let operations = number(operations)?;
            return stress(td, number(seed)?, |done| Ok(done < operations));
        }
        ("churn", [seed, file]) => {
            return stress(td, number(seed)?, |_| Ok(!fs::exists(file)?));
        }
        _ => bail!("no command `{verb}` with {} words after the TD", rest.len()),
    }
    Ok(String::new())
}

fn number(word: &str) -> Result<u64> {
    word.parse().with_context(|| format!("`{word}` is not a number"))
}

fn private(word: &str) -> Result<bool> {
    match word {
        "private" => Ok(true),
        "shared" => Ok(false),
        _ => bail!("`{word}` is neither private nor shared"),
    }
}

fn shape(options: &[&str]) -> Result<Shape> {
    let mut shape = Shape { pages: 1024, init: 2, open: false };
    for option in options {
        match option.split_once('=') {
            Some(("pages", count)) => shape.pages = number(count)?,
            Some(("init", count)) => shape.init = number(count)?,
            None if *option == "open" => shape.open = true,
            _ => bail!("no option `{option}` of a TD"),
        }
    }
    Ok(shape)
}

/// Runs the guest's script to its end.
fn run(td: &mut Td) -> Result<String> {
    let mut exits = Vec::new();
    for _ in 0..MAX_EXITS {
        let vcpu = td.vcpu.as_mut().context("the TD has no VCPU any more")?;
        let wanted = match vcpu.run() {
            Ok(VcpuExit::Hypercall(call)) if call.nr == MAP_GPA_RANGE => {
                let [gpa, count, attributes, ..] = call.args;
                *call.ret = 0;
                exits.push(format!("hypercall:{gpa:#x}+{count}"));
                Some((gpa, count, attributes))
            }
            // The guest's script is over: it reports a fatal error.
            Ok(VcpuExit::SystemEvent(kind, _)) => {
                exits.push(format!("system-event:{kind}"));
                break;
            }
            Ok(VcpuExit::MemoryFault { gpa, .. }) => {
                exits.push(format!("memory-fault:{gpa:#x}"));
                break;
            }
            Ok(other) => {
                exits.push(format!("{other:?}").replace(' ', ""));
                break;
            }
            Err(error) => {
                let errno = Errno::from_raw_os_error(error.errno());
                return Err(errno).with_context(|| format!("exits={}", exits.join(",")));
            }
        };
        if let Some((gpa, count, attributes)) = wanted {
            // Bit 4 of the attributes: encrypted, that is private (KVM_MAP_GPA_RANGE_ENCRYPTED).
            let page = (gpa & !SHARED).wrapping_sub(Td::gpa(0)) / PAGE;
            td.convert(page, count, attributes & 1 << 4 != 0).context("conversion")?;
        }
    }
    Ok(format!("exits={}", exits.join(",")))
}

/// Its output goes to a file among what the machine leaves.
fn execute(program: &str, arguments: &[&str]) -> Result<String> {
    let name = program.rsplit('/').next().unwrap_or(program);
    let path = format!("/out/{name}.log");
    let log = File::create(&path).with_context(|| format!("cannot create {path}"))?;
    let errors = log.try_clone().context("cannot share the log")?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(log).stderr(errors);
    let status = command.status().with_context(|| format!("cannot run {program}"))?;
    ensure!(status.success(), "{status}");
    Ok(String::new())
}

/// Needs CONFIG_HWPOISON_INJECT.
fn poison(td: &Td, page: u64) -> Result<String> {
    let frame = module::frame_of(td.number, Td::gpa(page))?;
    let file = "/sys/kernel/debug/hwpoison/corrupt-pfn";
    fs::write(file, format!("{frame:#x}")).with_context(|| format!("pfn={frame:#x}"))?;
    Ok(format!("pfn={frame:#x}"))
}

/// By the kernel's own flags of the frame (Documentation/admin-guide/mm/pagemap.rst).
fn poisoned(td: &Td, page: u64) -> Result<String> {
    const FLAGS: &str = "/proc/kpageflags";
    const HWPOISON: u64 = 1 << 19;
    let frame = module::frame_of(td.number, Td::gpa(page))?;
    let mut flags = [0; 8];
    let file = File::open(FLAGS).with_context(|| format!("cannot open {FLAGS}"))?;
    file.read_exact_at(&mut flags, frame * 8).with_context(|| format!("cannot read {FLAGS}"))?;
    let marked = u64::from_ne_bytes(flags) & HWPOISON != 0;
    Ok(format!("hwpoison={}", if marked { "yes" } else { "no" }))
}

fn create_vm(kind: u64) -> Result<String> {
    let kvm = Kvm::new().context("cannot open /dev/kvm")?;
    kvm.create_vm_with_type(kind).context("KVM_CREATE_VM")?;
    Ok(String::new())
}

/// The kernel keeps a page back while one of its batches of pages holds it, which pages that come after push out.
pub const PUSH_OUT_MIB: u64 = 2;

fn back() -> Result<String> {
    take_memory(PUSH_OUT_MIB)?;
    module::watched()
}

/// It ends at the last page, too, which is an error: whoever makes the file has not.
fn drip(td: &Td, first: u64, ms: u64, until: &str) -> Result<String> {
    for page in first..td.pages() {
        if fs::exists(until)? {
            return Ok(format!("punched={}", page - first));
        }
        td.punch(page, 1).with_context(|| format!("page {page}"))?;
        thread::sleep(Duration::from_millis(ms));
    }
    bail!("no page is left, and there is no {until}")
}

/// Random traffic that must all succeed, as long as `goes_on` says so of what was done; what KVM refuses is counted.
fn stress(td: &Td, mut seed: u64, goes_on: impl Fn(u64) -> Result<bool>) -> Result<String> {
    ensure!(seed != 0, "the seed must not be 0");
    let mut refused = BTreeMap::<String, u64>::new();
    let mut operations = 0;
    while goes_on(operations)? {
        operations += 1;
        // xorshift64
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let page = seed % td.pages();
        let count = (1 + (seed >> 32) % 4).min(td.pages() - page);
        let result = match seed >> 60 {
            0..=7 => td.pre_fault(page, count).1,
            8..=11 => td.punch(page, count),
            12 | 13 => td.convert(page, count, false),
            _ => td.convert(page, count, true),
        };
        if let Err(errno) = result {
            *refused.entry(format!("{errno:?}")).or_default() += 1;
        }
    }
    let refused: Vec<String> = refused.iter().map(|(errno, count)| format!(" {errno}={count}")).collect();
    Ok(format!("operations={operations}{}", refused.concat()))
}

/// What a reuse of freed frames needs: somebody who takes memory.
pub fn take_memory(mib: u64) -> Result<String> {
    let mut memory = vec![0u8; usize::try_from(mib << 20)?];
    for page in memory.chunks_mut(4096) {
        page[0] = 1;
    }
    Ok(format!("pages={}", std::hint::black_box(&memory).len() / 4096))
}
