//! Saving what is chosen.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

use toml_edit::{Array, DocumentMut, Item, Table, Value};

use super::{AUTO, Config, ConfigError, theme_name};
use crate::view::top::{
    palette::Theme,
    rows::keys,
    ui::{List, Ui, View},
};

/// What a new file begins with.
const HEAD: &str =
    "# Saved by septwatch top. All that can be set: septwatch top --print-config\n\nview = \"overview\"\n";

/// Saves the view, the tables and the theme into the configuration file; the rest of it stays as it is, comments, too. The
/// file is there as a whole or not at all, and for its owner alone.
///
/// # Errors
/// A file that is there cannot be read or makes no sense: then it is not touched. It cannot be written.
pub fn save(path: &Path, ui: &Ui, theme: Option<Theme>) -> Result<(), ConfigError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => HEAD.to_owned(),
        Err(source) => return Err(ConfigError::Read { path: path.to_owned(), source }),
    };
    Config::parse(path, &text)?;
    let wrong = |what: String| ConfigError::Line { path: path.to_owned(), line: 1, what };
    let mut document: DocumentMut =
        text.parse().map_err(|error: toml_edit::TomlError| wrong(error.message().to_owned()))?;
    change(&mut document, ui, theme);
    let text = document.to_string();
    // What cannot be read again is not worth keeping.
    Config::parse(path, &text)?;
    write(path, &text).map_err(|source| ConfigError::Write { path: path.to_owned(), source })
}

fn change(document: &mut DocumentMut, ui: &Ui, theme: Option<Theme>) {
    let root = document.as_table_mut();
    set(root, "view", Some(ui.view.name().into()));
    let theme = theme.map(theme_name);
    let given = root.contains_key("theme");
    set(root, "theme", theme.or_else(|| given.then(|| AUTO.to_owned())).map(Into::into));
    for (view, list) in &ui.lists {
        table(root, *view, list);
    }
}

fn table(root: &mut Table, view: View, list: &List) {
    let known = keys(view);
    let shown = known.iter().filter(|key| !list.hidden.iter().any(|hidden| hidden == **key));
    let columns = (!list.hidden.is_empty()).then(|| Value::from(shown.copied().collect::<Array>()));
    let sort = list.sort.as_ref().map(|(key, largest_first)| {
        let minus = if *largest_first { "-" } else { "" };
        Value::from(format!("{minus}{key}"))
    });
    let filter = (!list.filter.is_empty()).then(|| Value::from(list.filter.text.as_str()));
    let there = root.get("views").and_then(|views| views.get(view.name())).is_some();
    if !there && columns.is_none() && sort.is_none() && filter.is_none() {
        return;
    }
    let implicit = || {
        let mut table = Table::new();
        table.set_implicit(true);
        Item::Table(table)
    };
    let views = root.entry("views").or_insert_with(implicit);
    let Some(views) = views.as_table_like_mut() else { return };
    let table = views.entry(view.name()).or_insert_with(|| Item::Table(Table::new()));
    let Some(table) = table.as_table_like_mut() else { return };
    set(table, "columns", columns);
    set(table, "sort", sort);
    set(table, "filter", filter);
}

/// Sets a value, or takes it away, and leaves what stands around it.
fn set(table: &mut dyn toml_edit::TableLike, key: &str, value: Option<Value>) {
    match (table.get_mut(key).and_then(Item::as_value_mut), value) {
        (Some(old), Some(mut value)) => {
            *value.decor_mut() = old.decor().clone();
            *old = value;
        }
        (None, Some(value)) => {
            table.insert(key, Item::Value(value));
        }
        (_, None) => {
            table.remove(key);
        }
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    // A link to where somebody keeps all such files stays one.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let part = folder.join(format!(".top.toml.{}", std::process::id()));
    // One that an earlier process of this number left behind.
    let _ = fs::remove_file(&part);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    let renamed = written.and_then(|()| fs::rename(&part, &path));
    if renamed.is_err() {
        // It is of no use to anybody.
        let _ = fs::remove_file(&part);
    }
    renamed
}
