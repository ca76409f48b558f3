//! The collector: OpenTelemetry's own messages and services, in Python.

use std::{
    env,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use serde_json::Value;

/// A Python that has what the collector needs.
pub fn python() -> Result<PathBuf, String> {
    let needs = "SEPTWATCH_PYTHON names no Python with grpcio and opentelemetry-proto: `cargo xtask test 2` installs them";
    let python = env::var_os("SEPTWATCH_PYTHON").map(PathBuf::from).ok_or(needs)?;
    let imports = "import grpc, opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc";
    let mut command = Command::new(&python);
    let tried = command.args(["-c", imports]).stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success()).then_some(python).ok_or_else(|| needs.to_owned())
}

/// A collector at work. Dropping it kills it.
pub struct Collector {
    child: Child,
    input: ChildStdin,
    told: Arc<Mutex<Vec<Value>>>,
    pub port: u16,
}

impl Collector {
    /// Starts it; with a certificate and its key, it speaks TLS.
    pub fn start(python: &Path, protocol: &str, tls: &[&Path]) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("agent/otlp.py");
        let mut command = Command::new(python);
        command.arg(script).arg(protocol).args(tls).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let first: Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        thread::spawn({
            let told = Arc::clone(&told);
            move || lines.for_each(|line| told.lock().unwrap().push(serde_json::from_str(&line).unwrap()))
        });
        Self { child, input, told, port: u16::try_from(first["port"].as_u64().unwrap()).unwrap() }
    }

    /// From now on it answers so.
    pub fn answers(&mut self, how: &Value) {
        writeln!(self.input, "{how}").unwrap();
    }

    /// The requests of a signal so far.
    pub fn requests(&self, signal: &str) -> Vec<Value> {
        self.told.lock().unwrap().iter().filter(|request| request["signal"] == signal).cloned().collect()
    }

    /// The items of a signal so far that it took.
    pub fn taken(&self, signal: &str) -> Vec<Value> {
        let requests = self.requests(signal).into_iter().filter(|request| request["how"] == "ok");
        requests.flat_map(|request| request["items"].as_array().unwrap().clone()).collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // Both fail only where it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
