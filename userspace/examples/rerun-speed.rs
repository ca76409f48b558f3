//! How long a page event takes in a replay: the ledger's re-run and the model together, on a storm made up here.

use std::time::Instant;

use septwatch::{
    model::{Model, rerun::Rerun},
    source::event::Event,
};
use septwatch_common::{
    Leaf,
    wire::{Frame, Header, Hook, Kind, SeamcallErr, SeamcallOk, VERSION},
};

const TDS: u64 = 8;
/// 4K leaves of each TD.
const LEAVES: u64 = 4096;
/// Zaps of the whole storm.
const ZAPS: usize = 250_000;
const ROUNDS: u32 = 10;
const NONE: u64 = u64::MAX;

#[derive(Default)]
struct Storm {
    events: Vec<Event>,
    /// Numbers given so far, by CPU.
    numbers: [u64; TDS as usize],
    now_ns: u64,
}

impl Storm {
    fn header(&mut self, td: u64, kind: Kind) -> Header {
        self.now_ns += 700;
        let number = &mut self.numbers[td as usize];
        *number += 1;
        let (time_ns, seq) = (self.now_ns, *number - 1);
        Header { time_ns, seq, tgid: 1000 + td as u32, cpu: td as u16, kind: kind as u8, version: VERSION }
    }

    fn call(&mut self, td: u64, leaf: Leaf, names_td: bool, pfn: u64, gfn: u64) {
        let call = SeamcallOk {
            header: self.header(td, Kind::SeamcallOk),
            tdr: if names_td { 0x1000 + td } else { NONE },
            pfn,
            gfn,
            leaf: leaf as u8,
            level: 0,
            hkid: td as u16,
            tid: 1,
            took_ns: 0,
            zero: 0,
        };
        self.events.push(Event::Call(SeamcallErr { call, status: 0, ext_err1: 0, ext_err2: 0 }));
    }

    fn freed(&mut self, td: u64, pfn: u64) {
        let header = self.header(td, Kind::Frame);
        self.events.push(Event::Frame(Frame {
            header,
            pfn,
            tid: 1,
            hook: Hook::PageFree as u8,
            zero: [0; 3],
        }));
    }

    /// Maps a frame at each gfn of each TD, and zaps and maps again at random.
    fn rage(&mut self) {
        let mut random = fastrand::Rng::with_seed(7);
        let mut free: Vec<u64> = (0..2 * TDS * LEAVES).map(|n| 0x10_0000 + n).collect();
        random.shuffle(&mut free);
        let mut mapped = Vec::new();
        for td in 0..TDS {
            for leaf in [Leaf::MngCreate, Leaf::MngInit, Leaf::MrFinalize] {
                self.call(td, leaf, true, NONE, 0);
            }
        }
        for gfn in 0..LEAVES {
            for td in 0..TDS {
                let pfn = free.pop().unwrap_or(NONE);
                self.call(td, Leaf::MemPageAug, true, pfn, gfn);
                mapped.push((td, gfn, pfn));
            }
        }
        for _ in 0..ZAPS {
            let (td, gfn, pfn) = mapped.swap_remove(random.usize(..mapped.len()));
            self.call(td, Leaf::MemRangeBlock, true, NONE, gfn);
            self.call(td, Leaf::MemTrack, true, NONE, 0);
            self.call(td, Leaf::MemPageRemove, true, pfn, gfn);
            self.call(td, Leaf::PhymemPageWbinvd, false, pfn, 0);
            self.freed(td, pfn);
            let other = free.swap_remove(random.usize(..free.len()));
            free.push(pfn);
            self.call(td, Leaf::MemPageAug, true, other, gfn);
            mapped.push((td, gfn, other));
        }
    }
}

fn main() {
    let mut storm = Storm::default();
    storm.rage();
    let mut best = [f64::MAX; 2];
    for _ in 0..ROUNDS {
        let mut model = Model::default();
        let mut rerun = Rerun::default();
        let mut found = 0;
        let begun = Instant::now();
        for event in &storm.events {
            model.apply(event);
            found += u64::from(rerun.apply(event).is_some());
        }
        let both = begun.elapsed();
        let begun = Instant::now();
        let mut model = Model::default();
        storm.events.iter().for_each(|event| drop(model.apply(event)));
        let alone = begun.elapsed();
        assert_eq!((found, rerun.unreadable()), (0, 0), "nothing goes wrong in this storm");
        for (best, time) in best.iter_mut().zip([both, alone]) {
            *best = best.min(time.as_secs_f64() * 1e9 / storm.events.len() as f64);
        }
    }
    let [both, alone] = best;
    println!("{} events; best of {ROUNDS} rounds", storm.events.len());
    println!("{both:.1} ns an event, of which the model takes {alone:.1} ns");
}
