//! Files whose checksums are right and whose contents are not.

use proptest::prelude::*;
use septwatch::{
    recording::{
        State,
        frame::{Head, Kind, MAX_BYTES, Preface},
        header::{Counted, End, Header, What},
        reader::{Fault, Item, OpenError, Reader},
        replay::Replay,
        schema::{Field, Layout},
        writer::{Packer, Writer},
    },
    regression::run::Run,
};
use septwatch_common::Leaf;
use zerocopy::IntoBytes as _;

use super::{header, read};

/// A recording with frames of these contents.
fn with(contents: &[(Kind, Vec<u8>, u32)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut packer = Packer::new().unwrap();
    Writer::begin(&mut bytes, &mut packer, &header(), &State::default()).unwrap();
    let mut first = 0;
    for (number, (kind, raw, records)) in (1..).zip(contents) {
        let payload = zstd::bulk::compress(raw, 1).unwrap();
        let head = Head::new(*kind, number, raw.len() as u32, *records, first, &payload);
        bytes.extend(head.as_bytes());
        bytes.extend(payload);
        first += u64::from(*records);
    }
    bytes
}

proptest! {
    #[test]
    fn random_contents_harm_nobody(
        raw in prop::collection::vec(any::<u8>(), 0..400),
        records in 0..100_u32,
        kind in prop_oneof![Just(Kind::Header), Just(Kind::Records), Just(Kind::State), Just(Kind::End)],
    ) {
        let bytes = with(&[(kind, raw, records)]);
        let mut replay = Replay::new(Reader::new(&bytes[..], "a.swt".as_ref()).unwrap());
        // Each event takes four bytes or more.
        let steps = replay.by_ref().count();
        prop_assert!(steps <= 110, "{steps}");
        let _ = replay.standing();
        let _ = replay.differences();
    }

    #[test]
    fn a_random_file_harms_nobody(raw in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = read(&raw);
        let mut begun = with(&[]);
        begun.extend(raw);
        let _ = read(&begun);
    }
}

fn only_damage(items: &[Item]) -> Fault {
    let mut damages = items.iter().filter_map(|item| match item {
        Item::Damage(damage) if damage.fault != Fault::NoEnd => Some(damage.fault),
        _ => None,
    });
    let first = damages.next();
    assert_eq!(damages.next(), None);
    first.unwrap()
}

#[test]
fn a_frame_that_is_not_what_its_head_says_is_told() {
    // A SEAMCALL of four bytes, and a head that promises two of them.
    let call = vec![2, 1 | 4 | 16, 6, 0];
    assert_eq!(only_damage(&read(&with(&[(Kind::Records, call.clone(), 2)])).unwrap()), Fault::Content(4));
    assert_eq!(only_damage(&read(&with(&[(Kind::Records, call, 0)])).unwrap()), Fault::Content(4));
    assert_eq!(only_damage(&read(&with(&[(Kind::Records, vec![4], 1)])).unwrap()), Fault::Content(0));
    assert_eq!(only_damage(&read(&with(&[(Kind::State, vec![0xff; 9], 0)])).unwrap()), Fault::Content(0));
    assert_eq!(only_damage(&read(&with(&[(Kind::Header, b"{}".to_vec(), 0)])).unwrap()), Fault::Content(0));
}

#[test]
fn contents_that_unpack_to_more_than_is_said_are_refused() {
    let payload = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap();
    for said in [1 << 20, MAX_BYTES, MAX_BYTES + 1] {
        let mut bytes = with(&[]);
        bytes.extend(Head::new(Kind::Records, 1, said, 0, 0, &payload).as_bytes());
        bytes.extend(&payload);
        let fault = if said > MAX_BYTES { Fault::Head } else { Fault::Content(0) };
        assert_eq!(only_damage(&read(&bytes).unwrap()), fault);
    }
}

#[test]
fn a_header_that_makes_no_sense_is_refused() {
    let begin = |header: &Header| {
        let mut bytes = Vec::new();
        let mut packer = Packer::new().unwrap();
        let mut writer = Writer::begin(&mut bytes, &mut packer, header, &State::default()).unwrap();
        writer.end(&mut packer, &End::default()).unwrap();
        bytes
    };
    let field = Field { name: "pfn".to_owned(), offset: u32::MAX, size: u32::MAX };
    let layout = Layout { name: "ViolationEvent".to_owned(), kind: 4, size: 8, fields: vec![field] };
    let wrong = Header { schema: vec![layout], ..Header::default() };
    assert!(matches!(read(&begin(&wrong)), Err(OpenError::Header { what: Fault::Content(_), .. })));
    // What an older version did not write has a default.
    assert!(read(&begin(&Header::default())).unwrap().is_empty());

    let preface = Preface::new();
    let payload = zstd::bulk::compress(b"not JSON", 1).unwrap();
    let mut bytes = preface.as_bytes().to_vec();
    bytes.extend(Head::new(Kind::Header, 0, 8, 0, 0, &payload).as_bytes());
    bytes.extend(payload);
    let error = read(&bytes).unwrap_err().to_string();
    assert!(error.starts_with("a.swt: the recording's header, at byte 16, makes no sense"), "{error}");
}

#[test]
fn counts_that_no_kernel_comes_to_are_taken_as_they_are() {
    let leaf = Leaf::MemPageRemove;
    let counted =
        Counted { calls: [(leaf.name().to_owned(), [u64::MAX, 1, 0])].into(), ..Counted::default() };
    let mut bytes = Vec::new();
    let mut packer = Packer::new().unwrap();
    let life = Header { what: What::Life, ..header() };
    let mut writer = Writer::begin(&mut bytes, &mut packer, &life, &State::default()).unwrap();
    writer.end(&mut packer, &End { counted: Some(counted), ..End::default() }).unwrap();
    let run = Run::of(Replay::new(Reader::new(&bytes[..], "a.swt".as_ref()).unwrap()));
    let answers = &run.leaves.unwrap()[&leaf];
    assert_eq!((answers.ok, answers.busy, answers.calls()), (u64::MAX, 1, u64::MAX));
}
