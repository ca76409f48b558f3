//! What changed, as text, Markdown and JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::{
    commands::output::{cell, plain},
    regression::changes::Row,
};

fn about(row: &Row) -> String {
    let words = [row.section, &row.of, &row.figure];
    words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

fn verdict(out: usize) -> String {
    if out == 0 { "within tolerance".to_owned() } else { format!("{out} out of tolerance") }
}

/// A table for people, with a mark at what is out of tolerance.
pub fn text(names: &[String; 2], rows: &[Row], out: usize) -> String {
    let mut text = format!("A {}\nB {}\n", names[0], names[1]);
    let long =
        |of: fn(&Row) -> String| rows.iter().map(|row| of(row).chars().count()).max().unwrap_or(0).min(60);
    let (about_width, a_width, b_width) =
        (long(about), long(|row| row.a.to_string()).max(1), long(|row| row.b.to_string()).max(1));
    if !rows.is_empty() {
        let _ =
            writeln!(text, "  {:<about_width$}  {:>a_width$}  {:>b_width$}  {:>8}", "", "A", "B", "factor");
    }
    for row in rows {
        let mark = if row.out { '!' } else { ' ' };
        let (a, b) = (plain(&row.a.to_string()), plain(&row.b.to_string()));
        let head = plain(&about(row));
        let line = format!("{mark} {head:<about_width$}  {a:>a_width$}  {b:>b_width$}  {:>8}", row.times());
        let tolerance = row.tolerance.as_ref().filter(|_| row.out);
        let _ = match tolerance {
            Some(tolerance) => writeln!(text, "{line}  tolerated: {tolerance}"),
            None => writeln!(text, "{}", line.trim_end()),
        };
    }
    let _ = writeln!(text, "{}", verdict(out));
    text
}

/// The same as one object.
pub fn json(names: &[String; 2], rows: &[Row], out: usize) -> Value {
    json!({"type": "diff", "a": names[0], "b": names[1], "within_tolerance": out == 0, "out_of_tolerance": out, "rows": rows})
}

/// The same for a step summary.
pub fn markdown(names: &[String; 2], rows: &[Row], out: usize) -> String {
    let mut text =
        format!("### septwatch diff: {}\n\nA: {}, B: {}\n\n", verdict(out), cell(&names[0]), cell(&names[1]));
    if rows.is_empty() {
        text.push_str("Nothing changed.\n\n");
        return text;
    }
    text.push_str("| | | A | B | factor | tolerated |\n|---|---|---:|---:|---:|---|\n");
    for row in rows {
        let mark = if row.out { "**out**" } else { "" };
        let (a, b) = (cell(&row.a.to_string()), cell(&row.b.to_string()));
        let tolerance = row.tolerance.as_deref().unwrap_or("");
        let _ =
            writeln!(text, "| {mark} | {} | {a} | {b} | {} | {tolerance} |", cell(&about(row)), row.times());
    }
    text.push('\n');
    text
}
