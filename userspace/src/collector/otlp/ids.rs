//! Ids of traces and spans, made of what a record is: one that is told twice, by this agent or by the next, has the same.

use septwatch_common::wire::Header;
use sha2::{Digest as _, Sha256};

/// Makes ids on one boot of one host.
#[derive(Clone, Debug)]
pub struct Ids {
    boot: String,
}

/// Where a span belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Context {
    /// Its trace.
    pub trace: [u8; 16],
    /// Itself.
    pub span: [u8; 8],
}

impl Ids {
    /// On the boot with this id.
    pub const fn new(boot: String) -> Self {
        Self { boot }
    }

    /// The trace of a record, and its first span. A record's number begins again with each ledger; its time does not.
    pub fn of(&self, header: &Header) -> Context {
        let hash = Sha256::new()
            .chain_update(self.boot.as_bytes())
            .chain_update(header.cpu.to_le_bytes())
            .chain_update(header.seq.to_le_bytes())
            .chain_update(header.time_ns.to_le_bytes());
        let trace = first(hash);
        Context { trace, span: span(&trace, 0) }
    }
}

impl Context {
    /// A span of the same trace, by its number from 1.
    pub fn child(&self, number: u8) -> Self {
        Self { span: span(&self.trace, number), ..*self }
    }
}

fn span(trace: &[u8; 16], number: u8) -> [u8; 8] {
    first(Sha256::new().chain_update(trace).chain_update([number]))
}

/// The first bytes. That all are zero, which is no id, happens less often than hosts fail.
fn first<const N: usize>(hash: Sha256) -> [u8; N] {
    let hash = hash.finalize();
    std::array::from_fn(|at| hash[at])
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_same_record_has_the_same_ids_and_no_other() {
        let header = Header { time_ns: 5, seq: 7, tgid: 1, cpu: 3, kind: 4, version: 3 };
        let of = |boot: &str, header: Header| Ids::new(boot.to_owned()).of(&header);
        let context = of("a", header);
        // Agents of other versions make the same.
        assert_eq!(context, of("a", Header { tgid: 2, ..header }));
        let others = [
            of("b", header),
            of("a", Header { cpu: 4, ..header }),
            of("a", Header { seq: 8, ..header }),
            of("a", Header { time_ns: 6, ..header }),
        ];
        let spans = (1..4).map(|number| context.child(number).span);
        assert_eq!(others.iter().map(|other| other.trace).collect::<HashSet<_>>().len(), 4);
        assert!(others.iter().all(|other| other.trace != context.trace));
        assert_eq!(spans.chain([context.span]).collect::<HashSet<_>>().len(), 4);
    }
}
