//! Writing what was kept, and reading it back.

use std::{io, path::Path};

use super::{MinimizeError, Target, is_target, oracle::Shown, source::Kept, subject::Subject};
use crate::{
    recording::{
        State,
        codec::Encoder,
        header::{Clock, Counted, End, Header, Minimized, Note, Streams},
        reader::{Item, Reader},
        recorder::FRAME,
        replay::{self, Replay, Step},
        schema,
        writer::{Packer, Writer},
    },
    source::event::Event,
    view::stack::Places,
};

/// What was known before, as far as it is about the subject.
pub fn reduced(state: &State, subject: &Subject) -> State {
    let mut state = state.clone();
    let is_td = |tdr: u64| subject.tds.iter().any(|td| td.tdr == tdr);
    state.tds.retain(|kept| is_td(kept.record.tdr));
    if let Some(ledger) = &mut state.ledger {
        let ids: Vec<_> =
            ledger.tds.iter().filter(|kept| is_td(kept.record.tdr)).map(|kept| kept.record.id).collect();
        ledger.tds.retain(|kept| is_td(kept.record.tdr));
        let owners: Vec<_> = ledger.tds.iter().map(|kept| kept.index).collect();
        ledger.lines.retain(|(pfn, line)| owners.contains(&line.owner()) || subject.pfns.contains(pfn));
        ledger.zaps.retain(|kept| ids.contains(&kept.key.td));
        ledger.windows.retain(|(pfn, _)| subject.pfns.contains(pfn));
    }
    state
}

/// A recording of these events, with what was known before them.
pub fn write(
    header: &Header,
    state: &State,
    events: &[Kept],
    target: &Target,
    left_out: u64,
    end: Option<End>,
) -> Result<Vec<u8>, MinimizeError> {
    let header = Header {
        before: Vec::new(),
        minimized: Some(Minimized {
            violation: target.verdict.violation.name().to_owned(),
            number: target.number,
            left_out,
        }),
        // The layouts are those of the records as they are in memory.
        schema: schema::current(),
        ..header.clone()
    };
    let mut packer = Packer::new()?;
    let mut writer = Writer::begin(Vec::new(), &mut packer, &header, state)?;
    let mut encoder = Encoder::default();
    let mut counted = Counted { time_ns: target.event.header.time_ns, ..Counted::default() };
    for Kept { event, places } in events {
        encoder.event(event);
        let cpu = usize::from(event.header().cpu);
        if counted.cpus.len() <= cpu {
            counted.cpus.resize(cpu + 1, Streams::default());
        }
        let of_cpu = &mut counted.cpus[cpu];
        let stream = if event.is_vital() { &mut of_cpu.vital } else { &mut of_cpu.pages };
        stream[0] += 1;
        if let Some(Places { kernel, user }) = places.clone() {
            encoder.note(&serde_json::to_vec(&Note::Places { kernel, user }).map_err(io::Error::from)?);
        }
        if encoder.len() > FRAME {
            flush(&mut encoder, &mut packer, &mut writer)?;
        }
    }
    flush(&mut encoder, &mut packer, &mut writer)?;
    let original = end.unwrap_or_default();
    let clock = if original.clock == Clock::default() { header.clock } else { original.clock };
    writer.end(&mut packer, &End { clock, counted: Some(counted), ..End::default() })?;
    Ok(std::mem::take(writer.output()))
}

fn flush(encoder: &mut Encoder, packer: &mut Packer, writer: &mut Writer<Vec<u8>>) -> io::Result<()> {
    let (raw, records) = encoder.take();
    if records == 0 { Ok(()) } else { writer.records(&mut packer.pack(&raw, records)?) }
}

/// Whether a recording, read back, has the recorded verdict, and the ledger finds what must be shown, and nothing that
/// was not recorded.
pub fn shows(bytes: &[u8], path: &Path, target: &Target, shown: Option<Shown>) -> bool {
    let Ok(reader) = Reader::new(bytes, path) else { return false };
    let mut replay = Replay::new(reader);
    let mut is_recorded = false;
    for step in replay.by_ref() {
        if let Step::Event { event: Event::Violation(event), found: Some(found) } = step {
            is_recorded |= is_target(&event, target) && found.1 == target.places;
        }
    }
    let is_sound = replay.damages() == 0 && replay.lost() == 0;
    if shown.is_some() && !replay.differences().is_none() {
        return false;
    }
    let is_found = shown.is_none_or(|shown| {
        let Ok(mut reader) = Reader::new(bytes, path) else { return false };
        let header = reader.header().clone();
        let first = reader.next();
        let state = reader.state();
        let mut rerun = replay::ledger(&header, state.as_ref(), replay::CHUNKS);
        first.into_iter().chain(reader).any(|item| {
            let Item::Event(event) = item else { return false };
            rerun.apply(&event).is_some_and(|found| Shown::of(&found, &rerun) == shown)
        })
    });
    is_recorded && is_sound && is_found
}
