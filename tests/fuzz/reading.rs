//! What is fuzzed, without libFuzzer: a test of the main workspace takes this file in, too.
//!
//! The first byte of an input says what the rest is. Checksums would stop nearly every change of a file at a frame's head,
//! so the rest can also be the contents of one frame, in an otherwise sound file, or a file whose checksums are mended.

use std::{
    fs::File,
    io::{self, Write as _},
    os::{fd::AsRawFd as _, unix::fs::FileExt as _},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use clap::Parser;
use septwatch::{
    commands::{self, BadInput},
    export::{self, Format},
    recording::{
        codec::Decoder,
        frame::{Head, Kind, Preface},
        reader::{Got, Reader},
        replay::Replay,
    },
    regression::{
        bless::{Showed, bless},
        changes::changes,
        check::check,
        expect::Expectations,
        run::Run,
        tolerance::Tolerance,
    },
    report,
    source::event::Event,
    view::print::Printer,
};
use zerocopy::{FromBytes as _, IntoBytes as _};

/// First byte: the rest is a file. The numbers of [`Kind`] say that it is the contents of such a frame.
pub const FILE: u8 = 0;

/// First byte: the rest is a file whose checksums are to be mended.
pub const MENDED: u8 = 5;

/// First byte: the rest is frames; of each its kind, the length of its contents (u16, little-endian), its contents.
pub const FRAMES: u8 = 6;

/// What came of an input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Came {
    /// Events in it.
    pub events: u64,
    /// Places where it is damaged.
    pub damages: u64,
    /// Whether it could be read as a recording.
    pub opened: bool,
}

/// A frame as it is before compression.
pub struct Part {
    /// What is in it.
    pub kind: Kind,
    /// Its contents.
    pub raw: Vec<u8>,
    /// Records in it.
    pub records: u32,
}

/// Reads an input in every way in which a command reads a file. None: its first byte means nothing.
///
/// # Panics
/// Something is wrong with septwatch.
pub fn read(input: &[u8]) -> Option<Came> {
    let bytes = file_of(input)?;
    let came = replay(&bytes);
    if came.opened {
        compare(&bytes);
    }
    command(&bytes, came);
    Some(came)
}

/// The file that an input stands for.
fn file_of(input: &[u8]) -> Option<Vec<u8>> {
    let (mode, rest) = input.split_first()?;
    match *mode {
        FILE => Some(rest.to_vec()),
        MENDED => Some(mended(rest.to_vec())),
        FRAMES => Some(file(&listed(rest).iter().collect::<Vec<_>>())),
        kind => Some(with(Kind::from_number(kind)?, rest)),
    }
}

/// The frames of a sound file.
///
/// # Panics
/// It is not sound.
pub fn parts(file: &[u8]) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut rest = &file[size_of::<Preface>()..];
    while let Ok((head, after)) = Head::read_from_prefix(rest) {
        let (stored, next) = after.split_at(head.stored.get() as usize);
        let raw = zstd::bulk::decompress(stored, head.raw.get() as usize).unwrap();
        parts.push(Part { kind: Kind::from_number(head.kind).unwrap(), raw, records: head.records.get() });
        rest = next;
    }
    parts
}

impl Part {
    /// With these contents.
    pub fn new(kind: Kind, raw: &[u8]) -> Self {
        let records = if kind == Kind::Records { count(raw) } else { 0 };
        Self { kind, raw: raw.to_vec(), records }
    }
}

/// The frames that an input lists, up to what is none; the last may be short.
fn listed(mut rest: &[u8]) -> Vec<Part> {
    let mut parts = Vec::new();
    while let Some(([kind, low, high], after)) = rest.split_first_chunk() {
        let Some(kind) = Kind::from_number(*kind) else { break };
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(after.len());
        let (raw, next) = after.split_at(length);
        parts.push(Part::new(kind, raw));
        rest = next;
    }
    parts
}

/// A demo's recording in which the frames of a kind are replaced by one with these contents.
fn with(kind: Kind, contents: &[u8]) -> Vec<u8> {
    static DEMO: OnceLock<Vec<Part>> = OnceLock::new();
    let demo =
        DEMO.get_or_init(|| parts(&include_bytes!("corpus/recording/reused-while-mapped.file.seed")[1..]));
    let own = Part::new(kind, contents);
    let mut frames = Vec::new();
    for place in [Kind::Header, Kind::State, Kind::Records, Kind::End] {
        frames.extend(demo.iter().filter(|part| part.kind == place && kind != place));
        frames.extend(Some(&own).filter(|own| own.kind == place));
    }
    file(&frames)
}

/// A file of these frames.
fn file(frames: &[&Part]) -> Vec<u8> {
    let mut bytes = Preface::new().as_bytes().to_vec();
    let mut first = 0;
    for (number, Part { kind, raw, records }) in (0..).zip(frames) {
        let payload = zstd::bulk::compress(raw, 1).unwrap();
        bytes.extend(Head::new(*kind, number, raw.len() as u32, *records, first, &payload).as_bytes());
        bytes.extend(payload);
        first += u64::from(*records);
    }
    bytes
}

/// Records in the contents of a frame, up to what is none.
fn count(contents: &[u8]) -> u32 {
    let mut decoder = Decoder::default();
    let mut event = Event::NONE;
    let mut records = 0;
    while let Ok(Some(_)) = decoder.next(contents, &mut event) {
        records += 1;
    }
    records
}

/// A file whose checksums are right, as far as its frames follow one another.
fn mended(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Ok((preface, mut rest)) = Preface::mut_from_prefix(&mut bytes) {
        preface.crc = preface.sum().into();
        while let Ok((head, after)) = Head::mut_from_prefix(rest) {
            let stored = after.len().min(head.stored.get() as usize);
            let (payload, next) = after.split_at_mut(stored);
            head.payload_crc = crc32fast::hash(payload).into();
            head.crc = head.sum().into();
            rest = next;
        }
    }
    bytes
}

fn opened(bytes: &[u8]) -> Option<Reader<&[u8]>> {
    Reader::new(bytes, Path::new("a.swt")).ok()
}

/// Through the reader, then through model and ledger, and as lines for people and for machines.
fn replay(bytes: &[u8]) -> Came {
    let Some((reader, again)) = opened(bytes).zip(opened(bytes)) else { return Came::default() };
    let items = reader.count();
    let mut replay = Replay::new(again);
    let mut came = Came { opened: true, ..Came::default() };
    let printers = [false, true].map(|json| Printer { json });
    let out = &mut io::sink();
    let mut steps = 0;
    while let Some(got) = replay.advance() {
        steps += 1;
        match got {
            Got::Event => {
                came.events += 1;
                for printer in printers {
                    printer.event(replay.event(), replay.found(), out).unwrap();
                }
            }
            Got::Note(_) => {}
            Got::Damage(damage) => write!(out, "{damage}").unwrap(),
        }
    }
    // The replay takes the places that follow a violation for its own.
    assert!(steps <= items, "{steps} steps, {items} items");
    came.damages = replay.damages();
    for printer in printers {
        printer.end(replay.model().total(), replay.model(), &replay.standing(), out).unwrap();
    }
    let _ = replay.differences();
    came
}

/// A run fits what is blessed of it, and differs in nothing from itself.
fn compare(bytes: &[u8]) {
    let Some(run) = opened(bytes).map(|reader| Run::of(Replay::new(reader))) else { return };
    let text = bless(&[Showed::of(&run)]);
    let expect = match Expectations::parse(&text) {
        Ok(expect) => expect,
        Err((at, what)) => panic!("byte {at} of what is blessed: {what}\n{text}"),
    };
    for checked in check(&run, Some(&expect), 0) {
        let is_blessed = ["violations", "tds", "hooks", "leaves", "windows"].contains(&checked.name);
        let fits =
            checked.failures.is_empty() || (checked.name == "violations" && run.unknown_violations != 0);
        assert!(fits || !is_blessed, "{checked:?}\n{text}");
    }
    for row in changes(&run, &run, &Tolerance::default()) {
        assert!(row.is_equal() && (!row.out || row.of.is_empty()), "{row:?}");
    }
}

#[derive(Parser)]
enum Command {
    Check(commands::check::Args),
    Diff(commands::diff::Args),
    Replay(commands::replay::Args),
    Report(commands::report::Args),
}

/// A file in memory, and the commands that read it.
struct Place {
    file: File,
    path: PathBuf,
    commands: Vec<Command>,
}

impl Place {
    fn new() -> Self {
        let file =
            File::from(rustix::fs::memfd_create("recording", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let lines = [
            "check FILE --junit /dev/null --markdown /dev/null",
            "check FILE --json",
            "diff FILE FILE --all --markdown /dev/null",
            "diff FILE FILE --json",
            "replay FILE --speed max --all-events",
            "replay FILE --speed max --json --at 1ms",
            "report FILE --all",
            "report FILE --all --markdown",
        ];
        let commands = lines.map(|line| {
            let words = ["septwatch"].into_iter().chain(line.split(' '));
            Command::parse_from(words.map(|word| if word == "FILE" { &path } else { word }))
        });
        Self { file, path: PathBuf::from(&path), commands: commands.into() }
    }
}

/// Through the commands, as a file. They may call it bad input, and nothing else.
fn command(bytes: &[u8], came: Came) {
    static PLACE: std::sync::Mutex<Option<Place>> = std::sync::Mutex::new(None);
    let mut place = PLACE.lock().unwrap();
    let place = place.get_or_insert_with(Place::new);
    place.file.set_len(0).unwrap();
    place.file.write_all_at(bytes, 0).unwrap();
    for command in &place.commands {
        let out = &mut io::sink();
        let done = match command {
            Command::Check(args) => commands::check::run(args, out),
            Command::Diff(args) => commands::diff::run(args, out),
            Command::Replay(args) => commands::replay::run(args, out),
            Command::Report(args) => commands::report::run(args, out),
        };
        match done {
            Ok(code) => assert!(code <= 2, "exit code {code}"),
            Err(error) => assert!(error.is::<BadInput>(), "{error:#}"),
        }
    }
    for format in [Format::Jsonl, Format::Csv, Format::Perfetto] {
        let done = export::export(&place.path, format, Box::new(io::sink()), &mut |_| {});
        assert_eq!(done.ok().map(|done| done.events), came.opened.then_some(came.events));
    }
    let told = report::collect(&place.path, None);
    assert_eq!(told.is_ok(), came.opened);
}
