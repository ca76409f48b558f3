//! What is made of recordings: exports, minimized ones, reports.
//!
//! With SEPTWATCH_BLESS=1 the expected report is written anew; read the difference before committing it.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot unwrap has failed")]

mod story;

use std::{
    fs,
    path::{Path, PathBuf},
};

use septwatch::{
    export::{self, Format, rows::COLUMNS},
    minimize::{self, MinimizeError, Wanted},
    recording::{
        reader::Reader,
        replay::{Replay, Step},
    },
    report,
    source::event::Event,
};
use septwatch_common::Violation;
use story::Story;

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.swt");
    Story::told_whole().write(&path);
    (folder, path)
}

fn exported(path: &Path, to: Format) -> (Vec<u8>, export::Exported) {
    let out = path.with_extension(to.extension());
    let file = Box::new(fs::File::create(&out).unwrap());
    let done = export::export(path, to, file, &mut |_| {}).unwrap();
    (fs::read(out).unwrap(), done)
}

#[test]
fn tables_and_lines_have_every_event_once() {
    let (_folder, path) = folder();
    let story = Story::told_whole();
    let (lines, done) = exported(&path, Format::Jsonl);
    assert_eq!((done.events, done.damages), (story.events.len() as u64, 0));
    let lines: Vec<serde_json::Value> = std::str::from_utf8(&lines)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of = |kind: &str| lines.iter().filter(|line| line["type"] == kind).count();
    let calls = story.events.iter().filter(|(event, _)| matches!(event, Event::Call(_))).count();
    assert_eq!([of("recording"), of("step"), of("end"), of("td"), of("frame")], [1, 1, 1, 2, 2]);
    assert_eq!([of("seamcall"), of("violation")], [calls, 4]);
    assert_eq!(lines.len(), story.events.len() + 3);

    let (table, _) = exported(&path, Format::Csv);
    let mut reader = csv::Reader::from_reader(table.as_slice());
    let names: Vec<_> = COLUMNS.iter().map(|column| column.name).collect();
    assert_eq!(reader.headers().unwrap().iter().collect::<Vec<_>>(), names);
    let rows: Vec<_> = reader.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), story.events.len());
    let at = |name: &str| names.iter().position(|column| *column == name).unwrap();
    let refused = rows.iter().find(|row| &row[at("status_name")] == "TDX_EPT_ENTRY_STATE_INCORRECT").unwrap();
    let told =
        ["time_ns", "realtime", "type", "td", "tdr_pfn", "leaf", "gfn", "pfn", "status", "took_ns", "comm"];
    let told = told.map(|name| &refused[at(name)]);
    assert_eq!(
        told,
        [
            "5002256000",
            "2026-11-25T01:33:14.002256000Z",
            "seamcall",
            "1",
            "4096",
            "TDH.MEM.PAGE.REMOVE",
            "256",
            "",
            "0xc0000b0d00000001",
            "500",
            ""
        ]
    );
    // The frames that WBINVD names no TD for were a TD's all the same.
    assert!(
        rows.iter()
            .filter(|row| &row[at("leaf")] == "TDH.PHYMEM.PAGE.WBINVD")
            .all(|row| &row[at("td")] == "1")
    );
}

#[test]
fn what_can_be_read_of_a_damaged_recording_is_exported() {
    let (_folder, path) = folder();
    let mut bytes = fs::read(&path).unwrap();
    let end = bytes.len();
    bytes.truncate(end - 10);
    fs::write(&path, bytes).unwrap();
    for to in [Format::Jsonl, Format::Csv, Format::Perfetto] {
        let (_, done) = exported(&path, to);
        assert_eq!((done.events, done.damages), (Story::told_whole().events.len() as u64, 1), "{to:?}");
    }
}

#[test]
fn every_violation_is_minimized_and_still_shown() {
    let (folder, path) = folder();
    let expected = [
        // CREATE, AUG, BLOCK and REMOVE matter to it; TRACK does not.
        (Violation::ZapFailed, true, 4),
        (Violation::FreedWhileBlocked, true, 5),
        (Violation::ReusedWhileMapped, true, 6),
        (Violation::VmBugged, false, 0),
    ];
    for (violation, is_found, pages) in expected {
        let made = minimize::minimize(&path, Wanted::Named(violation)).unwrap();
        let name = violation.name();
        assert_eq!((made.is_found_again, made.is_smallest), (is_found, is_found), "{name}");
        assert_eq!(made.events[0], Story::told_whole().events.len() as u64);
        assert!(made.events[1] < 20, "{name}: {:?}", made.events);
        let small = folder.path().join("small.swt");
        fs::write(&small, &made.bytes).unwrap();
        let mut replay = Replay::open(&small).unwrap();
        let (mut found, mut calls) = (Vec::new(), 0);
        for step in replay.by_ref() {
            match step {
                Step::Event { event, found: None } => calls += usize::from(!event.is_vital()),
                Step::Event { found: Some(told), .. } => found.push(told.0.violation),
                Step::Note(_) | Step::Damage(_) => {}
            }
        }
        assert!(found.contains(&violation), "{name}: {found:?}");
        assert!(!is_found || calls <= pages, "{name}: {calls}");
        // Numbers are those of the original, and their gaps are no loss.
        let about = replay.header().minimized.clone().unwrap();
        assert_eq!((about.violation.as_str(), about.left_out), (name, made.events[0] - made.events[1]));
        assert_eq!((replay.lost(), replay.damages()), (0, 0));
        let standing = replay.standing();
        assert!(standing.pages.is_exact() && standing.vital.is_exact(), "{standing:?}");
        assert!(!is_found || replay.differences().is_none() && replay_agrees(&small), "{name}");
        // What is smallest stays as it is.
        let again = minimize::minimize(&small, Wanted::Named(violation)).unwrap();
        assert_eq!(again.events, [made.events[1]; 2], "{name}");
    }
}

fn replay_agrees(path: &Path) -> bool {
    let mut replay = Replay::open(path).unwrap();
    replay.by_ref().for_each(drop);
    replay.differences().agreed > 0
}

#[test]
fn a_minimized_recording_keeps_the_numbers_of_its_original() {
    let (folder, path) = folder();
    let made = minimize::minimize(&path, Wanted::Number(1)).unwrap();
    let small = folder.path().join("small.swt");
    fs::write(&small, &made.bytes).unwrap();
    let mut seqs: Vec<_> = Reader::open(&small)
        .unwrap()
        .filter_map(|item| match item {
            septwatch::recording::reader::Item::Event(event) if !event.is_vital() => Some(event.header().seq),
            _ => None,
        })
        .collect();
    seqs.dedup();
    assert!(seqs.windows(2).any(|pair| pair[1] > pair[0] + 1), "{seqs:?}");
}

#[test]
fn a_violation_that_is_not_there_is_an_error() {
    let (_folder, path) = folder();
    for wanted in [Wanted::Number(5), Wanted::Named(Violation::DoubleMap)] {
        let Err(error) = minimize::minimize(&path, wanted) else { panic!("{wanted:?}") };
        assert!(matches!(error, MinimizeError::NoSuch { total: 4, .. }), "{error}");
        assert!(error.to_string().contains("it has 4 violations"), "{error}");
    }
}

#[test]
fn a_report_is_a_mail_and_names_no_host() {
    let (_folder, path) = folder();
    let told = report::collect(&path, Some(Wanted::Named(Violation::FreedWhileBlocked))).unwrap();
    let text = report::write(&told, false);
    let expected =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/report/freed-while-blocked.txt");
    if std::env::var_os("SEPTWATCH_BLESS").is_some() {
        fs::write(&expected, &text).unwrap();
    }
    assert_eq!(text, fs::read_to_string(expected).unwrap());
    let all = report::collect(&path, None).unwrap();
    let texts = [text, report::write(&all, false), report::write(&all, true)];
    for text in texts {
        let wide = text.lines().find(|line| line.chars().count() > 76);
        assert_eq!(wide, None);
        assert!(text.contains("KVM_BUG_ON"), "{text}");
        for private in ["somehost", path.to_str().unwrap(), "a.swt"] {
            assert!(!text.contains(private), "{private} in {text}");
        }
    }
    assert_eq!(all.cases.len(), 4);
}
