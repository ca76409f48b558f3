//! What metrics are written to: families, each with all of its series at once. There is one list of them, in
//! [`super::all`], and a writer for each format.

use std::fmt;

use crate::model::histogram::Buckets;

/// Labels of a series: names and values.
pub type Labels<'l, const N: usize> = [(&'static str, &'l str); N];

/// What a family counts. Figures without a unit of their own say in braces what is counted, as UCUM has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
    /// Things, or 1 for what is so and 0 for what is not.
    Of(&'static str),
}

/// Since when a family grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// The programs in the kernel were loaded.
    Ledger,
    /// This process began.
    Agent,
}

/// A family of metrics.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Its name, as OpenTelemetry has it: a dot between what contains and what is contained.
    pub name: &'static str,
    /// What Prometheus knows it as, where that is not the name with underscores.
    pub known_as: Option<&'static str>,
    /// What it counts.
    pub unit: Unit,
    /// What it tells.
    pub help: &'static str,
    /// Since when it grows, if it does.
    pub since: Since,
}

impl Family {
    /// One that begins with this process.
    pub const fn new(name: &'static str, unit: Unit, help: &'static str) -> Self {
        Self { name, known_as: None, unit, help, since: Since::Agent }
    }

    /// The same, as old as the ledger.
    pub const fn of_ledger(self) -> Self {
        Self { since: Since::Ledger, ..self }
    }

    /// The same with a name of its own for Prometheus.
    pub const fn known_as(self, name: &'static str) -> Self {
        Self { known_as: Some(name), ..self }
    }
}

/// Writes families. One without series is left out.
pub trait Families {
    /// Facts, in labels.
    fn info(&mut self, family: Family, labels: &[(&str, &str)]) -> fmt::Result;

    /// What only grows, with a series for each set of labels.
    fn counters<'l, const N: usize, S>(&mut self, family: Family, series: S) -> fmt::Result
    where
        S: IntoIterator<Item = (Labels<'l, N>, u64)>;

    /// Time that only grows.
    fn time(&mut self, family: Family, seconds: f64) -> fmt::Result;

    /// What comes and goes, with a series for each set of labels.
    fn gauges<'l, const N: usize, S>(&mut self, family: Family, series: S) -> fmt::Result
    where
        S: IntoIterator<Item = (Labels<'l, N>, f64)>;

    /// Spans of time, with a series for each set of labels.
    fn histograms<'l, const N: usize, S>(&mut self, family: Family, series: S) -> fmt::Result
    where
        S: IntoIterator<Item = (Labels<'l, N>, &'l Buckets)>;

    /// What only grows.
    fn counter(&mut self, family: Family, value: u64) -> fmt::Result {
        self.counters::<0, _>(family, [([], value)])
    }

    /// What comes and goes.
    fn gauge(&mut self, family: Family, value: f64) -> fmt::Result {
        self.gauges::<0, _>(family, [([], value)])
    }

    /// Memory, with a series for each set of labels.
    fn bytes<'l, const N: usize, S>(&mut self, family: Family, series: S) -> fmt::Result
    where
        S: IntoIterator<Item = (Labels<'l, N>, u64)>,
    {
        self.gauges(family, series.into_iter().map(|(labels, bytes)| (labels, bytes as f64)))
    }
}
