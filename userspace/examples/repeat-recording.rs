//! A long recording from a short one, to measure how fast recordings are replayed: its events again and again, with
//! numbers and times that go on. It must be one whose TDs are all gone at its end.
//!
//! `cargo run --release --example repeat-recording -- FROM TO TIMES`
#![expect(clippy::expect_used, reason = "an example that cannot go on has failed")]

use std::{collections::HashMap, env, path::PathBuf};

use septwatch::{
    recording::{
        State,
        files::{Files, Limits},
        header::{Clock, End, Header, What},
        reader::{Item, Reader},
        recorder::Recorder,
    },
    source::event::Event,
};
use septwatch_common::wire;

fn header(event: &mut Event) -> &mut wire::Header {
    match event {
        Event::Life(life) => &mut life.header,
        Event::Call(call) => &mut call.call.header,
        Event::Frame(frame) => &mut frame.header,
        Event::Vm(vm) => &mut vm.header,
        Event::Violation(violation) => &mut violation.header,
    }
}

fn main() {
    let mut arguments = env::args_os().skip(1).map(PathBuf::from);
    let mut argument = || arguments.next().expect("arguments: FROM TO TIMES");
    let (from, to, times) = (argument(), argument(), argument());
    let times: u64 = times.to_str().and_then(|times| times.parse().ok()).expect("TIMES is a number");
    let mut reader = Reader::open(&from).expect("FROM is a recording");
    let events: Vec<_> = reader
        .by_ref()
        .filter_map(|item| if let Item::Event(event) = item { Some(event) } else { None })
        .collect();
    let first_ns = events.iter().map(|event| event.header().time_ns).min().unwrap_or(0);
    let last_ns = events.iter().map(|event| event.header().time_ns).max().unwrap_or(0);
    let mut counts: HashMap<(u16, bool), u64> = HashMap::new();
    for event in &events {
        *counts.entry((event.header().cpu, event.is_vital())).or_default() += 1;
    }
    let made = Header { what: What::All, ..reader.header().clone() };
    let files = Files::create(&to, made, State::default(), Limits::default()).expect("TO can be written");
    let mut recorder = Recorder::new(What::All, files).expect("a thread");
    for n in 0..times {
        for event in &events {
            let mut event = event.clone();
            let more = counts[&(event.header().cpu, event.is_vital())];
            let header = header(&mut event);
            header.time_ns += n * (last_ns - first_ns + 1);
            header.seq += n * more;
            while recorder.is_behind() {
                std::thread::yield_now();
            }
            recorder.event(&event);
        }
    }
    let written = recorder.finish(End { clock: Clock::now(), ..End::default() });
    println!("{} records in {} bytes", written.records, written.bytes);
}
