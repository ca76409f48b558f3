//! Whether records come in an order that a kernel can have made them in.

use crate::source::event::Event;

/// Longest that a record may lie behind one of its CPU that came before it, in ns. A program reads the time, is then
/// interrupted, or preempted by another task, and goes on afterwards: a busy host keeps a task waiting for that long.
const BEHIND_NS: u64 = 1_000_000_000;

/// Most records in a row that lie behind: as many programs as can be interrupted or preempted within each other.
const BEHIND: u32 = 16;

/// Errors that are told one by one.
const TOLD: usize = 16;

/// A record whose time no interrupt explains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backwards {
    /// Its CPU.
    pub cpu: u16,
    /// Whether it is vital (lifecycle, violations), or a page record.
    pub vital: bool,
    /// Its number.
    pub seq: u64,
    /// Its time, in ns of CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// How far it lies behind one of its CPU that came before it, in ns.
    pub behind_ns: u64,
}

/// The latest of one CPU and stream.
#[derive(Clone, Copy, Debug, Default)]
struct Latest {
    time_ns: u64,
    behind: u32,
}

/// Times that went backwards.
#[derive(Clone, Debug, Default)]
pub struct Order {
    /// By CPU and stream. Grows up to the highest CPU seen, which is at most 65535.
    latest: Vec<[Latest; 2]>,
    /// How often.
    pub count: u64,
    /// The first of them.
    pub told: Vec<Backwards>,
}

impl Order {
    /// Takes an event in.
    #[inline]
    pub fn event(&mut self, event: &Event) {
        let header = event.header();
        let cpu = usize::from(header.cpu);
        if cpu >= self.latest.len() {
            self.latest.resize(cpu + 1, Default::default());
        }
        let latest = &mut self.latest[cpu][usize::from(!event.is_vital())];
        if header.time_ns >= latest.time_ns {
            *latest = Latest { time_ns: header.time_ns, behind: 0 };
        } else {
            self.behind(event);
        }
    }

    #[cold]
    fn behind(&mut self, event: &Event) {
        let (header, vital) = (event.header(), event.is_vital());
        let latest = &mut self.latest[usize::from(header.cpu)][usize::from(!vital)];
        latest.behind += 1;
        let behind_ns = latest.time_ns - header.time_ns;
        if behind_ns <= BEHIND_NS && latest.behind <= BEHIND {
            return;
        }
        // From here on times are held against this one: a clock that was set back is one error, not thousands.
        *latest = Latest { time_ns: header.time_ns, behind: 0 };
        self.count += 1;
        if self.told.len() < TOLD {
            let (cpu, seq, time_ns) = (header.cpu, header.seq, header.time_ns);
            self.told.push(Backwards { cpu, vital, seq, time_ns, behind_ns });
        }
    }
}
