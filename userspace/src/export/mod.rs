//! Recordings in the formats of other tools.
//!
//! Each format is a [`Sink`] that takes in, one after the other, what a replay tells; none holds more than a bounded
//! part of it. [`rows`] has the columns that the tables share.

mod csv;
mod jsonl;
#[cfg(feature = "parquet")]
mod parquet;
mod perfetto;
pub mod rows;

use std::{
    io::{self, Write},
    path::Path,
};

use thiserror::Error;

use crate::{
    recording::{
        header::{End, Header},
        reader::{Damage, OpenError},
        replay::{Replay, Step},
        tds::Tds,
    },
    source::session::Standing,
};

/// What a recording becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One JSON object per line: events as `watch --json` prints them, and notes.
    Jsonl,
    /// A table, one row per event.
    Csv,
    /// The same table for DuckDB, pandas, Spark.
    #[cfg(feature = "parquet")]
    Parquet,
    /// A trace for the Perfetto viewer.
    Perfetto,
}

impl Format {
    /// Whether it is text, to be read on a terminal.
    pub const fn is_text(self) -> bool {
        matches!(self, Self::Jsonl | Self::Csv)
    }

    /// What the names of such files end in.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
            #[cfg(feature = "parquet")]
            Self::Parquet => "parquet",
            Self::Perfetto => "pftrace",
        }
    }
}

/// A recording cannot be exported.
#[derive(Debug, Error)]
pub enum ExportError {
    /// It cannot be read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The output cannot be written.
    #[error("{0}")]
    Write(#[from] io::Error),
    /// The table cannot be written.
    #[cfg(feature = "parquet")]
    #[error("{0}")]
    Parquet(#[from] ::parquet::errors::ParquetError),
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Events.
    pub events: u64,
    /// Places where the recording is damaged: what lay there is missing.
    pub damages: u64,
}

/// What a replay knows where it stands.
pub struct Now<'a> {
    /// What the recording says of itself.
    pub header: &'a Header,
    /// TDs of the whole recording.
    pub tds: &'a Tds,
    /// The TD that an event is about, by its number.
    pub td: Option<u32>,
    /// The replay.
    pub replay: &'a Replay<std::fs::File>,
}

/// Where a recording goes.
trait Sink {
    /// Takes in what happened.
    fn step(&mut self, step: &Step, now: &Now<'_>) -> Result<(), ExportError>;
    /// All has happened.
    fn end(&mut self, last: &Last<'_>) -> Result<(), ExportError>;
}

/// How a recording ended.
struct Last<'a> {
    now: Now<'a>,
    end: Option<&'a End>,
    standing: Standing,
}

/// Exports the recording at `path`, which must be a file that can be read twice. `damaged` is told what is missing.
///
/// # Errors
/// See [`ExportError`].
pub fn export(
    path: &Path,
    format: Format,
    out: Box<dyn Write + Send>,
    damaged: &mut dyn FnMut(&Damage),
) -> Result<Exported, ExportError> {
    let tds = Tds::of(path)?;
    let mut replay = Replay::open(path)?;
    let header = replay.header().clone();
    let mut sink: Box<dyn Sink> = match format {
        Format::Jsonl => Box::new(jsonl::Jsonl::begin(out, &header)?),
        Format::Csv => Box::new(csv::Csv::begin(out)?),
        #[cfg(feature = "parquet")]
        Format::Parquet => Box::new(parquet::Parquet::begin(out, &header)?),
        Format::Perfetto => Box::new(perfetto::Perfetto::begin(out, &header, &tds)?),
    };
    let mut exported = Exported::default();
    loop {
        // Before the ledger takes it in: a frame that is given back has no TD any more after it.
        let td = replay.peek().cloned().and_then(|event| tds.of_event(&event, replay.ledger()));
        let Some(step) = replay.next() else { break };
        match &step {
            Step::Event { .. } => exported.events += 1,
            Step::Damage(damage) => damaged(damage),
            Step::Note(_) => {}
        }
        sink.step(&step, &Now { header: &header, tds: &tds, td, replay: &replay })?;
    }
    exported.damages = replay.damages();
    let now = Now { header: &header, tds: &tds, td: None, replay: &replay };
    sink.end(&Last { now, end: replay.end(), standing: replay.standing() })?;
    Ok(exported)
}
