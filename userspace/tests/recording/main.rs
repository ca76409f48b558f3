//! Recordings: what is written is read back, and whatever else a file holds is told, and harms nobody.
#![expect(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]

mod damage;
mod events;
mod files;
mod hostile;

use proptest::prelude::*;
use septwatch::{
    recording::{
        State,
        codec::Encoder,
        header::{Clock, End, Header, Note, What},
        reader::{Item, OpenError, Reader},
        schema,
        writer::{Packer, Writer},
    },
    source::event::Event,
};

/// The header of a recording of everything.
fn header() -> Header {
    Header { what: What::All, schema: schema::current(), ..Header::default() }
}

/// A recording with these frames of events, and its end.
fn written(frames: &[Vec<Event>]) -> Vec<u8> {
    let mut packer = Packer::new().unwrap();
    let mut bytes = Vec::new();
    let mut writer = Writer::begin(&mut bytes, &mut packer, &header(), &State::default()).unwrap();
    let mut encoder = Encoder::default();
    for events in frames {
        for event in events {
            encoder.event(event);
        }
        let (raw, records) = encoder.take();
        writer.records(&mut packer.pack(&raw, records).unwrap()).unwrap();
    }
    writer.end(&mut packer, &End { clock: Clock::now(), ..End::default() }).unwrap();
    bytes
}

/// Everything that is read of a recording.
fn read(bytes: &[u8]) -> Result<Vec<Item>, OpenError> {
    Ok(Reader::new(bytes, "a.swt".as_ref())?.collect())
}

fn events_of(items: &[Item]) -> Vec<&Event> {
    items.iter().filter_map(|item| if let Item::Event(event) = item { Some(event) } else { None }).collect()
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        frames in prop::collection::vec(prop::collection::vec(events::event(), 0..40), 0..5)
    ) {
        let items = read(&written(&frames)).unwrap();
        let all: Vec<_> = frames.iter().flatten().collect();
        prop_assert_eq!(items.len(), all.len(), "{:?}", items);
        prop_assert_eq!(events_of(&items), all);
    }

    #[test]
    fn runs_of_like_events_are_read_back(events in events::run()) {
        let frames = [events];
        let items = read(&written(&frames)).unwrap();
        prop_assert_eq!(events_of(&items), frames.iter().flatten().collect::<Vec<_>>());
    }
}

#[test]
fn notes_stay_where_they_were() {
    let mut packer = Packer::new().unwrap();
    let mut bytes = Vec::new();
    let mut writer = Writer::begin(&mut bytes, &mut packer, &header(), &State::default()).unwrap();
    let mut encoder = Encoder::default();
    let step = Note::Step { time_ns: 7, text: "TD 1 is built".to_owned() };
    let places = Note::Places { kernel: vec!["kvm_gmem_release+0x1f".to_owned()], user: Vec::new() };
    let event = events::call(1, 0);
    encoder.note(&serde_json::to_vec(&step).unwrap());
    encoder.event(&event);
    encoder.note(&serde_json::to_vec(&places).unwrap());
    // A later version's.
    encoder.note(br#"{"note": "weather", "rain": true}"#);
    let (raw, records) = encoder.take();
    writer.records(&mut packer.pack(&raw, records).unwrap()).unwrap();
    writer.end(&mut packer, &End::default()).unwrap();
    let mut reader = Reader::new(&bytes[..], "a.swt".as_ref()).unwrap();
    assert!(matches!(reader.next(), Some(Item::Note(note)) if note == step));
    assert!(matches!(reader.next(), Some(Item::Event(read)) if read == event));
    assert!(matches!(reader.next(), Some(Item::Note(note)) if note == places));
    assert!(reader.next().is_none());
    assert_eq!(reader.unknown(), 1);
    assert_eq!(reader.end(), Some(&End::default()));
}

#[test]
fn a_page_record_takes_few_bytes() {
    let mut encoder = Encoder::default();
    let calls = 10_000;
    for n in 0..calls {
        encoder.event(&events::call(1_000_000 + 1_500 * n, n));
    }
    // Flags, leaf, two bytes of time, and the steps of pfn and gfn.
    assert!(encoder.len() as u64 <= 8 * calls, "{} bytes for {calls} calls", encoder.len());
}
