//! The ledger on hosts with much more memory than this one: what it takes, and what looking up, opening and closing lines
//! costs.

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde::Deserialize;

use super::{Limit, Row, statistics::estimate};
use crate::step::note;
use crate::{run, setup};

/// How it is measured.
#[derive(Args)]
pub struct Options {
    /// Rounds; medians are shown.
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u32).range(3..=1000))]
    rounds: u32,
    /// Most memory that a ledger is filled to, in GiB. Of what needs more, the rest is extrapolated.
    #[arg(long, value_name = "GIB", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1024))]
    memory: u32,
}

/// A figure, as measured in each round.
#[derive(Deserialize)]
struct Told {
    what: String,
    unit: String,
    values: Vec<f64>,
    limit: Option<f64>,
}

impl Told {
    fn row(self, random: &mut fastrand::Rng) -> Result<Row> {
        let unit = ["", "ns", "bytes", "MiB", "GiB"].into_iter().find(|unit| *unit == self.unit);
        let unit = unit.with_context(|| format!("an odd unit: {}", self.unit))?;
        let [low, middle, high] = estimate(&self.values, random);
        let mut row = Row::new(self.what, middle, unit);
        row.limit = self.limit.map(Limit::AtMost);
        Ok(if self.values.len() > 1 { row.between(low, high) } else { row })
    }
}

/// Measures everything.
///
/// # Errors
/// The kernel refuses the maps, or the ledger does not hold what was put there.
pub fn run(options: &Options) -> Result<Vec<Row>> {
    setup::for_building()?;
    note("ledger", format_args!("{} rounds, at most {} GiB", options.rounds, options.memory));
    let mut cargo = setup::cargo()?;
    cargo.args(["run", "--quiet", "--locked", "--release", "--package", "septwatch"]);
    cargo.args(["--example", "ledger-cost", "--"]);
    cargo.args([options.rounds, options.memory].map(|number| number.to_string()));
    let text = run::quiet(&mut cargo)?;
    let mut random = fastrand::Rng::with_seed(1);
    let told = text.lines().map(|line| serde_json::from_str::<Told>(line).context("an odd line"));
    let rows: Vec<_> = told.map(|told| told?.row(&mut random)).collect::<Result<_>>()?;
    ensure!(!rows.is_empty(), "it told nothing");
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_the_median_of_its_rounds() {
        let row = |line: &str| {
            let told = serde_json::from_str::<Told>(line)?;
            told.row(&mut fastrand::Rng::with_seed(1))
        };
        let rounds = row(r#"{"what":"a","unit":"ns","values":[3,1,2],"limit":null}"#);
        assert!(rounds.is_ok_and(|row| row.value == 2.0 && row.between.is_some() && row.limit.is_none()));
        let once = row(r#"{"what":"a","unit":"MiB","values":[65.5],"limit":64}"#);
        assert!(once.is_ok_and(|row| row.value == 65.5
            && row.between.is_none()
            && !super::super::rows_limit(row.value, row.limit)));
        assert!(row(r#"{"what":"a","unit":"furlong","values":[1],"limit":null}"#).is_err());
    }
}
