//! The OpenMetrics text format.

use std::fmt;

use prometheus_client::{
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
    registry,
};

use super::families::{Families, Family, Labels, Unit};
use crate::model::histogram::Buckets;

/// Where metrics are written to.
pub struct Exposition<'e> {
    encoder: DescriptorEncoder<'e>,
}

impl<'e> Exposition<'e> {
    pub fn new(encoder: DescriptorEncoder<'e>) -> Self {
        Self { encoder }
    }
}

/// Its name, which is followed by its unit, if it has one, and by `total` or `info` for such.
fn name(family: Family) -> String {
    family.known_as.map_or_else(|| family.name.replace('.', "_"), str::to_owned)
}

fn unit(family: Family) -> Option<&'static registry::Unit> {
    match family.unit {
        Unit::Bytes => Some(&registry::Unit::Bytes),
        Unit::Seconds => Some(&registry::Unit::Seconds),
        Unit::Of(_) => None,
    }
}

impl Families for Exposition<'_> {
    fn info(&mut self, family: Family, labels: &[(&str, &str)]) -> fmt::Result {
        let (name, unit) = (name(family), unit(family));
        self.encoder.encode_descriptor(&name, family.help, unit, MetricType::Info)?.encode_info(&labels)
    }

    fn counters<'l, const N: usize, S>(&mut self, family: Family, series: S) -> fmt::Result
    where
        S: IntoIterator<Item = (Labels<'l, N>, u64)>,
    {
        let mut series = series.into_iter().peekable();
        if series.peek().is_none() {
            return Ok(());
        }
        let (name, unit) = (name(family), unit(family));
        let mut family = self.encoder.encode_descriptor(&name, family.help, unit, MetricType::Counter)?;
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

    fn time(&mut self, family: Family, seconds: f64) -> fmt::Result {
        let (name, unit) = (name(family), unit(family));
        let mut family = self.encoder.encode_descriptor(&name, family.help, unit, MetricType::Counter)?;
        family.encode_counter::<NoLabelSet, _, f64>(&seconds, None)
    }

    fn gauges<'l, const N: usize, S>(&mut self, family: Family, series: S) -> fmt::Result
    where
        S: IntoIterator<Item = (Labels<'l, N>, f64)>,
    {
        let mut series = series.into_iter().peekable();
        if series.peek().is_none() {
            return Ok(());
        }
        let (name, unit) = (name(family), unit(family));
        let mut family = self.encoder.encode_descriptor(&name, family.help, unit, MetricType::Gauge)?;
        for (labels, value) in series {
            match N {
                0 => family.encode_gauge(&value)?,
                _ => family.encode_family(&labels.as_slice())?.encode_gauge(&value)?,
            }
        }
        Ok(())
    }

    fn histograms<'l, const N: usize, S>(&mut self, family: Family, series: S) -> fmt::Result
    where
        S: IntoIterator<Item = (Labels<'l, N>, &'l Buckets)>,
    {
        let mut series = series.into_iter().peekable();
        if series.peek().is_none() {
            return Ok(());
        }
        let (name, unit) = (name(family), unit(family));
        let mut family = self.encoder.encode_descriptor(&name, family.help, unit, MetricType::Histogram)?;
        for (labels, Buckets { count, sum_s, counts }) in series {
            family
                .encode_family(&labels.as_slice())?
                .encode_histogram::<NoLabelSet>(*sum_s, *count, counts, None)?;
        }
        Ok(())
    }
}
