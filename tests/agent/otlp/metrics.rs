//! What OpenTelemetry is told is what Prometheus is told: names, labels and figures.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Agent, Collector, until, web};

/// Series by name and sorted labels.
type Series = BTreeMap<String, f64>;

/// Names that both worlds have of their own.
const OWN: [(&str, &str); 3] = [
    ("process.cpu.time", "process_cpu_seconds_total"),
    ("process.memory.usage", "process_resident_memory_bytes"),
    ("process.unix.file_descriptor.count", "process_open_fds"),
];

/// What is another figure each time that it is asked for.
const FLEETING: [&str; 4] = [
    "septwatch_snapshot_age_seconds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_open_fds",
];

fn key(name: &str, mut labels: Vec<String>) -> String {
    labels.sort();
    format!("{name}{{{}}}", labels.join(","))
}

/// The text format of Prometheus; labels have no commas in the demo.
fn scraped(text: &str) -> Series {
    let series = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty());
        (key(name, labels.map(str::to_owned).collect()), value.parse().unwrap())
    });
    series.collect()
}

/// What Prometheus makes of OpenTelemetry's names.
/// <https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/#otlp-metric-points-to-prometheus>
fn translated(metric: &Value) -> String {
    let name = metric["name"].as_str().unwrap();
    if let Some((_, own)) = OWN.iter().find(|(otel, _)| *otel == name) {
        return (*own).to_owned();
    }
    let unit = match metric["unit"].as_str().unwrap() {
        "By" => "_bytes",
        "s" => "_seconds",
        annotation => {
            assert!(annotation.starts_with('{') && annotation.ends_with('}'), "{metric}");
            ""
        }
    };
    let total = if metric["monotonic"] == true { "_total" } else { "" };
    format!("{}{unit}{total}", name.replace('.', "_"))
}

/// The series of a request, and which of them only grow.
fn sent(request: &Value) -> (Series, BTreeSet<String>) {
    let (mut series, mut growing) = (Series::new(), BTreeSet::new());
    for metric in request["items"].as_array().unwrap() {
        let name = translated(metric);
        for point in metric["points"].as_array().unwrap() {
            let labels = point["attributes"].as_object().unwrap().iter();
            let labels: Vec<_> = labels.map(|(key, value)| format!("{key}={value}")).collect();
            let mut add = |name: &str, more: Option<String>, value: f64| {
                let key = key(name, labels.iter().cloned().chain(more).collect());
                if metric["kind"] != "gauge" {
                    assert!(metric["cumulative"] == true, "{metric}");
                    growing.insert(key.clone());
                }
                assert!(series.insert(key, value).is_none(), "twice: {metric}");
            };
            if metric["kind"] == "histogram" {
                let mut sum = 0.0;
                let bounds = point["bounds"].as_array().unwrap();
                let bounds = bounds.iter().map(|bound| bound.as_f64().unwrap()).chain([f64::INFINITY]);
                for (bound, count) in bounds.zip(point["counts"].as_array().unwrap()) {
                    sum += count.as_f64().unwrap();
                    let le = if bound.is_finite() { bound.to_string() } else { "+Inf".to_owned() };
                    add(&format!("{name}_bucket"), Some(format!("le={le:?}")), sum);
                }
                assert_eq!(sum, point["count"].as_f64().unwrap(), "{metric}");
                add(&format!("{name}_count"), None, sum);
                add(&format!("{name}_sum"), None, point["sum"].as_f64().unwrap());
            } else {
                add(&name, None, point["value"].as_f64().unwrap());
            }
            if metric["kind"] != "gauge" {
                let [start, time] = ["start", "time"].map(|key| point[key].as_u64().unwrap());
                assert!(start > 1_500_000_000_000_000_000 && start < time, "{metric}");
            }
        }
    }
    (series, growing)
}

/// Waits until the collector was told what was scraped, and returns how many figures were the same.
pub fn are_the_same(agent: &Agent, collector: &Collector) -> usize {
    until("metrics that are the same", || {
        let before = scraped(&web::get(agent.port, "/metrics")?.2);
        let seen = collector.requests("metrics").len();
        // One that was under way already may be older.
        let request = until("metrics", || collector.requests("metrics").into_iter().nth(seen + 1));
        let after = scraped(&web::get(agent.port, "/metrics")?.2);
        let (sent, growing) = sent(&request);
        let mut same = 0;
        for (key, value) in &sent {
            let Some((from, to)) = before.get(key).zip(after.get(key)) else { continue };
            if growing.contains(key) {
                // Sums of seconds are means times counts: their last digits are not certain.
                let slack = to * 1e-12;
                assert!((from - slack..=to + slack).contains(value), "{key}: {from} {value} {to}");
                same += 1;
            } else if !FLEETING.iter().any(|name| key.starts_with(name)) && from == to {
                // It may have been another for a moment: then once more.
                if from != value {
                    return None;
                }
                same += 1;
            }
        }
        let facts = |key: &&String| !key.starts_with("septwatch_build_info");
        let missing: Vec<_> = before
            .keys()
            .filter(facts)
            .filter(|key| after.contains_key(*key) && !sent.contains_key(*key))
            .collect();
        let unknown: Vec<_> =
            sent.keys().filter(|key| !before.contains_key(*key) && !after.contains_key(*key)).collect();
        // TDs come and go between.
        let of_tds = |keys: &[&String]| keys.iter().all(|key| key.starts_with("septwatch_td_"));
        assert!(of_tds(&missing) && of_tds(&unknown), "missing: {missing:?}; unknown: {unknown:?}");
        Some(same)
    })
}
