//! The three requests of OTLP, each with its way and its answer.

use opentelemetry_proto::tonic::collector::{
    logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse},
    metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse},
    trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
};
use prost::Message;

/// A request.
pub trait Export: Message + Clone + Default + 'static {
    /// Its answer.
    type Answer: Message + Default + 'static;
    /// gRPC's path.
    const GRPC: &'static str;
    /// HTTP's path.
    const HTTP: &'static str;

    /// How much of it was refused, and why.
    fn refused(answer: Self::Answer) -> Refused;
}

/// What of a request a collector refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Log records, spans, data points.
    pub items: i64,
    /// Why.
    pub why: String,
}

impl Export for ExportLogsServiceRequest {
    type Answer = ExportLogsServiceResponse;
    const GRPC: &'static str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
    const HTTP: &'static str = "/v1/logs";

    fn refused(answer: Self::Answer) -> Refused {
        let partial = answer.partial_success.unwrap_or_default();
        Refused { items: partial.rejected_log_records, why: partial.error_message }
    }
}

impl Export for ExportMetricsServiceRequest {
    type Answer = ExportMetricsServiceResponse;
    const GRPC: &'static str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
    const HTTP: &'static str = "/v1/metrics";

    fn refused(answer: Self::Answer) -> Refused {
        let partial = answer.partial_success.unwrap_or_default();
        Refused { items: partial.rejected_data_points, why: partial.error_message }
    }
}

impl Export for ExportTraceServiceRequest {
    type Answer = ExportTraceServiceResponse;
    const GRPC: &'static str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
    const HTTP: &'static str = "/v1/traces";

    fn refused(answer: Self::Answer) -> Refused {
        let partial = answer.partial_success.unwrap_or_default();
        Refused { items: partial.rejected_spans, why: partial.error_message }
    }
}
