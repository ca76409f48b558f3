//! A real Prometheus scrapes a real agent; every query of the dashboards has an answer, and a violation's alert reaches
//! whoever is on call.

use std::{fs, path::Path, sync::mpsc::Receiver};

use septwatch_tests::{septwatch, skip, support::process::Run};
use serde_json::Value;
use tempfile::TempDir;

use super::{
    servers::{Server, checks, program, until},
    web,
};

fn dashboards() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards")
}

/// A file of the project with other ports and times; each must stand in it.
fn changed(path: &Path, changes: &[(&str, &str)]) -> String {
    let mut text = fs::read_to_string(path).unwrap();
    for (from, to) in changes {
        assert!(text.contains(from), "{path:?} has no {from:?}");
        text = text.replace(from, to);
    }
    text
}

/// Prometheus and Alertmanager at work on an agent, by the project's files but for ports and times.
pub struct Watching {
    _folder: TempDir,
    _servers: [Server; 2],
    /// The port of Prometheus.
    pub prometheus: u16,
    posted: Receiver<(String, String)>,
}

impl Watching {
    /// Begins, by the files in this folder, on the agent at this port.
    pub fn begin(dashboards: &Path, agent: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let (on_call, posted) = web::receiver();
        let [alerts, prometheus] = [(); 2].map(|()| web::port());
        let config = changed(
            &dashboards.join("alertmanager/alertmanager.yml"),
            &[("127.0.0.1:9099", &format!("127.0.0.1:{on_call}"))],
        );
        fs::write(at("alertmanager.yml"), config).unwrap();
        let config = changed(
            &dashboards.join("prometheus/prometheus.yml"),
            &[
                ("127.0.0.1:9815", &format!("127.0.0.1:{agent}")),
                ("127.0.0.1:9093", &format!("127.0.0.1:{alerts}")),
                ("interval: 15s", "interval: 1s"),
            ],
        );
        fs::write(at("prometheus.yml"), config).unwrap();
        fs::copy(dashboards.join("prometheus/rules.yml"), at("rules.yml")).unwrap();
        let of_alerts = [
            &format!("--config.file={}", at("alertmanager.yml")),
            &format!("--storage.path={}", at("alerts")),
            &format!("--web.listen-address=127.0.0.1:{alerts}"),
            "--cluster.listen-address=",
        ];
        let alertmanager = Server::start("prometheus-alertmanager", &of_alerts, alerts, "/-/ready");
        let of_prometheus = [
            &format!("--config.file={}", at("prometheus.yml")),
            &format!("--storage.tsdb.path={}", at("series")),
            &*format!("--web.listen-address=127.0.0.1:{prometheus}"),
        ];
        let server = Server::start("prometheus", &of_prometheus, prometheus, "/-/ready");
        Self { _folder: folder, _servers: [alertmanager, server], prometheus, posted }
    }

    /// Waits until whoever is on call is told of a violation at this agent.
    pub fn is_told(&self, instance: &str) {
        let posted = || self.posted.try_recv().ok().filter(|(path, _)| path == "/on-call");
        let (path, alert) = until("whoever is on call is told", posted);
        let alert: Value =
            serde_json::from_str(&alert).unwrap_or_else(|error| panic!("{path}: {error}: {alert}"));
        let alert = &alert["alerts"][0];
        assert_eq!(alert["labels"]["alertname"], "SeptwatchViolation", "{alert}");
        assert_eq!(alert["labels"]["instance"], instance, "{alert}");
        assert!(alert["annotations"]["runbook"].as_str().is_some_and(|text| text.len() > 100), "{alert}");
    }
}

/// The queries of a dashboard, with the title of their panels.
fn queries(board: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(dashboards().join(format!("grafana/{board}.json"))).unwrap();
    let board: Value = serde_json::from_str(&text).unwrap();
    let of_panel = |panel: &Value| {
        let title = panel["title"].as_str().unwrap().to_owned();
        assert!(
            panel["description"].as_str().is_some_and(|text| !text.is_empty()),
            "{title}: no description"
        );
        let targets = panel["targets"].as_array().unwrap().clone();
        targets.into_iter().map(move |target| (title.clone(), target["expr"].as_str().unwrap().to_owned()))
    };
    board["panels"].as_array().unwrap().iter().flat_map(of_panel).collect()
}

fn result(port: u16, query: &str) -> Vec<Value> {
    let Some(answer) = web::json(port, "/api/v1/query", &[("query", query)]) else { return Vec::new() };
    assert_eq!(answer["status"], "success", "{query}: {answer}");
    answer["data"]["result"].as_array().unwrap().clone()
}

#[test]
fn what_the_project_ships_is_what_the_tools_want() {
    if let Err(why) = program("promtool").and_then(|_| program("amtool")) {
        skip!("{why}");
    }
    let at = |file: &str| dashboards().join(file).to_str().unwrap().to_owned();
    checks("promtool", &["check", "rules", &at("prometheus/rules.yml")], None);
    checks("promtool", &["check", "config", &at("prometheus/prometheus.yml")], None);
    checks("amtool", &["check-config", &at("alertmanager/alertmanager.yml")], None);
}

#[test]
fn prometheus_has_an_answer_to_every_query_and_the_alert_is_delivered() {
    let septwatch = septwatch!();
    if let Err(why) = program("prometheus").and_then(|_| program("prometheus-alertmanager")) {
        skip!("{why}");
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let agent = web::port();
    let listen = format!("127.0.0.1:{agent}");
    let events = at("events.jsonl");
    let arguments = [
        "agent",
        "--demo",
        "--latency",
        "--seed",
        "7",
        "--metrics-listen",
        &listen,
        "--events-file",
        &events,
    ];
    let running = Run::new(&septwatch, &arguments).start_acting();
    until("the agent is ready", || web::get(agent, "/readyz").filter(|(status, ..)| *status == 200));
    let (_, head, text) = web::get(agent, "/metrics").unwrap();
    assert!(head.to_lowercase().contains("content-type: text/plain; version=0.0.4"), "{head}");
    fs::write(at("metrics"), text).unwrap();
    checks("promtool", &["check", "metrics"], Some(at("metrics").as_ref()));

    let watching = Watching::begin(&dashboards(), agent);
    let prometheus = watching.prometheus;
    until("the target is up", || result(prometheus, "up == 1").pop());
    let instance = listen.as_str();
    let mut asked = 0;
    for (title, query) in ["host", "td", "fleet"].iter().flat_map(|board| queries(board)) {
        let query = query.replace("$instance", instance);
        until(&format!("{title}: {query}"), || {
            // TDs of the demo come and go.
            let newest = result(prometheus, "topk(1, septwatch_td_lent_bytes)").pop()?;
            let query = query.replace("$td", newest["metric"]["td"].as_str()?);
            Some(result(prometheus, &query)).filter(|result| !result.is_empty())
        });
        asked += 1;
    }
    assert!(asked >= 30, "only {asked} queries");

    watching.is_told(instance);

    // Every rule could be evaluated, and what must be quiet is.
    let rules = web::json(prometheus, "/api/v1/rules", &[]).unwrap();
    let rules = rules["data"]["groups"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap());
    let rules: Vec<_> = rules.collect();
    assert!(rules.len() >= 10);
    for rule in rules {
        assert_eq!(rule["health"], "ok", "{rule}");
        let quiet =
            ["SeptwatchAgentDown", "SeptwatchHookMissing", "SeptwatchOutputLoss", "SeptwatchHeldMemory"];
        if quiet.iter().any(|name| rule["name"] == **name) {
            assert_eq!(rule["state"], "inactive", "{rule}");
        }
    }
    running.signal(rustix::process::Signal::TERM);
    running.finish().exits(0);
    until("that the agent is gone is seen", || result(prometheus, "up == 0").pop());
}
