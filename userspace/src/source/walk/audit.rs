//! An audit: the ledger and KVM's structures, TD by TD, compared from both sides.

use std::{collections::BTreeSet, time::Instant};

use septwatch_common::{
    Line, Suspect,
    walk::{Difference, Found, Mode},
};

use super::{
    WalkError, Walker,
    compare::{self, Sweep},
    pace::Pace,
    settle,
};

/// How far a TD could be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// From both sides, whole.
    Whole,
    /// Not at all: it is being taken over, and the ledger does not have all of it yet.
    BeingTakenOver,
    /// Not at all: the ledger does not know it. It is being built, or nobody has taken it over.
    Unknown,
    /// It ended meanwhile.
    Over,
    /// So many of its tables, or of the ledger's chunks, could not be read.
    Part(usize),
}

/// A TD that was compared.
#[derive(Clone, Debug)]
pub struct Audited {
    /// Its number; 0 where the ledger does not know it.
    pub td: u32,
    /// The process that runs it.
    pub tgid: u32,
    /// How far.
    pub compared: Compared,
    /// Tables of its mirror page table below the root.
    pub tables: u64,
    /// Frames that KVM says are lent to it.
    pub frames: u64,
    /// Lines of the ledger that were looked for there.
    pub lines: u64,
    /// What differs, each once.
    pub differences: BTreeSet<Difference>,
}

/// All that an audit came to.
#[derive(Clone, Debug, Default)]
pub struct Audit {
    /// The TDs that run.
    pub tds: Vec<Audited>,
    /// How long it took, in us.
    pub took_us: u64,
    /// It was told to end.
    pub stopped: bool,
}

impl Audit {
    /// What differs, over all TDs.
    pub fn differences(&self) -> usize {
        self.tds.iter().map(|td| td.differences.len()).sum()
    }
}

/// Compares the TDs that run, or the one of this number.
///
/// # Errors
/// A program cannot be run.
pub fn audit(walker: &mut Walker, wanted: Option<u32>, pace: &mut Pace<'_>) -> Result<Audit, WalkError> {
    let begun = Instant::now();
    settle()?;
    let found: Vec<_> =
        walker.find(false)?.into_iter().filter(|td| wanted.is_none_or(|wanted| wanted == td.id)).collect();
    let mut audit = Audit::default();
    for td in &found {
        let mut audited = Audited {
            td: td.id,
            tgid: td.tgid,
            compared: compared(td),
            tables: 0,
            frames: 0,
            lines: 0,
            differences: BTreeSet::new(),
        };
        if audited.compared == Compared::Whole {
            let sweep = compare::sweep(walker, td, Mode::Compare, pace, &mut |_| ())?;
            audited.took(&sweep);
            (audited.tables, audited.frames) = (sweep.tables, sweep.frames);
            audit.stopped |= sweep.stopped;
        }
        audit.tds.push(audited);
    }
    let keys: Vec<u64> = walker.chunks().collect();
    for key in keys {
        let owners: BTreeSet<u16> =
            walker.open_lines(key).into_iter().map(|(_, line)| line.owner()).collect();
        for (td, audited) in found.iter().zip(&mut audit.tds) {
            let goes_on = matches!(audited.compared, Compared::Whole | Compared::Part(_));
            if goes_on && owners.contains(&(td.td as u16)) {
                let sweep = compare::lines(walker, td, std::iter::once(key), pace)?;
                audited.took(&sweep);
                audited.lines += sweep.frames;
                audit.stopped |= sweep.stopped;
            }
        }
        if audit.stopped {
            break;
        }
    }
    audit.took_us = begun.elapsed().as_micros() as u64;
    Ok(audit)
}

fn compared(td: &Found) -> Compared {
    if td.id == 0 {
        Compared::Unknown
    } else if Suspect(td.suspect).has(Suspect::WALK) {
        Compared::BeingTakenOver
    } else {
        Compared::Whole
    }
}

impl Audited {
    fn took(&mut self, sweep: &Sweep) {
        self.differences.extend(&sweep.differences);
        if sweep.over {
            // What it has left is nobody's mistake.
            self.compared = Compared::Over;
            self.differences.clear();
        } else if !sweep.unread.is_empty() {
            let before = if let Compared::Part(count) = self.compared { count } else { 0 };
            self.compared = Compared::Part(before + sweep.unread.len());
        }
    }
}

/// A difference in words.
pub fn told(difference: &Difference) -> String {
    let line = |line: Line| {
        let (kind, level, gfn) = (line.kind().name(), line.level().name(), line.gfn());
        format!("{kind} {level} at gfn {gfn:#x}, {}", line.state().name())
    };
    let ours = match difference.line() {
        line if !line.is_open() => "the ledger has no line".to_owned(),
        ours => format!("the ledger has a {}", line(ours)),
    };
    let theirs = match (difference.kvm(), difference.instead) {
        (kvm, _) if kvm.is_open() => format!("KVM has a {}", line(kvm)),
        (_, 0) => "KVM believes it unmapped".to_owned(),
        (_, instead) => format!("KVM has pfn {instead:#x} there"),
    };
    format!("pfn {:#x}: {ours}; {theirs}", difference.pfn)
}
