//! All metrics that Prometheus can ask for, as OpenTelemetry has them: the same families, figures and units.

use std::fmt;

use opentelemetry_proto::tonic::{
    common::v1::KeyValue,
    metrics::v1::{
        AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, Sum,
        metric::Data, number_data_point::Value,
    },
};

use super::attributes::{attribute, text};
use crate::{
    collector::metrics::families::{Families, Family, Labels, Since, Unit},
    here,
    model::histogram::Buckets,
};

/// Where metrics are written to.
#[derive(Debug)]
pub struct Points {
    metrics: Vec<Metric>,
    now_ns: u64,
    agent_ns: u64,
    ledger_ns: u64,
}

impl Points {
    /// Of now; the agent and its ledger began then, in ns since 1970.
    pub fn new(agent_ns: u64, ledger_ns: u64) -> Self {
        Self { metrics: Vec::new(), now_ns: here::now_ns(), agent_ns, ledger_ns }
    }

    /// What was written.
    pub fn into_metrics(self) -> Vec<Metric> {
        self.metrics
    }

    fn since(&self, family: Family) -> u64 {
        match family.since {
            Since::Agent => self.agent_ns,
            Since::Ledger => self.ledger_ns,
        }
    }

    fn point<const N: usize>(
        &self,
        labels: Labels<'_, N>,
        start_time_unix_nano: u64,
        value: Value,
    ) -> NumberDataPoint {
        NumberDataPoint {
            attributes: attributes(&labels),
            start_time_unix_nano,
            time_unix_nano: self.now_ns,
            value: Some(value),
            ..NumberDataPoint::default()
        }
    }

    fn add(&mut self, family: Family, data: Data) {
        let unit = match family.unit {
            Unit::Bytes => "By",
            Unit::Seconds => "s",
            Unit::Of(what) => what,
        };
        self.metrics.push(Metric {
            name: family.name.to_owned(),
            description: family.help.to_owned(),
            unit: unit.to_owned(),
            metadata: Vec::new(),
            data: Some(data),
        });
    }

    fn sum(&mut self, family: Family, data_points: Vec<NumberDataPoint>) {
        if !data_points.is_empty() {
            let aggregation_temporality = AggregationTemporality::Cumulative.into();
            self.add(family, Data::Sum(Sum { data_points, aggregation_temporality, is_monotonic: true }));
        }
    }
}

fn attributes(labels: &[(&str, &str)]) -> Vec<KeyValue> {
    labels.iter().map(|(name, value)| attribute(*name, text(*value))).collect()
}

impl Families for Points {
    /// Facts are attributes of the resource.
    fn info(&mut self, _: Family, _: &[(&str, &str)]) -> fmt::Result {
        Ok(())
    }

    fn counters<'l, const N: usize, S>(&mut self, family: Family, series: S) -> fmt::Result
    where
        S: IntoIterator<Item = (Labels<'l, N>, u64)>,
    {
        let since = self.since(family);
        let points = series.into_iter().map(|(labels, value)| {
            self.point(labels, since, Value::AsInt(i64::try_from(value).unwrap_or(i64::MAX)))
        });
        let points = points.collect();
        self.sum(family, points);
        Ok(())
    }

    fn time(&mut self, family: Family, seconds: f64) -> fmt::Result {
        let point = self.point([], self.since(family), Value::AsDouble(seconds));
        self.sum(family, vec![point]);
        Ok(())
    }

    fn gauges<'l, const N: usize, S>(&mut self, family: Family, series: S) -> fmt::Result
    where
        S: IntoIterator<Item = (Labels<'l, N>, f64)>,
    {
        // What is counted is whole.
        let value = |value: f64| match family.unit {
            Unit::Seconds => Value::AsDouble(value),
            Unit::Bytes | Unit::Of(_) => Value::AsInt(value as i64),
        };
        let points = series.into_iter().map(|(labels, figure)| self.point(labels, 0, value(figure)));
        let data_points: Vec<_> = points.collect();
        if !data_points.is_empty() {
            self.add(family, Data::Gauge(Gauge { data_points }));
        }
        Ok(())
    }

    fn histograms<'l, const N: usize, S>(&mut self, family: Family, series: S) -> fmt::Result
    where
        S: IntoIterator<Item = (Labels<'l, N>, &'l Buckets)>,
    {
        let (since, now) = (self.since(family), self.now_ns);
        let points =
            series.into_iter().map(|(labels, Buckets { count, sum_s, counts })| HistogramDataPoint {
                attributes: attributes(&labels),
                start_time_unix_nano: since,
                time_unix_nano: now,
                count: *count,
                sum: Some(*sum_s),
                bucket_counts: counts.iter().map(|(_, count)| *count).collect(),
                // The last is infinity, which is not told.
                explicit_bounds: counts
                    .iter()
                    .map(|(bound, _)| *bound)
                    .filter(|bound| bound.is_finite())
                    .collect(),
                ..HistogramDataPoint::default()
            });
        let data_points: Vec<_> = points.collect();
        if !data_points.is_empty() {
            let aggregation_temporality = AggregationTemporality::Cumulative.into();
            self.add(family, Data::Histogram(Histogram { data_points, aggregation_temporality }));
        }
        Ok(())
    }
}
