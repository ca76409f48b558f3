//! What is promised arrives: everything that is printed of a violation, and the moments of its life.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use rustix::process::Signal;
use septwatch_tests::skip;
use serde_json::{Value, json};

use super::{Agent, Collector, PROTOCOLS, metrics, needs, until};

/// The attributes that a violation must have: every field that it is printed with and that says something.
fn expected(violation: &Value) -> BTreeMap<String, Value> {
    let mut expected = BTreeMap::new();
    for (key, value) in violation.as_object().unwrap() {
        let key = match key.as_str() {
            "type" | "wall_ns" | "kernel_stack" | "user_stack" => continue,
            "pid" => "process.pid".to_owned(),
            "tid" => "thread.id".to_owned(),
            "comm" => "thread.name".to_owned(),
            "kernel_functions" => "code.stacktrace".to_owned(),
            "user_functions" => "septwatch.user_stacktrace".to_owned(),
            key => format!("septwatch.{key}"),
        };
        match value {
            Value::Null => {}
            Value::Array(values) if values.is_empty() => {}
            Value::Array(values) if key.ends_with("stacktrace") => {
                let places: Vec<_> = values.iter().map(|place| place.as_str().unwrap()).collect();
                expected.insert(key, places.join("\n").into());
            }
            Value::Object(fields) => {
                let fields = fields.iter().filter(|(_, value)| !value.is_null());
                expected.extend(fields.map(|(field, value)| (format!("{key}.{field}"), value.clone())));
            }
            value => drop(expected.insert(key, value.clone())),
        }
    }
    expected
}

fn attributes(item: &Value) -> BTreeMap<String, Value> {
    item["attributes"].as_object().unwrap().clone().into_iter().collect()
}

/// The log record of a violation is that violation.
fn is_told(violation: &Value, log: &Value) {
    let mut attributes = attributes(log);
    assert_eq!(attributes.remove("log.record.uid").as_ref(), Some(&log["trace"]));
    assert_eq!(attributes, expected(violation));
    let certain = violation["confidence"] == "certain";
    assert_eq!(log["severity"], if certain { 18 } else { 13 }, "{log}");
    assert_eq!(log["severity_text"], if certain { "CRITICAL" } else { "WARNING" }, "{log}");
    assert_eq!((&log["time"], &log["observed"]), (&violation["wall_ns"], &violation["wall_ns"]));
    assert_eq!(log["event_name"], "septwatch.violation");
    let body = log["body"].as_str().unwrap();
    assert!(body.starts_with(violation["violation"].as_str().unwrap()) && body.lines().count() > 1, "{body}");
}

/// The spans of a violation are its life.
fn is_traced(violation: &Value, spans: &[Value]) {
    let number = |value: &Value| value.as_u64().unwrap();
    let (roots, parts): (Vec<_>, Vec<_>) = spans.iter().partition(|span| span["parent"] == "");
    let [root] = roots[..] else { panic!("not one root: {spans:?}") };
    let kind = violation["violation"].as_str().unwrap();
    assert_eq!(
        (&root["name"], &root["status"], &root["end"]),
        (&kind.into(), &2.into(), &violation["wall_ns"])
    );
    assert_eq!(attributes(root), expected(violation));
    let (begin, end) = (number(&root["begin"]), number(&root["end"]));
    let events = root["events"].as_array().unwrap();
    let times: Vec<_> = events.iter().map(|event| number(&event["time"])).collect();
    assert!(times.is_sorted() && times[0] == begin && times[times.len() - 1] == end, "{root}");
    let event = |name: &str| events.iter().find(|event| event["name"] == name);
    assert_eq!(event(kind).unwrap()["time"], end);
    assert_eq!(event("seamcall-failed").is_some(), !violation["failed_ns"].is_null(), "{root}");
    if let Some(failed) = event("seamcall-failed") {
        assert_eq!(failed["attributes"]["septwatch.status"], violation["failed_status"]);
        let leaf = failed["attributes"].get("septwatch.leaf").unwrap_or(&Value::Null);
        assert_eq!(leaf, &violation["failed_leaf"]);
        let before = number(&violation["time_ns"]) - number(&violation["failed_ns"]);
        assert_eq!(end - number(&failed["time"]), before);
    }
    assert_eq!(event("let-go").is_some(), !violation["guest_memfd"].is_null(), "{root}");

    let mut lengths: BTreeMap<&str, u64> = BTreeMap::new();
    for part in parts {
        assert_eq!(part["parent"], root["span"]);
        let (from, to) = (number(&part["begin"]), number(&part["end"]));
        assert!(begin <= from && from <= to && to <= end, "{part} in {root}");
        assert!(lengths.insert(part["name"].as_str().unwrap(), to - from).is_none(), "twice: {part}");
    }
    let freed = kind.starts_with("freed-");
    let mut parts = vec![("invalidation", violation["invalidation_ns"].as_u64())];
    if freed {
        parts.push(("failed-zap-to-release", violation["since_failed_zap_ns"].as_u64()));
        parts.push(("let-go-to-release", violation["guest_memfd"]["since_ns"].as_u64()));
    }
    parts.push(("release-to-reuse", violation["window_ns"].as_u64()));
    for (name, length) in parts {
        assert_eq!(lengths.get(name).copied(), length, "{name} of {violation}: {spans:?}");
    }
}

/// Links lead to an earlier violation of the same frame; how many there are.
fn links(collector: &Collector, logs: &BTreeMap<String, Value>) -> usize {
    let by_trace: BTreeMap<_, _> = logs.values().map(|log| (log["trace"].to_string(), log)).collect();
    let mut count = 0;
    for span in collector.taken("traces") {
        for link in span["links"].as_array().unwrap() {
            let (from, to) = (by_trace[&span["trace"].to_string()], by_trace[&link["trace"].to_string()]);
            for same in ["septwatch.td", "septwatch.pfn"] {
                assert_eq!(from["attributes"][same], to["attributes"][same], "{span}");
            }
            assert!(link["span"] == to["span"] && to["time"].as_u64() <= from["time"].as_u64(), "{span}");
            count += 1;
        }
    }
    count
}

/// Every request says who sends it.
fn says_who(request: &Value) {
    says_who_as(request, "Bearer 0123456789abcdef");
}

fn says_who_as(request: &Value, authorization: &str) {
    let resource = &request["resource"];
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let system = rustix::system::uname();
    for (key, value) in [
        ("service.name", "septwatch"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("service.instance.id", boot.trim()),
        ("septwatch.boot_id", boot.trim()),
        ("host.name", system.nodename().to_str().unwrap()),
        ("host.arch", "amd64"),
        ("os.type", "linux"),
        ("septwatch.kernel", system.release().to_str().unwrap()),
        ("septwatch.source", "demo"),
    ] {
        assert_eq!(resource[key], value, "{key}: {resource}");
    }
    assert_eq!(resource["os.name"].is_string(), Path::new("/etc/os-release").exists());
    assert_eq!(request["scope"], json!(["septwatch", env!("CARGO_PKG_VERSION")]));
    assert!(
        request["schema"].as_array().unwrap().iter().all(|url| url.as_str().unwrap().contains("/schemas/1."))
    );
    assert_eq!(request["headers"]["authorization"], authorization, "{}", request["headers"]);
    assert!(request["headers"]["user-agent"].as_str().unwrap().starts_with("septwatch/"));
}

/// A file with a header that nobody else may read.
fn headers(folder: &Path) -> PathBuf {
    let path = folder.join("headers");
    fs::write(&path, "Authorization: Bearer 0123456789abcdef\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// Violations by what tells them apart.
fn by_record(
    items: impl IntoIterator<Item = Value>,
    of: fn(&Value) -> &Value,
    prefix: &str,
) -> BTreeMap<String, Value> {
    let key = |item: &Value| {
        let fields = ["time_ns", "cpu", "violation", "pfn", "gfn", "td"];
        fields.map(|field| of(item)[format!("{prefix}{field}")].to_string()).join(" ")
    };
    let (mut all, mut count) = (BTreeMap::new(), 0);
    for item in items {
        count += 1;
        all.insert(key(&item), item);
    }
    assert_eq!(all.len(), count, "one came twice");
    all
}

#[test]
fn everything_that_is_promised_arrives_as_it_is_printed() {
    let (septwatch, python) = match needs() {
        Ok(found) => found,
        Err(why) => skip!("{why}"),
    };
    let folder = tempfile::tempdir().unwrap();
    let headers = headers(folder.path());
    for protocol in PROTOCOLS {
        let collector = Collector::start(&python, protocol, &[]);
        let endpoint = format!("http://127.0.0.1:{}", collector.port);
        let more =
            ["--pace", "20000", "--otlp-interval", "300ms", "--otlp-headers-file", headers.to_str().unwrap()];
        let agent = Agent::start(&septwatch, protocol, &endpoint, &more);
        let wanted =
            ["freed-while-blocked", "zap-failed", "failed-zap-to-release", "let-go-to-release", "map-failed"];
        until("violations of many kinds", || {
            let names: BTreeSet<_> = collector
                .taken("traces")
                .iter()
                .map(|span| span["name"].as_str().unwrap().to_owned())
                .collect();
            wanted.iter().all(|name| names.contains(*name)).then_some(())
        });
        let same = metrics::are_the_same(&agent, &collector);
        assert!(same > 150, "{same}");
        agent.running.signal(Signal::TERM);
        let done = agent.running.finish().exits(0);

        let violations = done.json().into_iter().filter(|event| event["type"] == "violation");
        let violations = by_record(violations, |violation| violation, "");
        let logs = by_record(collector.taken("logs"), |log| &log["attributes"], "septwatch.");
        assert_eq!(violations.keys().collect::<Vec<_>>(), logs.keys().collect::<Vec<_>>());
        let mut traces: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for span in collector.taken("traces") {
            traces.entry(span["trace"].as_str().unwrap().to_owned()).or_default().push(span);
        }
        for (key, violation) in &violations {
            let log = &logs[key];
            is_told(violation, log);
            let spans = traces.remove(log["trace"].as_str().unwrap()).unwrap_or_default();
            is_traced(violation, &spans);
            assert!(spans.iter().any(|span| span["span"] == log["span"]), "the record is of no span: {log}");
        }
        assert!(traces.is_empty(), "traces of nothing: {traces:?}");
        assert!(links(&collector, &logs) > 0, "a freed page's zap failed before, and is linked");
        for signal in ["logs", "traces", "metrics"] {
            collector.requests(signal).iter().for_each(says_who);
        }
        eprintln!("{protocol}: {} violations, {same} figures are the same", violations.len());
    }
}

#[test]
fn secrets_go_by_tls_to_whom_the_configuration_trusts() {
    let (septwatch, python) = match needs() {
        Ok(found) => found,
        Err(why) => skip!("{why}"),
    };
    let folder = tempfile::tempdir().unwrap();
    let headers = headers(folder.path());
    let [certificate, key, other] = ["certificate", "key", "other"].map(|name| folder.path().join(name));
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(&certificate, signed.cert.pem()).unwrap();
    fs::write(&key, signed.signing_key.serialize_pem()).unwrap();
    let stranger = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(&other, stranger.cert.pem()).unwrap();
    for protocol in PROTOCOLS {
        let collector = Collector::start(&python, protocol, &[&certificate, &key]);
        let endpoint = format!("https://localhost:{}", collector.port);
        for (ca, trusted) in [(&other, false), (&certificate, true)] {
            let more = ["--otlp-interval", "300ms", "--otlp-headers-file", headers.to_str().unwrap()];
            let more = [&more[..], &["--otlp-ca", ca.to_str().unwrap()]].concat();
            let agent = Agent::start(&septwatch, protocol, &endpoint, &more);
            until("a report", || {
                let [_, delivered, lost, _] = agent.counts("otlp-metrics");
                (if trusted { delivered } else { lost } > 1).then_some(())
            });
            agent.running.signal(Signal::TERM);
            let done = agent.running.finish().exits(0);
            let requests = collector.requests("metrics");
            match trusted {
                true => requests.iter().for_each(says_who),
                false => {
                    assert!(requests.is_empty(), "{requests:?}");
                    assert!(done.stderr.contains("certificate"), "{done}");
                }
            }
        }
    }
}

#[test]
fn a_hangup_has_secrets_read_again_and_wrong_ones_change_nothing() {
    let (septwatch, python) = match needs() {
        Ok(found) => found,
        Err(why) => skip!("{why}"),
    };
    let folder = tempfile::tempdir().unwrap();
    let headers = headers(folder.path());
    for protocol in PROTOCOLS {
        fs::write(&headers, "authorization: Bearer first\n").unwrap();
        let collector = Collector::start(&python, protocol, &[]);
        let endpoint = format!("http://127.0.0.1:{}", collector.port);
        let more = ["--otlp-interval", "200ms", "--otlp-headers-file", headers.to_str().unwrap()];
        let agent = Agent::start(&septwatch, protocol, &endpoint, &more);
        let next = || {
            let seen = collector.requests("metrics").len();
            // One that was under way already may be older.
            until("metrics", || collector.requests("metrics").into_iter().nth(seen + 2))
        };
        says_who_as(&next(), "Bearer first");
        fs::write(&headers, "authorization: Bearer second\n").unwrap();
        says_who_as(&next(), "Bearer first");
        agent.running.signal(Signal::HUP);
        until("the second", || (next()["headers"]["authorization"] == "Bearer second").then_some(()));
        fs::write(&headers, "third").unwrap();
        agent.running.signal(Signal::HUP);
        (0..3).for_each(|_| says_who_as(&next(), "Bearer second"));
        agent.running.signal(Signal::TERM);
        agent.running.finish().exits(0).says(&["stay as they were", "otlp.headers_file", "line 1"]);
    }
}
