//! The configuration file: what is chosen when the screen comes up.

mod save;
mod template;

pub use save::save;
pub use template::template;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use clap::ValueEnum as _;
use serde::Deserialize;
use toml::{Spanned, Value};

use crate::view::top::{
    filter::{Filter, alike},
    keys::{KeyMap, KeyMapError},
    palette::Theme,
    rows::keys,
    ui::{Ui, View},
};

/// Frames per second that can be asked for.
pub const RATES: std::ops::RangeInclusive<u8> = 1..=30;
const RATE: u8 = 4;
/// What the environment decides.
const AUTO: &str = "auto";

/// What is chosen when the screen comes up.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Colours; none: as the environment says.
    pub theme: Option<Theme>,
    /// Whether signs are of ASCII alone; none: as the environment says.
    pub ascii: Option<bool>,
    /// Most frames per second that are drawn by themselves: one of [`RATES`].
    pub rate: u8,
    /// Whether the mouse is taken from the terminal.
    pub mouse: bool,
    /// The view that is open.
    pub view: View,
    /// The key map.
    pub keys: KeyMap,
    /// Tables that are not as they come.
    pub tables: BTreeMap<View, Table>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            theme: None,
            ascii: None,
            rate: RATE,
            mouse: true,
            view: View::default(),
            keys: KeyMap::default(),
            tables: BTreeMap::new(),
        }
    }
}

/// How a table is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Keys of columns that are not shown.
    pub hidden: Vec<String>,
    /// The column that it is sorted by, and whether the largest comes first.
    pub sort: Option<(String, bool)>,
    /// Rows that are shown.
    pub filter: Filter,
}

/// The configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("{}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something in it is wrong.
    #[error("{}:{line}: {what}", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong, and what would be right.
        what: String,
    },
    /// It cannot be written.
    #[error("{}: not saved: {source}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Where the file is, whether or not it exists; none: neither XDG_CONFIG_HOME nor HOME says so.
pub fn path(env: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let folder = |name| env(name).map(PathBuf::from).filter(|folder| folder.is_absolute());
    let config = folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config")))?;
    Some(config.join("septwatch").join("top.toml"))
}

/// The file as it is written.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    theme: Option<Spanned<String>>,
    ascii: Option<Spanned<Value>>,
    rate: Option<Spanned<i64>>,
    mouse: Option<bool>,
    view: Option<Spanned<String>>,
    keys: BTreeMap<String, Spanned<Vec<String>>>,
    views: Views,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Views {
    tds: WrittenTable,
    violations: WrittenTable,
    seamcalls: WrittenTable,
    policy: WrittenTable,
    log: WrittenTable,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenTable {
    columns: Option<Spanned<Vec<String>>>,
    sort: Option<Spanned<String>>,
    filter: Option<Spanned<String>>,
}

/// What is wrong, and where, in bytes.
struct Fault(usize, String);

impl Config {
    /// Reads the file; if there is none, all is as it comes.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(path, &text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(ConfigError::Read { path: path.to_owned(), source }),
        }
    }

    /// Reads a text; `path` is what errors call it.
    ///
    /// # Errors
    /// [`ConfigError::Line`]
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let file: Result<File, _> = toml::from_str(text);
        let file = file.map_err(|error| {
            let what = error.message().replace('\n', "; ");
            Fault(error.span().map_or(0, |span| span.start), what)
        });
        file.and_then(Self::of).map_err(|Fault(at, what)| {
            let before = text.as_bytes().get(..at).unwrap_or(text.as_bytes());
            let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
            // What it quotes may be anything.
            let what = what.replace(char::is_control, "?");
            ConfigError::Line { path: path.to_owned(), line, what }
        })
    }

    fn of(file: File) -> Result<Self, Fault> {
        let mut config = Self::default();
        if let Some(theme) = file.theme.filter(|theme| theme.get_ref() != AUTO) {
            let known = Theme::value_variants().iter().map(|theme| (theme_name(*theme), *theme));
            config.theme = Some(one_of(&theme, "theme", known.chain([(AUTO.to_owned(), Theme::Even)]))?);
        }
        config.ascii = match file.ascii.as_ref().map(|ascii| (ascii.span().start, ascii.get_ref())) {
            None => None,
            Some((_, Value::Boolean(ascii))) => Some(*ascii),
            Some((_, Value::String(word))) if word == AUTO => None,
            Some((at, _)) => return Err(Fault(at, format!("ascii is true, false or {AUTO:?}"))),
        };
        if let Some(rate) = file.rate {
            let within = u8::try_from(*rate.get_ref()).ok().filter(|rate| RATES.contains(rate));
            let wrong = || {
                let (least, most) = (RATES.start(), RATES.end());
                let what = format!("rate is {least} to {most} frames per second, not {}", rate.get_ref());
                Fault(rate.span().start, what)
            };
            config.rate = within.ok_or_else(wrong)?;
        }
        config.mouse = file.mouse.unwrap_or(config.mouse);
        if let Some(view) = file.view {
            config.view =
                one_of(&view, "view", View::ALL.iter().map(|view| (view.name().to_owned(), *view)))?;
        }
        config.keys = key_map(&file.keys)?;
        let views = file.views;
        for (view, table) in [
            (View::Tds, views.tds),
            (View::Violations, views.violations),
            (View::Seamcalls, views.seamcalls),
            (View::Policy, views.policy),
            (View::Log, views.log),
        ] {
            let table = table.read(view)?;
            if table != Table::default() {
                config.tables.insert(view, table);
            }
        }
        Ok(config)
    }

    /// What is chosen at the beginning.
    pub fn ui(&self) -> Ui {
        let mut ui = Ui { view: self.view, ..Ui::default() };
        for (view, table) in &self.tables {
            let list = ui.list(*view);
            list.hidden.clone_from(&table.hidden);
            list.sort.clone_from(&table.sort);
            list.filter = table.filter.clone();
        }
        ui
    }
}

/// Its name in the file.
pub fn theme_name(theme: Theme) -> String {
    theme.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// One of those that are known by name.
fn one_of<T>(
    word: &Spanned<String>,
    what: &str,
    known: impl Iterator<Item = (String, T)>,
) -> Result<T, Fault> {
    let mut known: Vec<_> = known.collect();
    if let Some(at) = known.iter().position(|(name, _)| name == word.get_ref()) {
        return Ok(known.swap_remove(at).1);
    }
    let names: Vec<_> = known.iter().map(|(name, _)| name.as_str()).collect();
    Err(Fault(word.span().start, unknown(what, word.get_ref(), &names)))
}

fn unknown(what: &str, word: &str, known: &[&str]) -> String {
    let guess = alike(word, known.iter().copied()).map(|guess| format!(": {guess}?")).unwrap_or_default();
    format!("no {what} {word}{guess}; there are {}", known.join(" "))
}

fn key_map(written: &BTreeMap<String, Spanned<Vec<String>>>) -> Result<KeyMap, Fault> {
    let keys = |keys: &'_ Spanned<Vec<String>>| keys.get_ref().clone();
    let given: Vec<_> = written.iter().map(|(action, given)| (action.as_str(), keys(given))).collect();
    let given =
        given.iter().map(|(action, keys)| (*action, keys.iter().map(String::as_str).collect::<Vec<_>>()));
    KeyMap::new(given).map_err(|error| {
        let place = |action: &str| written.get(action).map(|keys| keys.span().start);
        let at = match &error {
            KeyMapError::Key { action, .. } => place(action),
            KeyMapError::Action { name } => place(name),
            KeyMapError::NoQuit => place("quit"),
            KeyMapError::Conflict { one, other, .. } => place(one).or(place(other)),
        };
        Fault(at.unwrap_or(0), error.to_string())
    })
}

impl WrittenTable {
    fn read(self, view: View) -> Result<Table, Fault> {
        let known = keys(view);
        let mut table = Table::default();
        if let Some(columns) = self.columns {
            let at = columns.span().start;
            if let Some(wrong) = columns.get_ref().iter().find(|column| !known.contains(&column.as_str())) {
                return Err(Fault(at, unknown("column", wrong, &known)));
            }
            if columns.get_ref().is_empty() {
                return Err(Fault(at, format!("at least one column is shown, of {}", known.join(" "))));
            }
            let is_hidden = |key: &&&str| !columns.get_ref().iter().any(|column| column == **key);
            table.hidden = known.iter().filter(is_hidden).map(|key| (*key).to_owned()).collect();
        }
        if let Some(sort) = self.sort.filter(|sort| !sort.get_ref().is_empty()) {
            let (key, largest_first) =
                sort.get_ref().strip_prefix('-').map_or((sort.get_ref().as_str(), false), |key| (key, true));
            if !known.contains(&key) {
                return Err(Fault(sort.span().start, unknown("column", key, &known)));
            }
            table.sort = Some((key.to_owned(), largest_first));
        }
        if let Some(filter) = self.filter {
            table.filter = Filter::parse(filter.get_ref(), view)
                .map_err(|error| Fault(filter.span().start, error.to_string()))?;
        }
        Ok(table)
    }
}

#[cfg(test)]
mod tests;
