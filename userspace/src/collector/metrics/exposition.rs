//! Families of metrics, written one after the other: each with all of its series at once.

use std::fmt;

use prometheus_client::{
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
    registry::Unit,
};

use crate::model::histogram::Buckets;

/// Labels of a series: names and values.
type Labels<'l, const N: usize> = [(&'static str, &'l str); N];

/// Where metrics are written to. A family without series is left out.
pub struct Exposition<'e> {
    encoder: DescriptorEncoder<'e>,
}

impl<'e> Exposition<'e> {
    pub fn new(encoder: DescriptorEncoder<'e>) -> Self {
        Self { encoder }
    }

    /// A fact, in labels: its name becomes `NAME_info`.
    pub fn info(&mut self, name: &str, help: &str, labels: &[(&str, &str)]) -> fmt::Result {
        self.encoder.encode_descriptor(name, help, None, MetricType::Info)?.encode_info(&labels)
    }

    /// What only grows: its name becomes `NAME_total`.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.counters::<0, _>(name, help, [([], value)])
    }

    /// The same, with a series for each set of labels.
    pub fn counters<'l, const N: usize, S>(&mut self, name: &str, help: &str, series: S) -> fmt::Result
    where
        S: IntoIterator<Item = (Labels<'l, N>, u64)>,
    {
        let mut series = series.into_iter().peekable();
        if series.peek().is_none() {
            return Ok(());
        }
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in series {
            match N {
                0 => family.encode_counter::<NoLabelSet, _, u64>(&value, None)?,
                _ => family
                    .encode_family(&labels.as_slice())?
                    .encode_counter::<NoLabelSet, _, u64>(&value, None)?,
            }
        }
        Ok(())
    }

    /// What comes and goes, with a series for each set of labels.
    pub fn gauges<'l, const N: usize, S>(&mut self, name: &str, help: &str, series: S) -> fmt::Result
    where
        S: IntoIterator<Item = (Labels<'l, N>, f64)>,
    {
        self.gauges_in(name, help, None, series)
    }

    /// The same in bytes: its name becomes `NAME_bytes`.
    pub fn bytes<'l, const N: usize, S>(&mut self, name: &str, help: &str, series: S) -> fmt::Result
    where
        S: IntoIterator<Item = (Labels<'l, N>, u64)>,
    {
        let series = series.into_iter().map(|(labels, bytes)| (labels, bytes as f64));
        self.gauges_in(name, help, Some(&Unit::Bytes), series)
    }

    /// A time in seconds: its name becomes `NAME_seconds`.
    pub fn seconds(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.gauges_in::<0, _>(name, help, Some(&Unit::Seconds), [([], value)])
    }

    /// Time that only grows, in seconds: its name becomes `NAME_seconds_total`.
    pub fn seconds_counter(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let mut family =
            self.encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Counter)?;
        family.encode_counter::<NoLabelSet, _, f64>(&value, None)
    }

    fn gauges_in<'l, const N: usize, S>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        series: S,
    ) -> fmt::Result
    where
        S: IntoIterator<Item = (Labels<'l, N>, f64)>,
    {
        let mut series = series.into_iter().peekable();
        if series.peek().is_none() {
            return Ok(());
        }
        let mut family = self.encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for (labels, value) in series {
            match N {
                0 => family.encode_gauge(&value)?,
                _ => family.encode_family(&labels.as_slice())?.encode_gauge(&value)?,
            }
        }
        Ok(())
    }

    /// Spans of time, with a series for each set of labels: its name becomes `NAME_seconds`.
    pub fn histograms<'l, const N: usize, S>(&mut self, name: &str, help: &str, series: S) -> fmt::Result
    where
        S: IntoIterator<Item = (Labels<'l, N>, &'l Buckets)>,
    {
        let mut series = series.into_iter().peekable();
        if series.peek().is_none() {
            return Ok(());
        }
        let mut family =
            self.encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        for (labels, Buckets { count, sum_s, counts }) in series {
            family
                .encode_family(&labels.as_slice())?
                .encode_histogram::<NoLabelSet>(*sum_s, *count, counts, None)?;
        }
        Ok(())
    }
}
