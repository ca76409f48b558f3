//! Files that are cut off or damaged.

use std::{fs::File, io::Write as _, time::Instant};

use septwatch::{
    recording::{
        frame::{HEAD, Preface},
        reader::{Fault, Item, OpenError, Reader},
    },
    source::event::Event,
};

use super::{events, events_of, read, written};

/// A recording of four frames, and its events.
fn small() -> (Vec<u8>, Vec<Event>) {
    let frames: Vec<Vec<_>> =
        (0..4).map(|frame| (0..5).map(|n| events::call(1 << 20, frame * 5 + n)).collect()).collect();
    (written(&frames), frames.concat())
}

/// Where each frame begins, and where the last ends.
fn frames(bytes: &[u8]) -> Vec<usize> {
    let mut at = size_of::<Preface>();
    let mut begins = vec![at];
    while at < bytes.len() {
        let stored = u32::from_le_bytes(bytes[at + 12..at + 16].try_into().unwrap());
        at += HEAD + stored as usize;
        begins.push(at);
    }
    begins
}

#[test]
fn a_file_cut_off_anywhere_gives_what_is_before() {
    let (bytes, events) = small();
    let begins = frames(&bytes);
    for end in 0..bytes.len() {
        let read = match read(&bytes[..end]) {
            Ok(items) => items,
            Err(error) => {
                assert!(end < begins[1], "cut at {end}: {error}");
                continue;
            }
        };
        // Header, then four frames of five.
        let whole = begins[2..6].iter().filter(|frame_end| **frame_end <= end).count() * 5;
        assert_eq!(events_of(&read), events[..whole].iter().collect::<Vec<_>>(), "cut at {end}");
        let Some(Item::Damage(damage)) = read.last() else { unreachable!("cut at {end}: nothing is said") };
        assert!(damage.last);
        let fault = if begins.contains(&end) { Fault::NoEnd } else { Fault::CutOff };
        assert_eq!(damage.fault, fault, "cut at {end}");
    }
}

#[test]
fn a_flipped_bit_is_found_and_costs_its_frame() {
    let (bytes, events) = small();
    let begins = frames(&bytes);
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let read = match read(&flipped) {
            Ok(items) => items,
            Err(error) => {
                assert!(bit / 8 < begins[1], "bit {bit}: {error}");
                continue;
            }
        };
        let of = begins.iter().rposition(|begin| *begin <= bit / 8).unwrap();
        let in_head = bit / 8 < begins[of] + HEAD;
        let mut expected: Vec<_> = events.iter().collect();
        if (1..5).contains(&of) {
            let first = (of - 1) * 5;
            // Behind a damaged head nothing is found.
            expected.drain(first..if in_head { 20 } else { first + 5 });
        }
        assert_eq!(events_of(&read), expected, "bit {bit}");
        let damages: Vec<_> = read
            .iter()
            .filter_map(|item| if let Item::Damage(found) = item { Some(found) } else { None })
            .collect();
        // Without its last frame a recording has no end.
        let also = usize::from(of == 5 && !in_head);
        assert_eq!(damages.len(), 1 + also, "bit {bit}: {damages:?}");
        assert_eq!(damages[0].at, begins[of] as u64, "bit {bit}");
        if !in_head {
            let missing = if of == 5 { 0 } else { 5 };
            assert_eq!(damages[0].records, Some(missing), "bit {bit}");
        }
    }
}

#[test]
fn frames_that_were_taken_out_are_missed() {
    let (bytes, events) = small();
    let begins = frames(&bytes);
    let mut without = bytes[..begins[2]].to_vec();
    without.extend(&bytes[begins[3]..]);
    let read_back = read(&without).unwrap();
    let expected: Vec<_> = events[..5].iter().chain(&events[10..]).collect();
    assert_eq!(events_of(&read_back), expected);
    let said =
        read_back.iter().find_map(|item| if let Item::Damage(found) = item { Some(found) } else { None });
    assert_eq!(said.map(|damage| (damage.fault, damage.records)), Some((Fault::Order, Some(5))));

    // The same frame twice: its events must not count twice.
    let mut twice = bytes[..begins[3]].to_vec();
    twice.extend(&bytes[begins[2]..]);
    let read_back = read(&twice).unwrap();
    assert_eq!(events_of(&read_back), events.iter().collect::<Vec<_>>());
    assert!(read_back.iter().any(|item| matches!(item, Item::Damage(found) if found.fault == Fault::Order)));
}

#[test]
fn what_is_no_recording_is_refused_by_name() {
    let (bytes, _) = small();
    assert!(matches!(read(b""), Err(OpenError::Empty(_))));
    for other in [&b"P"[..], b"\x89SWT", b"PK\x03\x04 something that is no recording at all", &[0; 4096]] {
        assert!(matches!(read(other), Err(OpenError::Magic(_))), "{other:?}");
    }
    let mut newer = bytes.clone();
    let version = septwatch::recording::frame::VERSION + 1;
    let mut preface = Preface::new();
    preface.version = version.into();
    preface.crc = preface.sum().into();
    newer[..16].copy_from_slice(zerocopy::IntoBytes::as_bytes(&preface));
    let error = read(&newer).unwrap_err();
    assert!(matches!(error, OpenError::Version { version: found, .. } if found == version));
    assert!(
        error.to_string().starts_with("a.swt: format version 2: this septwatch reads versions up to 1"),
        "{error}"
    );
    let missing = Reader::open("/nonexistent/a.swt".as_ref()).err().unwrap();
    assert_eq!(missing.to_string(), "/nonexistent/a.swt: No such file or directory (os error 2)");
}

#[test]
fn ten_gigabytes_of_nothing_are_not_read() {
    let (bytes, events) = small();
    let begins = frames(&bytes);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&bytes[..begins[4]]).unwrap();
    file.as_file().set_len(10 << 30).unwrap();
    let start = Instant::now();
    let read: Vec<_> = Reader::open(file.path()).unwrap().collect();
    assert!(start.elapsed().as_secs() < 5);
    assert_eq!(events_of(&read), events[..15].iter().collect::<Vec<_>>());
    assert!(matches!(read.last(), Some(Item::Damage(damage)) if damage.fault == Fault::Head && damage.last));

    let zeros = tempfile::NamedTempFile::new().unwrap();
    File::options().write(true).open(zeros.path()).unwrap().set_len(10 << 30).unwrap();
    assert!(matches!(Reader::open(zeros.path()), Err(OpenError::Magic(_))));
}
