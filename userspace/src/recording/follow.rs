//! Keeping up with what is recorded, so that a recording can begin in the middle: the model and the ledger as they are
//! after the records that were taken in.

use zstd::bulk::Decompressor;

use super::{
    State,
    codec::{Decoder, Record},
    header::{Header, Streams},
    replay,
    writer::Packed,
};
use crate::{
    model::{Model, rerun::Rerun},
    source::event::Event,
};

/// The model and the ledger.
pub struct Follow {
    model: Model,
    rerun: Rerun,
    /// Whether lines from before the recording are missing.
    taken_over: bool,
    decompressor: Option<Decompressor<'static>>,
    decoder: Decoder,
    raw: Vec<u8>,
    event: Event,
}

impl Follow {
    /// Begins where a recording begins.
    pub fn new(header: &Header, state: &State) -> Self {
        let mut model = Model::default();
        replay::begin(&mut model, header, Some(state));
        Self {
            model,
            rerun: replay::ledger(header, Some(state), usize::MAX),
            taken_over: header.ledger.taken_over,
            decompressor: Decompressor::new().ok(),
            decoder: Decoder::default(),
            raw: Vec::new(),
            event: Event::NONE,
        }
    }

    /// Takes records in. They are our own, of this version.
    pub fn take(&mut self, packed: &Packed) {
        let (stored, raw) = packed.stored();
        self.raw.clear();
        self.raw.reserve(raw as usize);
        let Some(decompressor) = &mut self.decompressor else { return };
        if decompressor.decompress_to_buffer(stored, &mut self.raw).is_err() {
            return;
        }
        self.decoder.begin();
        while let Ok(Some(record)) = self.decoder.next(&self.raw, &mut self.event) {
            match record {
                Record::Page => {}
                Record::Vital { bytes, .. } => match Event::parse(bytes) {
                    Ok(event) => self.event = event,
                    Err(_) => continue,
                },
                Record::Note(_) => continue,
            }
            self.model.apply(&self.event);
            self.rerun.apply(&self.event);
        }
    }

    /// What a file that begins here must say: what was numbered before, and what is known.
    pub fn state(&self) -> (Vec<Streams>, State) {
        let ledger = self.rerun.ledger().snapshot();
        let state = if self.taken_over {
            State { tds: ledger.tds, ledger: None }
        } else {
            State { tds: Vec::new(), ledger: Some(ledger) }
        };
        let before = self.model.accounting.so_far();
        (before.iter().map(Streams::from).collect(), state)
    }
}
