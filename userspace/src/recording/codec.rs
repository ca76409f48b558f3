//! Records inside a frame: what changes from one to the next, and nothing else.
//!
//! Every record begins with a byte whose two lowest bits say what it is. A number that can be large is a LEB128 varint
//! (7 bits a byte, lowest first, the highest bit of a byte says that another follows); a difference is taken modulo
//! 2^64 and zigzag-coded first (0, -1, 1, -2, ... become 0, 1, 2, 3, ...), so that small steps in both directions stay
//! short. Both ends keep, for each CPU, what its last page record said; at the start of a frame all of it is 0.
//!
//! | what | bytes |
//! |---|---|
//! | note | `00`, varint length, JSON |
//! | vital record | `01`, kind, varint length, the record in the layout that the header names |
//! | SEAMCALL | flags with `2` in the lowest bits, more flags, leaf, then what the flags announce |
//! | frame | the same with `3` and the number of the hook |
//!
//! In this order, each only if its flag is set, but the time, which is always there: CPU; process and thread; steps of
//! the sequence number beyond the next one; time since the record before, whatever its CPU; TDR; pfn; gfn; level and
//! HKID; status, RCX and RDX; how long it took.

mod decode;
mod encode;

pub use decode::{Decoder, Malformed, Record};
pub use encode::Encoder;

/// The two lowest bits of a record's first byte.
mod what {
    pub const MASK: u8 = 3;
    pub const NOTE: u8 = 0;
    pub const VITAL: u8 = 1;
    pub const CALL: u8 = 2;
    pub const FRAME: u8 = 3;
}

/// Flags of a page record: of its first byte, and of its second.
mod flag {
    /// Another CPU than the record before.
    pub const CPU: u8 = 1 << 2;
    /// Another task than this CPU's record before.
    pub const TASK: u8 = 1 << 3;
    /// Not the number that follows this CPU's record before.
    pub const SEQ: u8 = 1 << 4;
    /// Another TDR than this CPU's record before that named one.
    pub const TDR: u8 = 1 << 5;
    pub const STATUS: u8 = 1 << 6;
    pub const TOOK: u8 = 1 << 7;

    /// The call names no TD.
    pub const NO_TDR: u8 = 1;
    /// Another frame than this CPU's record before that named one.
    pub const PFN: u8 = 1 << 1;
    pub const NO_PFN: u8 = 1 << 2;
    /// Another guest frame than this CPU's record before that named one.
    pub const GFN: u8 = 1 << 3;
    /// Guest frame 0: the call names none.
    pub const NO_GFN: u8 = 1 << 4;
    /// Level or HKID is not 0.
    pub const LEVEL: u8 = 1 << 5;
    pub const ALL: u8 = (1 << 6) - 1;
}

/// What the last page record of a CPU said.
#[derive(Clone, Copy, Debug, Default)]
struct Last {
    seq: u64,
    tdr: u64,
    pfn: u64,
    gfn: u64,
    tgid: u32,
    tid: u32,
}

/// What both ends keep while a frame lasts.
#[derive(Debug, Default)]
struct Context {
    cpus: Vec<Last>,
    cpu: u16,
    time_ns: u64,
}

impl Context {
    fn last(&mut self, cpu: u16) -> &mut Last {
        let at = usize::from(cpu);
        if at >= self.cpus.len() {
            self.cpus.resize(at + 1, Last::default());
        }
        &mut self.cpus[at]
    }
}

const fn zigzag(step: u64) -> u64 {
    (step << 1) ^ ((step as i64 >> 63) as u64)
}

const fn unzigzag(coded: u64) -> u64 {
    (coded >> 1) ^ (coded & 1).wrapping_neg()
}
