//! The hosts of a fleet on a screen: a table of them, the worst first, and behind each its violations and its TDs.
//!
//! Nothing here knows the bus: it draws a [`Fleet`].

mod draw;
mod keys;

use std::cmp::Reverse;

pub use draw::draw;

use crate::fleet::model::{Fleet, Host, Standing};

/// What hosts are ordered by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// By how they are, then by the newest violation.
    #[default]
    Worst,
    /// By name.
    Name,
    /// By violations.
    Violations,
    /// By events.
    Events,
}

impl Order {
    const ALL: [Self; 4] = [Self::Worst, Self::Name, Self::Violations, Self::Events];

    const fn name(self) -> &'static str {
        match self {
            Self::Worst => "the worst first",
            Self::Name => "by name",
            Self::Violations => "most violations first",
            Self::Events => "most events first",
        }
    }

    fn next(self) -> Self {
        let at = Self::ALL.iter().position(|order| *order == self).unwrap_or(0);
        Self::ALL[(at + 1) % Self::ALL.len()]
    }
}

/// How reading the bus goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// All that was there is read.
    pub caught_up: bool,
    /// Why it cannot be read now.
    pub trouble: Option<String>,
}

/// Which page is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Page {
    /// All hosts.
    #[default]
    Hosts,
    /// One, by its name; of its two tables, that of TDs has the keys.
    Host(String, bool),
    /// An event of this host, by its number in the stream; none: it is being fetched.
    Event(String, u64, Option<Vec<String>>),
}

/// What a person has chosen.
#[derive(Clone, Debug, Default)]
pub struct Ui {
    page: Page,
    order: Order,
    /// Part of the names of hosts that are shown.
    filter: String,
    /// The filter is being typed.
    typing: bool,
    /// The row that is chosen: of hosts, of violations, of TDs; and how far the event is scrolled.
    chosen: [usize; 4],
    /// Rows that were there when it was drawn last, and those that fit.
    rows: usize,
    fit: usize,
}

/// What is to be done about a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing but to draw.
    None,
    /// Leave.
    Quit,
    /// Stop, as ctrl-z does.
    Suspend,
    /// Draw everything anew.
    Redraw,
    /// Fetch the event with this number.
    Fetch(u64),
}

impl Ui {
    /// With this filter.
    pub fn filtered(filter: Option<&str>) -> Self {
        Self { filter: filter.unwrap_or_default().to_owned(), ..Self::default() }
    }

    /// The hosts that are shown, in their order.
    pub fn hosts<'a>(&self, fleet: &'a Fleet, now_ns: u64) -> Vec<(&'a str, &'a Host, Standing)> {
        let mut hosts = fleet.worst_first(now_ns);
        hosts.retain(|(name, ..)| name.contains(&self.filter));
        match self.order {
            Order::Worst => {}
            Order::Name => hosts.sort_by_key(|(name, ..)| *name),
            Order::Violations => hosts.sort_by_key(|(_, host, _)| Reverse(host.found())),
            Order::Events => hosts.sort_by_key(|(_, host, _)| Reverse(host.events)),
        }
        hosts
    }

    /// What was fetched, in lines, or why it was not.
    pub fn fetched(&mut self, seq: u64, lines: Vec<String>) {
        if let Page::Event(_, of, text) = &mut self.page
            && *of == seq
        {
            *text = Some(lines);
        }
    }

    /// Which of `chosen` the keys move.
    const fn at(&self) -> usize {
        match &self.page {
            Page::Hosts => 0,
            Page::Host(_, false) => 1,
            Page::Host(_, true) => 2,
            Page::Event(..) => 3,
        }
    }
}

#[cfg(test)]
mod tests;
