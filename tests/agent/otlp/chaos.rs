//! A collector that is not there, or not itself: detection goes on, everything is counted, and what waited arrives later.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use septwatch_tests::skip;
use serde_json::{Value, json};

use super::{
    Agent, Collector, PROTOCOLS,
    between::{Between, Mode},
    needs, until,
};

/// The outputs that count violations.
const OUTPUTS: [(&str, &str); 2] = [("otlp-logs", "logs"), ("otlp-traces", "traces")];

/// Violations that a collector took, each once.
fn taken(collector: &Collector, signal: &str) -> BTreeSet<String> {
    collector.taken(signal).iter().map(|item| item["trace"].as_str().unwrap().to_owned()).collect()
}

/// Nothing waits for the collector that must not.
fn goes_on(agent: &Agent) {
    assert!(agent.value("septwatch_snapshot_age_seconds") < 5.0);
    assert_eq!(agent.value("septwatch_lost_records_total{stream=\"vital\"}"), 0.0);
    assert_eq!(agent.value("septwatch_output_lost_events_total{output=\"events\"}"), 0.0);
}

fn fails(agent: &Agent, output: &str) -> bool {
    agent.value(&format!("septwatch_output_failing{{output=\"{output}\"}}")) == 1.0
}

/// What goes wrong: on the way, or by the collector's own word.
enum Trouble {
    Way(Mode),
    Word(Value),
}

#[test]
fn what_waits_for_a_collector_in_trouble_arrives_once_it_is_back() {
    let (septwatch, python) = match needs() {
        Ok(found) => found,
        Err(why) => skip!("{why}"),
    };
    for protocol in PROTOCOLS {
        let mut collector = Collector::start(&python, protocol, &[]);
        let between = Between::start(collector.port);
        let endpoint = format!("http://127.0.0.1:{}", between.port);
        let more = ["--pace", "max", "--otlp-timeout", "500ms", "--otlp-interval", "500ms"];
        let more = [&more[..], &["--otlp-queue", "1048576"]].concat();
        let agent = Agent::start(&septwatch, protocol, &endpoint, &more);
        let (busy, full) = if protocol == "grpc" { (14, 8) } else { (503, 429) };
        let troubles = [Mode::Hangs, Mode::Resets, Mode::Refuses, Mode::Babbles].map(Trouble::Way);
        let words = [
            json!({"answer": "status", "code": busy}),
            json!({"answer": "status", "code": full, "after": 2}),
        ];
        for trouble in troubles.into_iter().chain(words.map(Trouble::Word)) {
            match &trouble {
                Trouble::Way(mode) => between.is(*mode),
                Trouble::Word(how) => collector.answers(how),
            }
            until("both outputs are in trouble", || {
                OUTPUTS.iter().all(|(output, _)| fails(&agent, output)).then_some(())
            });
            goes_on(&agent);
            between.is(Mode::Passes);
            collector.answers(&json!({"answer": "ok"}));
            let (asked, before) = (Instant::now(), OUTPUTS.map(|(output, _)| agent.counts(output)[1]));
            until("both outputs are out of it", || {
                let more = |((output, _), before): (&(&str, &str), u64)| agent.counts(output)[1] > before;
                OUTPUTS.iter().zip(before).all(more).then_some(())
            });
            if matches!(&trouble, Trouble::Word(how) if how["after"] == 2) {
                // It was asked to wait 2 s by an answer that is older than this, but not by more than its batch.
                assert!(asked.elapsed() > Duration::from_millis(100), "{:?}", asked.elapsed());
            }
            goes_on(&agent);
        }
        for (output, _) in OUTPUTS {
            assert_eq!(agent.counts(output)[2], 0, "{output} lost some, with room for all");
        }
        agent.running.signal(Signal::TERM);
        let done = agent.running.finish().exits(0);
        let violations = done.json().iter().filter(|event| event["type"] == "violation").count();
        for (_, signal) in OUTPUTS {
            assert_eq!(taken(&collector, signal).len(), violations, "{protocol} {signal}");
        }
        eprintln!("{protocol}: {violations} violations, each arrived");
    }
}

#[test]
fn what_is_refused_for_good_or_finds_no_room_is_counted_exactly() {
    let (septwatch, python) = match needs() {
        Ok(found) => found,
        Err(why) => skip!("{why}"),
    };
    for protocol in PROTOCOLS {
        let mut collector = Collector::start(&python, protocol, &[]);
        let between = Between::start(collector.port);
        let endpoint = format!("http://127.0.0.1:{}", between.port);
        let more =
            ["--pace", "max", "--otlp-timeout", "500ms", "--otlp-interval", "500ms", "--otlp-queue", "2"];
        let agent = Agent::start(&septwatch, protocol, &endpoint, &more);
        let wrong = if protocol == "grpc" { 3 } else { 400 };
        let mut words = vec![
            json!({"answer": "partial", "rejected": 1}),
            json!({"answer": "partial", "rejected": 1_000_000}),
            json!({"answer": "status", "code": wrong}),
        ];
        if protocol == "http" {
            words.push(json!({"answer": "nonsense"}));
        }
        let lost = |agent: &Agent| OUTPUTS.map(|(output, _)| agent.counts(output)[2]);
        for how in words {
            let before = lost(&agent);
            collector.answers(&how);
            until("some are lost", || {
                lost(&agent).iter().zip(before).all(|(now, then)| *now > then).then_some(())
            });
            assert!(OUTPUTS.iter().all(|(output, _)| fails(&agent, output)), "{how}");
            goes_on(&agent);
        }
        // Nobody answers, and there is room for two, and for those in hand.
        between.is(Mode::Hangs);
        let before = lost(&agent);
        until("the queues are full", || {
            lost(&agent).iter().zip(before).all(|(now, then)| *now > then + 5).then_some(())
        });
        for (output, _) in OUTPUTS {
            assert!((1..=2 + 512).contains(&agent.counts(output)[3]), "{output}");
        }
        goes_on(&agent);
        between.is(Mode::Passes);
        collector.answers(&json!({"answer": "ok"}));
        until("both outputs are out of it", || {
            OUTPUTS.iter().all(|(output, _)| !fails(&agent, output)).then_some(())
        });
        // The collector's own count of what it took of each request. Traces it refuses by spans, of which a violation has
        // several: there the least and the most.
        let counted = || {
            let mut sum = 0;
            for request in collector.requests("logs") {
                let items = request["items"].as_array().unwrap().len() as u64;
                sum += match request["how"].as_str().unwrap() {
                    "ok" => items,
                    "partial" => items - request["rejected"].as_u64().unwrap().min(items),
                    _ => 0,
                };
            }
            sum
        };
        until("what was delivered is what was taken", || {
            (agent.counts("otlp-logs")[1] == counted()).then_some(())
        });
        let [offered, _, lost, _] = agent.counts("otlp-logs");
        agent.running.signal(Signal::TERM);
        let done = agent.running.finish().exits(0);
        let violations = done.json().iter().filter(|event| event["type"] == "violation").count() as u64;
        assert!(violations >= offered && violations - counted() >= lost, "{violations} {offered} {lost}");
        eprintln!("{protocol}: {violations} violations, {} taken, {lost} and more lost", counted());
        done.says(&["otlp-logs", "refused: not to my taste", "are lost there"]);
    }
}
