//! The agent and an OpenTelemetry collector: what is promised arrives, whoever is in between, and what does not is counted.

mod arrives;
pub mod between;
mod chaos;
mod collector;
mod metrics;

use std::path::{Path, PathBuf};

use septwatch_tests::support::{
    self,
    process::{Run, Running},
};

use super::{servers::until, web};
use collector::{Collector, python};

/// How a collector is spoken to.
const PROTOCOLS: [&str; 2] = ["grpc", "http"];

/// What these tests need: the binary with otlp, and a Python with OpenTelemetry.
fn needs() -> Result<(PathBuf, PathBuf), String> {
    let septwatch = support::septwatch()?;
    is_built(&septwatch)?;
    Ok((septwatch, python()?))
}

/// Whether the binary has otlp.
pub fn is_built(septwatch: &Path) -> Result<(), String> {
    let arguments = ["agent", "--check-config", "--otlp-endpoint", "http://127.0.0.1:4317"];
    let checked = Run::new(septwatch, &arguments).finish();
    if checked.stderr.contains("built without otlp") {
        return Err("SEPTWATCH_BIN was built without otlp: `cargo xtask test 2` builds it with it".to_owned());
    }
    checked.exits(0);
    Ok(())
}

/// An agent on storms of the demo, which tells a collector at this port, and its own metrics' port.
struct Agent {
    running: Running,
    port: u16,
}

impl Agent {
    fn start(septwatch: &Path, protocol: &str, endpoint: &str, more: &[&str]) -> Self {
        let port = web::port();
        let listen = format!("127.0.0.1:{port}");
        let mut arguments = vec!["agent", "--demo", "--latency", "--seed", "7", "--events-file", "-"];
        arguments.extend([
            "--metrics-listen",
            &listen,
            "--otlp-endpoint",
            endpoint,
            "--otlp-protocol",
            protocol,
        ]);
        arguments.extend(more);
        let running = Run::new(septwatch, &arguments).start_acting();
        until("the agent is ready", || web::get(port, "/readyz").filter(|(status, ..)| *status == 200));
        Self { running, port }
    }

    /// A series of /metrics.
    fn value(&self, series: &str) -> f64 {
        let text = web::get(self.port, "/metrics").unwrap().2;
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {series}: {text}"))
    }

    /// What an output counts: offered, delivered, lost and waiting. All of one moment.
    fn counts(&self, output: &str) -> [u64; 4] {
        let text = web::get(self.port, "/metrics").unwrap().2;
        ["events_total", "delivered_events_total", "lost_events_total", "waiting_events"].map(|what| {
            let series = format!("septwatch_output_{what}{{output=\"{output}\"}} ");
            let line = text.lines().find_map(|line| line.strip_prefix(&series));
            let value = line.and_then(|value| value.parse::<f64>().ok());
            value.unwrap_or_else(|| panic!("no {series}: {text}")) as u64
        })
    }
}
