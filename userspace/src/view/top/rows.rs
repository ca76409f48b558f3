//! Which rows of a table are shown, and in which order; and how a person goes through them.

use std::{borrow::Borrow, cmp::Reverse, sync::Arc};

use septwatch_common::Leaf;

use crate::view::top::{
    columns::{self, Column, Value},
    filter::Needle,
    scene::{Found, HookRow, LeafRow, LogLine, Scene, TdRow},
    ui::{List, Target, Ui, View},
};

/// What a row is about, wherever it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A TD: its number.
    Td(u32),
    /// A violation: its number.
    Violation(u64),
    /// A leaf.
    Leaf(Leaf),
    /// A hook: its name.
    Hook(String),
    /// A line of the log: when, and what it says.
    Line(u64, String),
}

/// The table of a view in a scene.
pub trait Table {
    /// How many rows it has.
    fn len(&self) -> usize;

    /// Whether it has none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The keys of its columns.
    fn keys(&self) -> &[&'static str];

    /// What a row has in a column, both counted from 0; nothing where there is no such.
    fn value(&self, row: usize, column: usize) -> Value<'_>;

    /// What a row is about.
    fn item(&self, row: usize) -> Option<Item>;

    /// Whether a row is about it.
    fn is(&self, row: usize, item: &Item) -> bool;
}

/// What a row can say of itself.
trait About {
    fn item(&self) -> Item;
    fn is(&self, item: &Item) -> bool;
}

impl About for TdRow {
    fn item(&self) -> Item {
        Item::Td(self.id)
    }

    fn is(&self, item: &Item) -> bool {
        *item == Item::Td(self.id)
    }
}

impl About for Found {
    fn item(&self) -> Item {
        Item::Violation(self.number)
    }

    fn is(&self, item: &Item) -> bool {
        *item == Item::Violation(self.number)
    }
}

impl About for LeafRow {
    fn item(&self) -> Item {
        Item::Leaf(self.leaf)
    }

    fn is(&self, item: &Item) -> bool {
        *item == Item::Leaf(self.leaf)
    }
}

impl About for HookRow {
    fn item(&self) -> Item {
        Item::Hook(self.name.clone())
    }

    fn is(&self, item: &Item) -> bool {
        matches!(item, Item::Hook(name) if *name == self.name)
    }
}

impl About for LogLine {
    fn item(&self) -> Item {
        Item::Line(self.time_ns, self.text.clone())
    }

    fn is(&self, item: &Item) -> bool {
        matches!(item, Item::Line(time_ns, text) if *time_ns == self.time_ns && *text == self.text)
    }
}

struct Rows<'a, T, R: 'static> {
    rows: &'a [T],
    columns: &'static [Column<R>],
    keys: Vec<&'static str>,
    scene: &'a Scene,
}

impl<T: Borrow<R>, R: About> Table for Rows<'_, T, R> {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn keys(&self) -> &[&'static str] {
        &self.keys
    }

    fn value(&self, row: usize, column: usize) -> Value<'_> {
        match (self.rows.get(row), self.columns.get(column)) {
            (Some(row), Some(column)) => (column.get)(row.borrow(), self.scene),
            _ => Value::None,
        }
    }

    fn item(&self, row: usize) -> Option<Item> {
        self.rows.get(row).map(|row| row.borrow().item())
    }

    fn is(&self, row: usize, item: &Item) -> bool {
        self.rows.get(row).is_some_and(|row| row.borrow().is(item))
    }
}

/// The table of a view; none: it has no table.
pub fn table(view: View, scene: &Scene) -> Option<Box<dyn Table + '_>> {
    fn rows<'a, T: Borrow<R>, R: About>(
        view: View,
        rows: &'a [T],
        columns: &'static [Column<R>],
        scene: &'a Scene,
    ) -> Option<Box<dyn Table + 'a>> {
        Some(Box::new(Rows { rows, columns, keys: keys(view), scene }))
    }
    match view {
        View::Overview => None,
        View::Tds => rows(view, &scene.tds, columns::TDS, scene),
        View::Violations => rows::<Arc<Found>, Found>(view, &scene.violations, columns::VIOLATIONS, scene),
        View::Seamcalls => rows(view, &scene.leaves, columns::LEAVES, scene),
        View::Policy => rows(view, &scene.hooks, columns::HOOKS, scene),
        View::Log => rows::<Arc<LogLine>, LogLine>(view, &scene.log, columns::LOG, scene),
    }
}

/// The keys of the columns of a view's table: none where it has no table.
pub fn keys(view: View) -> Vec<&'static str> {
    fn of<R>(columns: &[Column<R>]) -> Vec<&'static str> {
        columns.iter().map(|column| column.key).collect()
    }
    match view {
        View::Overview => Vec::new(),
        View::Tds => of(columns::TDS),
        View::Violations => of(columns::VIOLATIONS),
        View::Seamcalls => of(columns::LEAVES),
        View::Policy => of(columns::HOOKS),
        View::Log => of(columns::LOG),
    }
}

/// Fills in the rows of the open view's table, and keeps the chosen one on what it is about.
pub fn arrange(ui: &mut Ui, scene: &Scene) {
    let view = ui.view;
    let Some(table) = table(view, scene) else { return };
    let list = ui.list(view);
    let mut rows = std::mem::take(&mut list.rows);
    rows.clear();
    rows.extend(0..table.len());
    match view {
        // What is newest, busiest or missing comes first.
        View::Violations => rows.reverse(),
        View::Seamcalls => {
            let rate = |row: &usize| scene.leaves.get(*row).map_or(0.0, |leaf| leaf.rate);
            rows.sort_by(|one, other| rate(other).total_cmp(&rate(one)));
        }
        View::Policy => rows.sort_by_key(|row| {
            scene.hooks.get(*row).map(|hook| (hook.bound.is_some(), Reverse(hook.required)))
        }),
        View::Overview | View::Tds | View::Log => {}
    }
    if !list.filter.is_empty() {
        rows.retain(|row| list.filter.matches(&*table, *row));
    }
    let sorted = list.sort.as_ref().and_then(|(key, largest_first)| {
        Some((table.keys().iter().position(|column| column == key)?, *largest_first))
    });
    if let Some((column, largest_first)) = sorted {
        sort(&mut rows, &*table, column, largest_first);
    }
    list.rows = rows;
    keep(list, view, &*table);
}

/// Sorts by a column; what is not known comes last either way.
fn sort(rows: &mut [usize], table: &dyn Table, column: usize, largest_first: bool) {
    let mut cells: Vec<_> = rows.iter().map(|row| (table.value(*row, column), *row)).collect();
    cells.sort_by(|(one, _), (other, _)| {
        let unknown = |value| matches!(value, &Value::None);
        if largest_first && !unknown(one) && !unknown(other) { other.order(one) } else { one.order(other) }
    });
    for (row, (_, sorted)) in rows.iter_mut().zip(cells) {
        *row = sorted;
    }
}

/// The row that is chosen as long as nobody chose: in the log, the newest line.
fn edge(list: &List, view: View) -> usize {
    if view == View::Log && list.sort.is_none() { list.rows.len().saturating_sub(1) } else { 0 }
}

/// Whether the edge shows what is newest: who stands there wants to see what comes.
fn follows(list: &List, view: View) -> bool {
    matches!(view, View::Log | View::Violations) && list.sort.is_none()
}

fn keep(list: &mut List, view: View, table: &dyn Table) {
    let last = list.rows.len().saturating_sub(1);
    let Some(item) = &list.item else {
        list.chosen = edge(list, view);
        list.top = if list.chosen == 0 { 0 } else { list.top };
        return;
    };
    let is = |row: &usize| table.is(*row, item);
    if list.rows.get(list.chosen).is_some_and(is) {
        return;
    }
    match list.rows.iter().position(is) {
        Some(place) => {
            // It stays where it is on the screen, too.
            list.top = (list.top.saturating_add(place)).saturating_sub(list.chosen);
            list.chosen = place;
        }
        None => {
            list.chosen = list.chosen.min(last);
            if let Some(row) = list.rows.get(list.chosen) {
                list.item = table.item(*row);
            }
        }
    }
}

/// Chooses a row of the open view's table, or the nearest that there is.
pub fn choose(ui: &mut Ui, scene: &Scene, row: usize) {
    let view = ui.view;
    let Some(table) = table(view, scene) else { return };
    let list = ui.list(view);
    list.chosen = row.min(list.rows.len().saturating_sub(1));
    let free = follows(list, view) && list.chosen == edge(list, view);
    list.item = if free { None } else { list.rows.get(list.chosen).and_then(|row| table.item(*row)) };
}

/// Chooses a row so many further down, or up.
pub fn go(ui: &mut Ui, scene: &Scene, by: isize) {
    let view = ui.view;
    let row = ui.list(view).chosen.saturating_add_signed(by);
    choose(ui, scene, row);
}

/// How many rows are on the screen, as it was drawn last; 1 or more.
pub fn page(ui: &Ui) -> usize {
    ui.targets.iter().filter(|(_, target)| matches!(target, Target::Row(_))).count().max(1)
}

/// The row that is chosen in the open view's table, as an index into the scene's list.
pub fn chosen(ui: &Ui) -> Option<usize> {
    let list = ui.lists.get(&ui.view)?;
    list.rows.get(list.chosen).copied()
}

/// What came of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hit {
    /// A row has it.
    Here,
    /// A row has it, after the search went on at the other end.
    Around,
    /// No row has it.
    Nowhere,
}

/// Chooses the next row that has this text somewhere, or the one before; `here`: the chosen row counts, too.
pub fn search(ui: &mut Ui, scene: &Scene, text: &str, forward: bool, here: bool) -> Hit {
    let view = ui.view;
    let Some(table) = table(view, scene) else { return Hit::Nowhere };
    let needle = Needle::new(text);
    let list = ui.list(view);
    let count = list.rows.len();
    let first = usize::from(!here);
    let hit = (first..count.saturating_add(first)).find_map(|step| {
        let place = if forward { list.chosen + step } else { list.chosen + 2 * count - step } % count;
        let row = list.rows.get(place)?;
        needle.is_in_row(&*table, *row).then_some(place)
    });
    let Some(place) = hit else { return Hit::Nowhere };
    let around = if forward { place < list.chosen } else { place > list.chosen };
    choose(ui, scene, place);
    if around { Hit::Around } else { Hit::Here }
}

#[cfg(test)]
mod tests;
