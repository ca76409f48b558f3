//! Records that a recording lacks, and where they were lost.

use septwatch_common::config::Produced;

use crate::{
    model::accounting::Accounting,
    recording::header::{Counted, Header, What},
};

/// What one CPU lost of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// CPU.
    pub cpu: usize,
    /// Whether of the vital stream (lifecycle, violations), or of page records.
    pub vital: bool,
    /// Numbers that are missing between those that arrived.
    pub missing: u64,
    /// Records that the kernel side counted as lost while this was recorded.
    pub counted: u64,
}

/// Everything that is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Of what each CPU lost; those that lost nothing are not there.
    pub lost: Vec<Lost>,
    /// Records that arrived, and that the recorder could not write.
    pub unwritten: u64,
    /// Records that are missing where the file is damaged, as far as that is known.
    pub damaged: u64,
}

impl Loss {
    /// From what arrived and what was counted.
    pub fn of(
        header: &Header,
        accounting: &Accounting,
        counted: Option<&Counted>,
        unwritten: u64,
        damaged: u64,
    ) -> Self {
        let none = [Produced { produced: 0, lost: 0 }; 2];
        let by_cpu = |streams: &[crate::recording::header::Streams], cpu: usize| -> [Produced; 2] {
            streams.get(cpu).map_or(none, Into::into)
        };
        let counts = counted.map_or(&[][..], |counted| &counted.cpus);
        let mut sequences: Vec<[u64; 2]> = Vec::new();
        let streams =
            [accounting.vital_sequences().collect::<Vec<_>>(), accounting.page_sequences().collect()];
        for (at, stream) in streams.into_iter().enumerate() {
            for (cpu, sequence) in stream {
                let cpu = usize::from(cpu);
                sequences.resize(sequences.len().max(cpu + 1), [0; 2]);
                // Where it is known what was numbered before, what is missing at the begin is known too.
                let begin = by_cpu(&header.before, cpu)[at].produced;
                let known = !header.before.is_empty();
                let first = if known { sequence.first().saturating_sub(begin) } else { 0 };
                sequences[cpu][at] = sequence.missing().saturating_add(first);
            }
        }
        let mut lost = Vec::new();
        for cpu in 0..sequences.len().max(counts.len()) {
            for at in 0..2 {
                // A stream that was not recorded, or only in part, has gaps for that.
                let whole = header.what == What::All || (header.what == What::Life && at == 0);
                let wanted = header.what == What::All || at == 0;
                let missing = sequences.get(cpu).map_or(0, |streams| streams[at]);
                let missing = if whole { missing } else { 0 };
                let before = by_cpu(&header.before, cpu)[at].lost;
                let counted = by_cpu(counts, cpu)[at].lost.saturating_sub(before);
                let counted = if wanted { counted } else { 0 };
                if (missing, counted) != (0, 0) {
                    lost.push(Lost { cpu, vital: at == 0, missing, counted });
                }
            }
        }
        Self { lost, unwritten, damaged }
    }

    /// How many records are missing in all.
    ///
    /// Both ways of counting tell the same records: the numbers that are missing are those that the kernel side lost,
    /// that could not be written, or that are in damaged frames. Each can miss some, so the larger holds.
    pub fn total(&self) -> u64 {
        let sum = |of: fn(&Lost) -> u64| self.lost.iter().map(of).fold(0, u64::saturating_add);
        let told = sum(|lost| lost.counted).saturating_add(self.unwritten).saturating_add(self.damaged);
        sum(|lost| lost.missing).max(told)
    }
}
