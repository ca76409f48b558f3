//! The outputs of OpenTelemetry, at work.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    metrics::v1::{ResourceMetrics, ScopeMetrics},
};

use super::{
    Config, OtlpError,
    export::Refused,
    ids::Ids,
    logs::Logs,
    metrics::Points,
    resource::{Origin, SCHEMA},
    sender::Sender,
    traces::Traces,
};
use crate::{
    collector::{
        metrics::{self, About},
        outlet::{Outlet, Undelivered},
        snapshot::Shared,
    },
    here,
};

/// What the outputs are told later.
#[derive(Debug)]
pub struct Otlp {
    reload: [Arc<AtomicBool>; 3],
}

impl Otlp {
    /// Whether a collector can be sent to as it is configured. It need not be there.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(config: &Config) -> Result<(), OtlpError> {
        config.check()?;
        Sender::new(config, Arc::default()).map(|_| ())
    }

    /// Begins them. Each has a connection of its own: one that hangs holds up no other.
    ///
    /// # Errors
    /// The configuration cannot be used, or there are no more threads.
    pub fn begin(config: &Config, shared: &Arc<Shared>, about: &About) -> io::Result<(Self, Vec<Outlet>)> {
        let reload: [Arc<AtomicBool>; 3] = Default::default();
        let sender = |at: usize| Sender::new(config, Arc::clone(&reload[at])).map_err(io::Error::other);
        let origin = Origin::here(about);
        let ids = Ids::new(origin.boot.clone());
        let logs = Logs { sender: sender(0)?, origin: origin.clone(), ids: ids.clone() };
        let traces = Traces::new(sender(1)?, origin.clone(), ids);
        let (shared, about, agent_ns) = (Arc::clone(shared), about.clone(), here::now_ns());
        let mut reporter = Reporter { sender: sender(2)?, origin, shared, about, agent_ns };
        let outlets = vec![
            Outlet::begin("otlp-logs", config.queue, logs)?,
            Outlet::begin("otlp-traces", config.queue, traces)?,
            Outlet::every("otlp-metrics", config.interval, move || reporter.report())?,
        ];
        Ok((Self { reload }, outlets))
    }

    /// Headers and authorities are to be read again.
    pub fn reload(&self) {
        self.reload.iter().for_each(|reload| reload.store(true, Ordering::Release));
    }
}

/// Sends all metrics.
#[derive(Debug)]
struct Reporter {
    sender: Sender,
    origin: Origin,
    shared: Arc<Shared>,
    about: About,
    agent_ns: u64,
}

impl Reporter {
    fn report(&mut self) -> Result<(), Undelivered> {
        let ledger_ns = self.shared.newest().map_or(self.agent_ns, |(_, snapshot)| snapshot.counted_since_ns);
        let mut points = Points::new(self.agent_ns, ledger_ns);
        // It cannot fail: it is a Vec.
        let _ = metrics::all(&mut points, &self.shared, &self.about);
        let schema_url = SCHEMA.to_owned();
        let scope_metrics = vec![ScopeMetrics {
            scope: Some(self.origin.scope.clone()),
            metrics: points.into_metrics(),
            schema_url: schema_url.clone(),
        }];
        let resource = Some(self.origin.resource.clone());
        let request = ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics { resource, scope_metrics, schema_url }],
        };
        match self.sender.send(request)? {
            Refused { items: 0, .. } => Ok(()),
            Refused { items, why } => {
                let why = format!("{items} data points were refused: {why}");
                Err(Undelivered::Lost { messages: 1, why })
            }
        }
    }
}
