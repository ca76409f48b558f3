//! A host's state as Prometheus metrics: names, units and help texts, in the OpenMetrics text format.
//! <https://prometheus.io/docs/specs/om/open_metrics_spec/>, <https://prometheus.io/docs/practices/naming/>
//!
//! Counters come from the kernel side and live as long as its ledger: an agent that is started again does not set them
//! back. Labels are bounded by what there is of leaves, violations, hooks, kinds; only TDs are many, and of those
//! [`super::snapshot::chosen`] leaves the worst.

mod classic;
mod clients;
mod exposition;
pub mod families;
mod list;
mod process;

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, text},
    registry::Registry,
};
use septwatch_common::{Leaf, Life, PageKind, Violation, config::HOOKED};

use super::snapshot::{FRAME, Shared, Snapshot};
use crate::hooks::table::HookSpec;
use exposition::Exposition;
use families::Families;

/// What a scraper asks for that knows OpenMetrics.
const OPEN: &str = "application/openmetrics-text";

/// Writes metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
}

/// What does not change while the agent runs.
#[derive(Clone, Debug)]
pub struct About {
    /// `uname -r`
    pub kernel: String,
    /// The TDX module's version, where the kernel tells it.
    pub tdx_module: Option<String>,
    /// `live` or `demo`.
    pub source: &'static str,
}

impl Metrics {
    /// Of what is shared.
    pub fn new(shared: Arc<Shared>, about: About) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Host { shared, about }));
        Self { registry }
    }

    /// All metrics for a scraper that accepts such types: the type, and the text.
    pub fn answer(&self, accept: &str) -> (&'static str, String) {
        match accept.contains(OPEN) {
            true => ("application/openmetrics-text; version=1.0.0; charset=utf-8", self.text()),
            false => ("text/plain; version=0.0.4; charset=utf-8", classic::of(&self.text())),
        }
    }

    /// All metrics as text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // It cannot fail: it is a String.
        let _ = text::encode(&mut text, &self.registry);
        text
    }
}

#[derive(Debug)]
struct Host {
    shared: Arc<Shared>,
    about: About,
}

impl Collector for Host {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        all(&mut Exposition::new(encoder), &self.shared, &self.about)
    }
}

/// Writes all families.
///
/// # Errors
/// They cannot be written.
pub fn all(to: &mut impl Families, shared: &Shared, about: &About) -> fmt::Result {
    let About { kernel, tdx_module, source } = about;
    let module = tdx_module.as_deref().unwrap_or("");
    let version = env!("CARGO_PKG_VERSION");
    to.info(
        list::BUILD,
        &[("version", version), ("kernel", kernel), ("tdx_module", module), ("source", source)],
    )?;
    process::encode(to)?;
    outputs(to, shared)?;
    if let Some(counted) = shared.clients() {
        clients::encode(to, counted)?;
    }
    let newest = shared.newest();
    let age = newest.as_ref().map_or(f64::INFINITY, |(age, _)| age.as_secs_f64());
    to.gauge(list::SNAPSHOT_AGE, age)?;
    match newest {
        Some((_, snapshot)) => host(to, &snapshot),
        None => Ok(()),
    }
}

/// What is so is 1.
fn flag(is_so: bool) -> f64 {
    u8::from(is_so).into()
}

fn outputs(to: &mut impl Families, shared: &Shared) -> fmt::Result {
    let shared = shared.outputs();
    let delays: Vec<_> =
        shared.iter().filter_map(|(name, counts)| Some((name, counts.delays().buckets()?))).collect();
    to.histograms(
        list::OUTPUT_DELAY,
        delays.iter().map(|(output, delays)| ([("output", **output)], delays)),
    )?;
    let outputs: Vec<_> = shared.iter().map(|(name, counts)| (*name, counts.counted())).collect();
    let mut each = |family, figure: fn(&super::outlet::Counted) -> u64| {
        to.counters(family, outputs.iter().map(|(output, counted)| ([("output", *output)], figure(counted))))
    };
    each(list::OUTPUT_EVENTS, |counted| counted.offered)?;
    each(list::OUTPUT_DELIVERED_EVENTS, |counted| counted.delivered)?;
    each(list::OUTPUT_LOST_EVENTS, |counted| counted.lost)?;
    to.gauges(
        list::OUTPUT_WAITING_EVENTS,
        outputs.iter().map(|(output, counted)| ([("output", *output)], counted.waiting() as f64)),
    )?;
    to.gauges(
        list::OUTPUT_FAILING,
        outputs.iter().map(|(output, counted)| ([("output", *output)], flag(counted.trouble.is_some()))),
    )
}

fn host(to: &mut impl Families, snapshot: &Snapshot) -> fmt::Result {
    hooks(to, snapshot)?;
    counted(to, snapshot)?;
    tds(to, snapshot)?;
    walked(to, snapshot)?;
    to.histograms::<0, _>(list::DETECTION_DELAY, snapshot.delays.iter().map(|delays| ([], delays)))?;
    to.histograms(
        list::WINDOW,
        snapshot.windows.iter().map(|(span, buckets)| ([("span", span.name())], buckets)),
    )?;
    to.histograms(
        list::SEAMCALL_DURATION,
        snapshot.latencies.iter().map(|(leaf, buckets)| ([("leaf", leaf.name())], buckets)),
    )?;
    let Some(policy) = &snapshot.policy else { return Ok(()) };
    let labels = [("policy", policy.name.as_str())];
    to.gauges(list::POLICY_ARMED, [(labels, flag(policy.armed))])?;
    to.gauges(list::POLICY_GAPS, [(labels, policy.gaps as f64)])?;
    to.counters(
        list::REACTIONS,
        policy.steps.iter().map(|((reaction, permit, result), count)| {
            ([("reaction", *reaction), ("permit", *permit), ("result", *result)], *count)
        }),
    )
}

fn walked(to: &mut impl Families, snapshot: &Snapshot) -> fmt::Result {
    if let Some(resync) = &snapshot.resync {
        let suspect = resync.done.saturating_sub(resync.complete);
        let waiting = resync.tds.saturating_sub(resync.done);
        let each = [("complete", resync.complete), ("suspect", suspect), ("waiting", waiting)];
        to.gauges(list::RESYNC_TDS, each.map(|(outcome, tds)| ([("outcome", outcome)], tds as f64)))?;
        to.counter(list::RESYNC_FRAMES, resync.entered)?;
    }
    let Some(audits) = &snapshot.audits else { return Ok(()) };
    to.counters(
        list::AUDITS,
        [("done", audits.audits), ("failed", audits.failed)]
            .map(|(outcome, count)| ([("outcome", outcome)], count)),
    )?;
    to.gauge(list::AUDIT_DIFFERENCES, audits.differences as f64)?;
    to.gauge(list::AUDIT_DURATION, audits.took_us as f64 / 1e6)
}

fn hooks(to: &mut impl Families, snapshot: &Snapshot) -> fmt::Result {
    to.gauges(
        list::HOOK_ATTACHED,
        snapshot.hooks.iter().map(|hook| {
            let need = if HookSpec::is_required(&hook.name) { "required" } else { "optional" };
            ([("hook", hook.name.as_str()), ("need", need)], flag(hook.missing.is_none()))
        }),
    )
}

fn counted(to: &mut impl Families, snapshot: &Snapshot) -> fmt::Result {
    let Some(standing) = &snapshot.standing else { return Ok(()) };
    let counters = &standing.counters;
    to.counters(
        list::VIOLATIONS,
        Violation::ALL
            .iter()
            .zip(counters.violations)
            .map(|(kind, count)| ([("violation", kind.name())], count)),
    )?;
    to.counter(list::SUSPECT_VIOLATIONS, snapshot.suspect)?;
    to.gauge(list::LAST_VIOLATION_TIMESTAMP, snapshot.last_violation_ns as f64 / 1e9)?;
    let leaves = Leaf::ALL.iter().filter(|leaf| HOOKED.contains(leaf));
    to.counters(
        list::SEAMCALLS,
        leaves.flat_map(|leaf| {
            let answers = counters.calls[*leaf as usize];
            let outcomes = [("ok", answers.ok), ("busy", answers.busy), ("error", answers.error)];
            outcomes.map(|(outcome, count)| ([("leaf", leaf.name()), ("outcome", outcome)], count))
        }),
    )?;
    let streams = [("vital", standing.vital), ("pages", standing.pages)];
    to.counters(list::RECORDS, streams.map(|(stream, balance)| ([("stream", stream)], balance.produced)))?;
    to.counters(
        list::RECEIVED_RECORDS,
        streams.map(|(stream, balance)| ([("stream", stream)], balance.received + balance.earlier)),
    )?;
    to.counters(list::LOST_RECORDS, streams.map(|(stream, balance)| ([("stream", stream)], balance.lost)))?;
    to.counter(list::MISSED_RELEASES, standing.missed_releases)?;
    to.counter(list::FRAMES_OUTSIDE_LEDGER, counters.outside)?;
    to.counter(list::UNREAD_SEAMCALLS, counters.unread)
}

fn tds(to: &mut impl Families, snapshot: &Snapshot) -> fmt::Result {
    let lives = [Life::Created, Life::Initialized, Life::Finalized, Life::KeyFreed];
    to.gauges(
        list::TDS,
        lives.map(|life| ([("life", life.name())], snapshot.tds.get(&life).copied().unwrap_or(0) as f64)),
    )?;
    to.counter(list::TDS_SEEN, snapshot.tds_seen)?;
    let kinds =
        [PageKind::Leaf, PageKind::Sept, PageKind::Tdr, PageKind::Tdcs, PageKind::Tdvpr, PageKind::Tdcx];
    to.bytes(list::LENT, kinds.map(|kind| ([("kind", kind.name())], snapshot.lent[kind as usize] * FRAME)))?;
    let (held, held_tds) = snapshot.held;
    to.gauge(list::HELD, (held * FRAME) as f64)?;
    to.gauge(list::HELD_TDS, held_tds as f64)?;
    let rows: Vec<_> = snapshot.rows.iter().map(|row| (row.td.to_string(), row)).collect();
    let label = |at: usize| [("td", rows[at].0.as_str()), ("comm", rows[at].1.comm.as_str())];
    let all = || 0..rows.len();
    to.bytes(list::TD_LENT, all().map(|at| (label(at), rows[at].1.lent * FRAME)))?;
    to.bytes(list::TD_HELD, all().map(|at| (label(at), rows[at].1.held * FRAME)))?;
    to.counters(list::TD_VIOLATIONS, all().map(|at| (label(at), rows[at].1.violations)))?;
    to.gauges(list::TD_SUSPECT, all().map(|at| (label(at), flag(rows[at].1.suspect))))
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::Ordering,
        time::{Duration, Instant},
    };

    use super::{
        super::http::Clients,
        super::snapshot::{TdRow, chosen},
        *,
    };

    fn metrics(tds: u32, most: usize) -> Metrics {
        let row = |td: u32| TdRow {
            td,
            comm: format!("\"vm\\{td}\n"),
            lent: td.into(),
            held: 0,
            violations: u64::from(td == 7),
            suspect: false,
        };
        let shared = Arc::new(Shared::default());
        let rows = chosen((1..=tds).map(row).collect(), most);
        shared.publish(Snapshot { rows, ..Snapshot::default() });
        let about = About { kernel: "7.3".to_owned(), tdx_module: None, source: "demo" };
        Metrics::new(shared, about)
    }

    #[test]
    fn ten_thousand_tds_do_not_make_ten_thousand_series() {
        let series =
            |text: &str| text.lines().filter(|line| line.starts_with("septwatch_td_lent_bytes{")).count();
        assert_eq!(series(&metrics(10_000, 100).text()), 100);
        assert_eq!(series(&metrics(3, 100).text()), 3);
        assert_eq!(series(&metrics(10_000, 0).text()), 0);
        let all = metrics(10_000, 10_000);
        let begun = Instant::now();
        let text = all.text();
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        assert_eq!(series(&text), 10_000);
        assert!(text.contains("td=\"7\",comm=\"\\\"vm\\\\7\\n\"} "), "labels are escaped");
    }

    #[test]
    fn what_the_server_counts_is_told() {
        let shared = Arc::new(Shared::default());
        let about = About { kernel: "7.3".to_owned(), tdx_module: None, source: "demo" };
        let metrics = Metrics::new(Arc::clone(&shared), about);
        assert!(!metrics.text().contains("septwatch_http"), "there is no server");
        let clients = Arc::new(Clients::default());
        shared.serves(Arc::clone(&clients));
        clients.answers[2].store(7, Ordering::Relaxed);
        clients.timeouts.store(3, Ordering::Relaxed);
        let text = metrics.text();
        for line in [
            "septwatch_http_answers_total{class=\"4xx\"} 7\n",
            "septwatch_http_answers_total{class=\"2xx\"} 0\n",
            "septwatch_http_failed_connections_total{reason=\"timeout\"} 3\n",
            "septwatch_http_refused_requests_total 0\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
    }

    #[test]
    fn who_does_not_know_openmetrics_gets_what_came_before_it() {
        let metrics = metrics(1, 1);
        let (open, text) = metrics.answer("application/openmetrics-text;version=1.0.0,text/plain;q=0.5");
        assert!(open.starts_with(OPEN) && text.ends_with("# EOF\n"));
        assert!(
            text.contains("# TYPE septwatch_build info\n")
                && text.contains("# UNIT septwatch_held_bytes bytes\n")
        );
        let (plain, text) = metrics.answer("*/*");
        assert!(plain.starts_with("text/plain"));
        assert!(text.contains("# TYPE septwatch_build_info gauge\n"), "{text}");
        assert!(
            text.contains("# TYPE septwatch_tds_seen_total counter\nseptwatch_tds_seen_total 0\n"),
            "{text}"
        );
        assert!(!text.contains("# UNIT") && !text.contains("# EOF"), "{text}");
    }
}
