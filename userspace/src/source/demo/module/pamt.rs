//! Who owns each frame: the Physical Address Metadata Table.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use septwatch_common::Level;

use super::lock;

/// What a frame is to the module. The discriminants are the PAMT's page types (TDX Module ABI specification).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum PageKind {
    /// A guest's private page (`PT_REG`).
    Leaf = 3,
    /// The root of a TD (`PT_TDR`).
    Tdr = 4,
    /// A control page of a TD or of one of its vCPUs (`PT_TDCX`).
    Tdcx = 5,
    /// The root of a vCPU (`PT_TDVPR`).
    Tdvpr = 6,
    /// A page of the secure EPT (`PT_EPT`).
    Sept = 8,
}

/// The metadata of an owned page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub kind: PageKind,
    /// Frame of the owner's TDR; a TDR owns itself.
    pub owner: u64,
    /// First guest frame it serves; only for leaves and S-EPT pages.
    pub gfn: Option<u64>,
    /// Size of the page. (An S-EPT page is 4 KiB whatever level its entry is on.)
    pub size: Level,
    /// The level of its S-EPT entry, for leaves and S-EPT pages.
    pub entry: Level,
    /// Owner and guest frame that it served already when it was seized for another: one frame, mapped twice.
    pub also: Option<(u64, Option<u64>)>,
}

/// What the table says about a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Record {
    Owned(Meta),
    /// Given back, but lines of it with this HKID may still be in a cache. The real table does not hold this; it is
    /// the ground truth of "freed unflushed".
    Unflushed {
        hkid: u16,
        owner: u64,
        gfn: Option<u64>,
    },
}

const SHARDS: usize = 64;
type Shard = HashMap<u64, Record>;

/// The table, sharded so that threads that work on different memory do not meet.
#[derive(Debug)]
pub(super) struct Pamt {
    /// A shard holds whole 2 MiB ranges, so that a page of either size needs one lock.
    shards: [Mutex<Shard>; SHARDS],
}

fn covering(shard: &Shard, pfn: u64) -> Option<Record> {
    shard.get(&pfn).copied().or_else(|| {
        shard
            .get(&Level::L2M.head(pfn))
            .filter(|record| matches!(record, Record::Owned(meta) if meta.size == Level::L2M))
            .copied()
    })
}

impl Pamt {
    pub(super) fn new() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()) }
    }

    fn shard(&self, pfn: u64) -> MutexGuard<'_, Shard> {
        lock(&self.shards[(pfn >> 9) as usize % SHARDS])
    }

    /// The record that covers a frame: its own or that of the 2 MiB page around it.
    pub(super) fn lookup(&self, pfn: u64) -> Option<Record> {
        covering(&self.shard(pfn), pfn)
    }

    /// The metadata of the owned page that starts at or covers a frame.
    pub(super) fn owned(&self, pfn: u64) -> Option<Meta> {
        match self.lookup(pfn) {
            Some(Record::Owned(meta)) => Some(meta),
            _ => None,
        }
    }

    /// Takes a page that nobody owns. Returns whether it was free: every frame of it, for a 2 MiB page.
    pub(super) fn claim(&self, pfn: u64, meta: Meta) -> bool {
        let mut shard = self.shard(pfn);
        if matches!(covering(&shard, pfn), Some(Record::Owned(_))) {
            return false;
        }
        let last = pfn + meta.size.frames();
        if meta.size != Level::L4K
            && (pfn..last).any(|frame| matches!(shard.get(&frame), Some(Record::Owned(_))))
        {
            return false;
        }
        shard.insert(pfn, Record::Owned(meta));
        true
    }

    /// Takes a page whoever owns it: what a correct module never does.
    pub(super) fn seize(&self, pfn: u64, meta: Meta) {
        let mut shard = self.shard(pfn);
        let also = match shard.get(&pfn) {
            Some(Record::Owned(first)) => Some((first.owner, first.gfn)),
            _ => None,
        };
        shard.insert(pfn, Record::Owned(Meta { also, ..meta }));
    }

    /// Gives a page back that served `owner` at `gfn`; its cache lines with this HKID may remain.
    pub(super) fn release_unflushed(&self, pfn: u64, hkid: u16, owner: u64, gfn: u64) {
        let mut shard = self.shard(pfn);
        let Some(Record::Owned(meta)) = shard.get(&pfn).copied() else { return };
        if let Some(also) = meta.also {
            let served = (owner, Some(gfn));
            let (owner, gfn) = if served == also { (meta.owner, meta.gfn) } else { also };
            shard.insert(pfn, Record::Owned(Meta { owner, gfn, also: None, ..meta }));
            return;
        }
        let unflushed = Record::Unflushed { hkid, owner, gfn: Some(gfn) };
        for frame in pfn..pfn + meta.size.frames() {
            shard.insert(frame, unflushed);
        }
    }

    /// Gives a page back whose key is gone, so that no cache line of it can matter.
    pub(super) fn release(&self, pfn: u64) {
        self.shard(pfn).remove(&pfn);
    }

    /// A frame's cache lines with this HKID were written back.
    pub(super) fn flushed(&self, pfn: u64, hkid: u16) {
        let mut shard = self.shard(pfn);
        if matches!(shard.get(&pfn), Some(Record::Unflushed { hkid: of, .. }) if *of == hkid) {
            shard.remove(&pfn);
        }
    }

    /// Every cache line with this HKID was written back.
    pub(super) fn all_flushed(&self, hkid: u16) {
        for shard in &self.shards {
            lock(shard)
                .retain(|_, record| !matches!(record, Record::Unflushed { hkid: of, .. } if *of == hkid));
        }
    }

    /// All owned pages, in no order.
    pub(super) fn all_owned(&self) -> Vec<(u64, Meta)> {
        let mut all = Vec::new();
        for shard in &self.shards {
            all.extend(lock(shard).iter().filter_map(|(pfn, record)| match record {
                Record::Owned(meta) => Some((*pfn, *meta)),
                Record::Unflushed { .. } => None,
            }));
        }
        all
    }
}
