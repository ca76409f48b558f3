//! What the person in front of the screen has chosen, whatever is shown.

use std::{collections::BTreeMap, time::Instant};

use ratatui::layout::Rect;

use crate::view::top::{filter::Filter, rows::Item, scene::Ask};

/// A view: one key each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub enum View {
    /// The host at a glance.
    #[default]
    Overview,
    /// TDs.
    Tds,
    /// Violations.
    Violations,
    /// SEAMCALLs, leaf by leaf.
    Seamcalls,
    /// The hook plan and the policy.
    Policy,
    /// What happened.
    Log,
}

impl View {
    /// All of them, in the order of their keys.
    pub const ALL: [Self; 6] =
        [Self::Overview, Self::Tds, Self::Violations, Self::Seamcalls, Self::Policy, Self::Log];

    /// Its name in the configuration file and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Overview => "overview",
            Self::Tds => "tds",
            Self::Violations => "violations",
            Self::Seamcalls => "seamcalls",
            Self::Policy => "policy",
            Self::Log => "log",
        }
    }

    /// Whether it has a table.
    pub const fn has_table(self) -> bool {
        !matches!(self, Self::Overview)
    }

    /// Its name on the screen.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Tds => "TDs",
            Self::Violations => "Violations",
            Self::Seamcalls => "SEAMCALLs",
            Self::Policy => "Hooks and policy",
            Self::Log => "Log",
        }
    }
}

/// A table that can be gone through, filtered and sorted.
#[derive(Clone, Debug, Default)]
pub struct List {
    /// The row that is chosen, counted in the rows that are shown.
    pub chosen: usize,
    /// What is chosen, wherever its row moves. None: nothing yet, or whatever is newest.
    pub item: Option<Item>,
    /// The first that is on the screen.
    pub top: usize,
    /// What it is sorted by: key of a column, and whether the largest comes first. None: as it comes.
    pub sort: Option<(String, bool)>,
    /// Which rows are shown.
    pub filter: Filter,
    /// Keys of columns that are never shown.
    pub hidden: Vec<String>,
    /// Rows that match the filter, as indexes into the scene's list, in the order in which they are shown. Made anew for
    /// each scene that is drawn, by [`super::rows::arrange`].
    pub rows: Vec<usize>,
}

/// Something is being typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A filter for the table.
    Filter,
    /// A text to go to.
    Search,
    /// The policy's name, to arm it.
    Arm(String),
    /// `disarm`, to disarm it.
    Disarm,
    /// A moment to go to: a span after the begin, as in 90s.
    Go,
}

/// A line that is being typed.
#[derive(Clone, Debug)]
pub struct Input {
    /// What for.
    pub purpose: Purpose,
    /// What is typed so far.
    pub text: String,
    /// Where the next character goes, in bytes.
    pub cursor: usize,
    /// What is wrong with it.
    pub error: Option<String>,
}

/// A place on the screen that can be clicked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A view's tab.
    Tab(View),
    /// A row of the table, counted in the rows that are shown.
    Row(usize),
    /// The head of a column: its key.
    Head(String),
    /// The bar of time; a click goes to a moment.
    Timeline,
}

/// What the person has chosen.
#[derive(Clone, Debug, Default)]
pub struct Ui {
    /// The view that is open.
    pub view: View,
    /// In it, a row is open: a TD, or a violation, by its number.
    pub open: Option<u64>,
    /// How far what is open has been scrolled, in lines.
    pub scroll: u16,
    /// The help is shown.
    pub help: bool,
    /// The scene stands still.
    pub paused: bool,
    /// Tables, by view.
    pub lists: BTreeMap<View, List>,
    /// What was searched for last.
    pub search: String,
    /// Something is being typed.
    pub input: Option<Input>,
    /// A word to the person, and since when: shown for some seconds.
    pub told: Option<(String, Instant)>,
    /// What can be clicked, as it was drawn last.
    pub targets: Vec<(Rect, Target)>,
    /// The filter of the table before another one was being typed.
    pub before: Option<Filter>,
    /// The moment that was asked for last, and when: the scene may not be there yet.
    pub going: Option<(u64, Instant)>,
    /// What is to be asked of the source.
    pub asks: Vec<Ask>,
    /// The screen is to be left.
    pub quit: bool,
}

impl Ui {
    /// The table of a view.
    pub fn list(&mut self, view: View) -> &mut List {
        self.lists.entry(view).or_default()
    }

    /// Says something to the person.
    pub fn tell(&mut self, told: impl Into<String>) {
        self.told = Some((told.into(), Instant::now()));
    }
}
