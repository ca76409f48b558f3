//! What the agent itself costs, by the names that every Prometheus client gives it. proc_pid_stat(5)

use std::{fmt, fs};

use super::exposition::Exposition;

/// Writes it; what cannot be read is left out.
pub fn encode(to: &mut Exposition<'_>) -> fmt::Result {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name, in parentheses, may hold anything: the rest begins after the last of them, with field 3.
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).and_then(|field| field.parse::<u64>().ok());
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    if let Some((user, system)) = field(14).zip(field(15)) {
        let seconds = (user + system) as f64 / ticks;
        to.seconds_counter("process_cpu", "User and system time that the agent took", seconds)?;
    }
    if let Some(pages) = field(24) {
        let bytes = pages * rustix::param::page_size() as u64;
        to.bytes::<0, _>("process_resident_memory", "Memory of the agent in RAM", [([], bytes)])?;
    }
    let up_s = fs::read_to_string("/proc/uptime").ok();
    let up_s =
        up_s.as_deref().and_then(|text| text.split(' ').next()).and_then(|text| text.parse::<f64>().ok());
    if let Some((started, up_s)) = field(22).zip(up_s) {
        let now = std::time::UNIX_EPOCH.elapsed().map_or(0.0, |since| since.as_secs_f64());
        let started = now - up_s + started as f64 / ticks;
        to.seconds("process_start_time", "When the agent was started, since 1970", started)?;
    }
    let open = fs::read_dir("/proc/self/fd").map(Iterator::count);
    open.map_or(Ok(()), |open| {
        to.gauges::<0, _>("process_open_fds", "Descriptors that are open in the agent", [([], open as f64)])
    })
}
