//! What the agent itself costs, by the names that every Prometheus client and OpenTelemetry's conventions give it.
//! proc_pid_stat(5), <https://opentelemetry.io/docs/specs/semconv/system/process-metrics/>

use std::{fmt, fs};

use super::{families::Families, list};

/// Writes it; what cannot be read is left out.
pub fn encode(to: &mut impl Families) -> fmt::Result {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name, in parentheses, may hold anything: the rest begins after the last of them, with field 3.
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).and_then(|field| field.parse::<u64>().ok());
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    if let Some((user, system)) = field(14).zip(field(15)) {
        let seconds = (user + system) as f64 / ticks;
        to.time(list::PROCESS_CPU, seconds)?;
    }
    if let Some(pages) = field(24) {
        let bytes = pages * rustix::param::page_size() as u64;
        to.gauge(list::PROCESS_MEMORY, bytes as f64)?;
    }
    let up_s = fs::read_to_string("/proc/uptime").ok();
    let up_s =
        up_s.as_deref().and_then(|text| text.split(' ').next()).and_then(|text| text.parse::<f64>().ok());
    if let Some((started, up_s)) = field(22).zip(up_s) {
        let now = std::time::UNIX_EPOCH.elapsed().map_or(0.0, |since| since.as_secs_f64());
        let started = now - up_s + started as f64 / ticks;
        to.gauge(list::PROCESS_START, started)?;
    }
    let open = fs::read_dir("/proc/self/fd").map(Iterator::count);
    open.map_or(Ok(()), |open| to.gauge(list::PROCESS_FILES, open as f64))
}
