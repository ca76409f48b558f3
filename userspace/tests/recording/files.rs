//! The recorder's files: one, several in turn, and those of a ring.

use std::{fs, path::Path, time::Duration};

use septwatch::{
    recording::{
        State,
        files::{Files, Limits, Ring, Written},
        header::{End, What, Why},
        recorder::Recorder,
        replay::{Replay, Step},
    },
    source::event::Event,
};
use septwatch_common::wire::{Kind, ViolationEvent};
use zerocopy::FromZeros as _;

use super::{events, header};

fn violation(time_ns: u64) -> Event {
    let mut event = ViolationEvent::new_zeroed();
    event.header = events::head(time_ns, 0, 3, Kind::Violation);
    Event::Violation(Box::new(event))
}

/// Records 200,000 maps, a violation after each of `violations`, and what comes of it.
fn record(files: Files, violations: &[u64]) -> Written {
    let mut recorder = Recorder::new(What::All, files).unwrap();
    let mut found = 0;
    for n in 0..200_000 {
        let Event::Call(mut call) = events::call(n * 1_000_000, n) else { unreachable!() };
        // Frames come in no order: that is what takes room.
        call.call.pfn = (n * 0x9_e375) % (1 << 20);
        recorder.event(&Event::Call(call));
        if violations.contains(&n) {
            let Event::Violation(mut event) = violation(n * 1_000_000) else { unreachable!() };
            event.header.seq = found;
            found += 1;
            recorder.event(&Event::Violation(event));
            recorder.tend();
        }
    }
    recorder.finish(End { why: Why::Stopped, ..End::default() })
}

/// Events of a file, and the numbers of open lines before and after it.
fn replayed(path: &Path) -> (u64, usize, usize) {
    let mut replay = Replay::open(path).unwrap();
    let before = replay.ledger().open_lines().count();
    let events = replay.by_ref().filter(|step| matches!(step, Step::Event { .. })).count();
    assert_eq!(replay.damages(), 0);
    assert_eq!(replay.lost(), 0, "{}", path.display());
    (events as u64, before, replay.ledger().open_lines().count())
}

#[test]
fn a_recording_in_several_files_goes_on_where_the_last_one_ended() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.swt");
    let limits = Limits { file_bytes: Some(10 << 10), ..Limits::default() };
    let written = record(Files::create(&path, header(), State::default(), limits).unwrap(), &[]);
    assert!(written.files.len() > 2, "{written:?}");
    assert_eq!(written.files[0], folder.path().join("trace.0000.swt"));
    assert_eq!(written.records, 200_000);
    let (mut total, mut open) = (0, 0);
    for (part, file) in written.files.iter().enumerate() {
        let (events, before, after) = replayed(file);
        // The first of them also shows that there is a TD, and so its TDR.
        let tdr = u64::from(part == 0);
        assert_eq!((before as u64, after as u64), (open, open + events + tdr), "{}", file.display());
        open = after as u64;
        assert_eq!(Replay::open(file).unwrap().header().part as usize, part);
        total += events;
    }
    assert_eq!(total, 200_000);
    let bytes: u64 = written.files.iter().map(|file| fs::metadata(file).unwrap().len()).sum();
    assert_eq!(bytes, written.bytes);

    // The next run goes on counting, and the oldest files go.
    let limits = Limits { disk_bytes: Some(30 << 10), ..limits };
    let again = record(Files::create(&path, header(), State::default(), limits).unwrap(), &[]);
    let left: u64 =
        fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(left <= 30 << 10 || again.files.len() == 1, "{left}");
    assert!(again.files[0] > written.files[0]);
    assert!(again.files.iter().all(|file| file.exists()));
}

#[test]
fn a_ring_is_written_when_a_violation_happens() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.swt");
    let ring = Ring { last: Duration::from_secs(20), bytes: 1 << 30, after: Duration::from_millis(1) };
    let files = Files::on_violation(&path, header(), State::default(), Limits::default(), ring).unwrap();
    // The events are a millisecond apart: the ring holds some 20,000 of them, and the frame that they end in.
    let written = record(files, &[100_000, 180_000]);
    assert_eq!(written.files.len(), 2, "{written:?}");
    assert!(!written.short);
    for (file, at) in written.files.iter().zip([100_000_u64, 180_000]) {
        let (events, before, after) = replayed(file);
        assert!(events > 20_000, "{events}");
        assert_eq!(before + events as usize - 1, after, "all but the violation are maps");
        let mut replay = Replay::open(file).unwrap();
        let last = replay.by_ref().filter_map(|step| match step {
            Step::Event { event, found: Some(_) } => Some(event.header().time_ns),
            _ => None,
        });
        assert_eq!(last.collect::<Vec<_>>(), [at * 1_000_000]);
        assert_eq!(replay.end().unwrap().why, Why::Violation);
    }
    let none = Files::on_violation(&path, header(), State::default(), Limits::default(), ring).unwrap();
    assert_eq!(record(none, &[]).records, 0);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn a_ring_without_memory_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let ring = Ring { last: Duration::from_secs(1 << 20), bytes: 10_000, after: Duration::from_millis(1) };
    let path = folder.path().join("trace.swt");
    let files = Files::on_violation(&path, header(), State::default(), Limits::default(), ring).unwrap();
    let written = record(files, &[190_000]);
    assert!(written.short);
    let (events, before, _) = replayed(&written.files[0]);
    assert!(events + before as u64 > 190_000, "what left the ring is in the ledger");
}

#[test]
fn only_a_recording_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    fs::write(&path, "do not lose this").unwrap();
    let create = |path: &Path| Files::create(path, header(), State::default(), Limits::default());
    let error = create(&path).err().unwrap().to_string();
    assert!(error.ends_with("the file is there, and is no recording: it is not replaced"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "do not lose this");
    let path = folder.path().join("trace.swt");
    assert_eq!(record(create(&path).unwrap(), &[]).records, 200_000);
    let end = create(&path).unwrap().end(End::default());
    assert_eq!((end.records, end.failed), (0, None));
    assert_eq!(replayed(&path).0, 0);
}
