#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::time::Instant;

use ratatui::layout::Rect;

use super::*;
use crate::view::top::{
    columns::{Kind, kind},
    examples,
    filter::Filter,
};

fn opened(view: View, scene: &Scene) -> Ui {
    let mut ui = Ui { view, ..Ui::default() };
    arrange(&mut ui, scene);
    ui
}

fn sorted(view: View, scene: &Scene, key: &str, largest_first: bool) -> Vec<usize> {
    let mut ui = Ui { view, ..Ui::default() };
    ui.list(view).sort = Some((key.to_owned(), largest_first));
    arrange(&mut ui, scene);
    ui.list(view).rows.clone()
}

#[test]
fn each_table_has_its_order() {
    let scene = examples::scene();
    for (view, rows) in [
        (View::Tds, &[0_usize, 1, 2, 3] as &[usize]),
        (View::Violations, &[2, 1, 0]),
        // By rate; one that is no number is above all.
        (View::Seamcalls, &[2, 1, 3, 0]),
        (View::Policy, &[2, 1, 0]),
        (View::Log, &[0, 1, 2]),
        (View::Overview, &[]),
    ] {
        assert_eq!(opened(view, &scene).list(view).rows, rows, "{view:?}");
    }
}

#[test]
fn the_unknown_comes_last_either_way_and_equals_stay_in_order() {
    let scene = examples::scene();
    assert_eq!(sorted(View::Tds, &scene, "busy", true), [1, 2, 0, 3]);
    assert_eq!(sorted(View::Tds, &scene, "busy", false), [0, 3, 2, 1]);
    assert_eq!(sorted(View::Tds, &scene, "held", true), [2, 0, 1, 3]);
    assert_eq!(sorted(View::Tds, &scene, "held", false), [2, 0, 1, 3]);
    assert_eq!(sorted(View::Violations, &scene, "window", true), [1, 2, 0]);
    assert_eq!(sorted(View::Seamcalls, &scene, "p99", true), [1, 3, 2, 0]);
    assert_eq!(sorted(View::Seamcalls, &scene, "p99", false), [2, 3, 1, 0]);
    // Numbers as numbers.
    let mut scene = scene;
    scene.tds = [9, 10, 100].map(|id| examples::td(id, None)).to_vec().into();
    assert_eq!(sorted(View::Tds, &scene, "td", false), [0, 1, 2]);
    assert_eq!(sorted(View::Tds, &scene, "no such column", true), [0, 1, 2]);
}

#[test]
fn the_chosen_row_stays_on_its_item() {
    let mut scene = examples::scene();
    let mut ui = opened(View::Tds, &scene);
    choose(&mut ui, &scene, 1);
    ui.list(View::Tds).sort = Some(("busy".to_owned(), false));
    ui.list(View::Tds).top = 1;
    arrange(&mut ui, &scene);
    assert_eq!(chosen(&ui), Some(1));
    let list = ui.list(View::Tds);
    assert_eq!((list.chosen, list.top), (3, 3));
    // It is gone: the place stays, and what is there now.
    scene.tds = scene.tds.iter().filter(|td| td.id != 2).cloned().collect::<Vec<_>>().into();
    arrange(&mut ui, &scene);
    assert_eq!(ui.list(View::Tds).chosen, 2);
    assert_eq!(ui.list(View::Tds).item, Some(Item::Td(3)));
    // Nothing is left; then there is something again.
    let full = std::mem::take(&mut scene.tds);
    arrange(&mut ui, &scene);
    assert_eq!(chosen(&ui), None);
    scene.tds = full;
    arrange(&mut ui, &scene);
    assert_eq!(chosen(&ui), Some(1));
}

#[test]
fn who_stands_at_what_is_newest_sees_what_comes() {
    let mut scene = examples::many(5);
    let mut ui = opened(View::Violations, &scene);
    let mut log = opened(View::Log, &scene);
    assert_eq!((chosen(&ui), chosen(&log)), (Some(4), Some(2)));
    scene.violations = examples::many(6).violations;
    let mut lines = scene.log.to_vec();
    lines.push(lines[0].clone());
    scene.log = lines.into();
    arrange(&mut ui, &scene);
    arrange(&mut log, &scene);
    assert_eq!((chosen(&ui), chosen(&log)), (Some(5), Some(3)));
    // Who has gone down stays there.
    go(&mut ui, &scene, 2);
    go(&mut log, &scene, -2);
    assert_eq!((chosen(&ui), chosen(&log)), (Some(3), Some(1)));
    scene.violations = examples::many(9).violations;
    scene.log = scene.log[1..].to_vec().into();
    arrange(&mut ui, &scene);
    arrange(&mut log, &scene);
    assert_eq!((chosen(&ui), chosen(&log)), (Some(3), Some(0)));
}

#[test]
fn rows_are_gone_through_within_bounds() {
    let scene = examples::scene();
    let mut ui = opened(View::Tds, &scene);
    for (by, row) in [(isize::MIN, 0), (1, 1), (isize::MAX, 3), (-1, 2)] {
        go(&mut ui, &scene, by);
        assert_eq!(ui.list(View::Tds).chosen, row);
    }
    assert_eq!(page(&ui), 1);
    ui.targets = (0..7).map(|row| (Rect::ZERO, Target::Row(row))).collect();
    assert_eq!(page(&ui), 7);
    let mut empty = opened(View::Tds, &Scene::default());
    go(&mut empty, &Scene::default(), 1);
    assert_eq!(chosen(&empty), None);
}

#[test]
fn search_goes_around() {
    let scene = examples::scene();
    let mut ui = opened(View::Tds, &scene);
    assert_eq!(search(&mut ui, &scene, "WEB", true, true), Hit::Here);
    assert_eq!(ui.list(View::Tds).chosen, 0);
    assert_eq!(search(&mut ui, &scene, "web", true, false), Hit::Here);
    assert_eq!(ui.list(View::Tds).chosen, 1);
    assert_eq!(search(&mut ui, &scene, "web", true, false), Hit::Around);
    assert_eq!(ui.list(View::Tds).chosen, 0);
    assert_eq!(search(&mut ui, &scene, "web", false, false), Hit::Around);
    assert_eq!(ui.list(View::Tds).chosen, 1);
    assert_eq!(search(&mut ui, &scene, "nobody", true, true), Hit::Nowhere);
    assert_eq!(ui.list(View::Tds).chosen, 1);
    assert_eq!(search(&mut ui, &Scene::default(), "web", true, true), Hit::Nowhere);
}

#[test]
fn a_filter_leaves_rows_out() {
    let scene = examples::scene();
    let mut ui = opened(View::Tds, &scene);
    choose(&mut ui, &scene, 2);
    ui.list(View::Tds).filter = Filter::parse("busy>1", View::Tds).unwrap();
    arrange(&mut ui, &scene);
    assert_eq!(ui.list(View::Tds).rows, [1, 2]);
    assert_eq!(chosen(&ui), Some(2));
}

#[test]
fn ten_thousand_rows_are_arranged_at_once() {
    let scene = examples::many(10_000);
    let mut ui = opened(View::Violations, &scene);
    choose(&mut ui, &scene, 5_000);
    let begun = Instant::now();
    for _ in 0..10 {
        arrange(&mut ui, &scene);
    }
    assert!(begun.elapsed().as_millis() < 200, "{:?}", begun.elapsed());
    assert_eq!(sorted(View::Violations, &scene, "number", false)[..2], [0, 1]);
}

#[test]
fn the_columns_are_of_the_kind_that_they_say() {
    let mut scene = examples::scene();
    let mut known = std::collections::BTreeSet::new();
    let mut tds = scene.tds.to_vec();
    tds[0].cgroup = Some(Arc::from("/"));
    scene.tds = tds.into();
    for view in View::ALL {
        let Some(table) = table(view, &scene) else { continue };
        for (column, key) in table.keys().iter().enumerate() {
            for row in 0..table.len() {
                let found = match table.value(row, column) {
                    Value::None => continue,
                    Value::Text(_) => Kind::Text,
                    Value::Number(_) | Value::Rate(_) => Kind::Number,
                    Value::Hex(_) => Kind::Hex,
                    Value::Frames(_) => Kind::Size,
                    Value::Span(_) => Kind::Span,
                };
                assert_eq!(kind(key), found, "{view:?} {key}");
                known.insert((view, *key));
            }
        }
    }
    let all: usize = View::ALL.iter().map(|view| keys(*view).len()).sum();
    // GFN, SEAMCALL, STATUS and CAUSE of violations, and the most frequent status of a leaf, are not in the examples.
    assert_eq!(known.len() + 5, all);
}
