//! Every view on screens of many sizes.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::sync::LazyLock;

use proptest::prelude::*;
use ratatui::{Terminal, backend::TestBackend, layout::Rect, style::Modifier};

use super::*;
use crate::view::top::{
    fixtures,
    palette::{Depth, Theme},
    scene::{Phase, Source},
    ui::{Input, Purpose, Target},
};

static EMPTY: LazyLock<Scene> = LazyLock::new(fixtures::empty);
static NORMAL: LazyLock<Scene> = LazyLock::new(fixtures::normal);
static HUGE: LazyLock<Scene> = LazyLock::new(fixtures::huge);

const SIZES: [(u16, u16); 3] = [(80, 24), (120, 40), (40, 12)];

fn look() -> Look {
    Look { palette: Palette::new(Theme::Even, Depth::True), symbols: Symbols::unicode() }
}

fn line(keys: &str, does: &str, group: &'static str) -> HelpLine {
    HelpLine { keys: keys.to_owned(), does: does.to_owned(), group }
}

fn help() -> Vec<HelpLine> {
    vec![
        line("1", "the host at a glance", "Views"),
        line("2", "TDs", "Views"),
        line("tab", "next view", "Views"),
        line("up k", "up", "Rows"),
        line("pgdn ctrl-f ctrl-d", "page down", "Rows"),
        line("enter", "open the row", "Rows"),
        line("esc backspace", "close; clear the filter", "Rows"),
        line("/ f4", "filter, as in td=web* busy>100", "Find"),
        line("space", "pause; let a recording go on, or stop it", "Time"),
        line("[ ]", "violation before, or next", "Time"),
        line("y", "copy the report of the violation that is chosen", "Violations"),
        line("A", "arm the policy", "Policy"),
        line("?", "help", "septwatch"),
        line("q ctrl-c", "quit", "septwatch"),
    ]
}

fn hints(view: View) -> Vec<HelpLine> {
    let group = view.title();
    let of_view = match view {
        View::Overview => vec![line("space", "pause", group), line("R", "record", group)],
        View::Policy => vec![line("A", "arm", group), line("D", "disarm", group)],
        View::Violations => vec![line("enter", "open", group), line("y", "copy", group)],
        _ => vec![line("enter", "open", group), line("/", "filter", group), line("s", "sort", group)],
    };
    let everywhere = [line("?", "help", group), line("q", "quit", group)];
    of_view.into_iter().chain(everywhere).collect()
}

/// Every row of every table, in its order.
fn ui(view: View, scene: &Scene) -> Ui {
    let mut ui = Ui { view, ..Ui::default() };
    ui.list(View::Tds).rows = (0..scene.tds.len()).collect();
    ui.list(View::Violations).rows = (0..scene.violations.len()).rev().collect();
    ui.list(View::Seamcalls).rows = (0..scene.leaves.len()).collect();
    ui.list(View::Policy).rows = (0..scene.hooks.len()).collect();
    ui.list(View::Log).rows = (0..scene.log.len()).collect();
    ui.list(View::Log).chosen = scene.log.len();
    ui
}

fn drawn_with((width, height): (u16, u16), scene: &Scene, ui: &mut Ui, look: &Look) -> TestBackend {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let keys = if ui.help { help() } else { hints(ui.view) };
    terminal.draw(|frame| draw(frame, scene, ui, look, &keys)).unwrap();
    terminal.backend().clone()
}

/// What is on the screen, without the blanks at the ends of lines.
fn text(backend: &TestBackend) -> String {
    let mut lines = backend.to_string();
    lines = lines.replace('"', "");
    lines.lines().map(|line| line.split(" Hidden by").next().unwrap().trim_end().to_owned() + "\n").collect()
}

fn drawn(size: (u16, u16), scene: &Scene, ui: &mut Ui) -> String {
    text(&drawn_with(size, scene, ui, &look()))
}

fn snapshot(name: &str, text: &str) {
    insta::with_settings!({ snapshot_path => "snapshots", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(name, text);
    });
}

fn name(view: View) -> &'static str {
    match view {
        View::Overview => "overview",
        View::Tds => "tds",
        View::Violations => "violations",
        View::Seamcalls => "seamcalls",
        View::Policy => "policy",
        View::Log => "log",
    }
}

#[test]
fn views_of_a_common_host() {
    for view in View::ALL {
        for size in SIZES {
            let text = drawn(size, &NORMAL, &mut ui(view, &NORMAL));
            snapshot(&format!("{}-{}x{}", name(view), size.0, size.1), &text);
        }
    }
}

#[test]
fn views_of_a_host_on_which_nothing_has_happened() {
    for view in View::ALL {
        snapshot(&format!("{}-empty", name(view)), &drawn((80, 24), &EMPTY, &mut ui(view, &EMPTY)));
    }
}

#[test]
fn views_of_a_huge_host() {
    for view in View::ALL {
        for size in [(120, 40), (40, 12)] {
            let text = drawn(size, &HUGE, &mut ui(view, &HUGE));
            snapshot(&format!("{}-huge-{}x{}", name(view), size.0, size.1), &text);
        }
    }
}

#[test]
fn what_is_open() {
    for size in SIZES {
        for (view, open, name) in [(View::Tds, 3, "td"), (View::Violations, 2, "violation")] {
            let mut ui = Ui { open: Some(open), ..ui(view, &NORMAL) };
            snapshot(&format!("{name}-{}x{}", size.0, size.1), &drawn(size, &NORMAL, &mut ui));
        }
        let mut ui = Ui { help: true, ..ui(View::Tds, &NORMAL) };
        snapshot(&format!("help-{}x{}", size.0, size.1), &drawn(size, &NORMAL, &mut ui));
    }
    let mut ui = Ui { open: Some(u32::MAX.into()), ..ui(View::Tds, &HUGE) };
    snapshot("td-huge", &drawn((120, 40), &HUGE, &mut ui));
    (ui.view, ui.open) = (View::Violations, Some(u64::MAX));
    snapshot("violation-huge", &drawn((120, 40), &HUGE, &mut ui));
}

#[test]
fn the_overview_uses_a_big_screen() {
    snapshot("overview-250x70", &drawn((250, 70), &NORMAL, &mut ui(View::Overview, &NORMAL)));
}

#[test]
fn ascii_is_enough() {
    let look = Look { palette: Palette::new(Theme::Mono, Depth::Sixteen), symbols: Symbols::ascii() };
    for (view, open) in [(View::Overview, None), (View::Tds, Some(3)), (View::Violations, Some(3))] {
        let mut ui = Ui { open, ..ui(view, &NORMAL) };
        let drawn = text(&drawn_with((80, 24), &NORMAL, &mut ui, &look));
        assert!(drawn.is_ascii(), "{drawn}");
        snapshot(&format!("{}-ascii", name(view)), &drawn);
    }
}

#[test]
fn what_is_not_known_is_said_once_with_its_reason() {
    let scene = fixtures::without_calls();
    for view in [View::Overview, View::Tds, View::Seamcalls] {
        let text = drawn((80, 24), &scene, &mut ui(view, &scene));
        assert_eq!(text.matches("not recorded without --calls").count(), 1, "{text}");
        snapshot(&format!("{}-without-calls", name(view)), &text);
    }
}

#[test]
fn a_clear_host_is_all_clear() {
    let mut scene = fixtures::normal();
    scene.host.degraded.clear();
    assert!(
        drawn((80, 24), &scene, &mut ui(View::Overview, &scene)).contains("\n ✗ 12 violations (2 suspect)")
    );
    scene.by_kind.clear();
    let text = drawn((80, 24), &scene, &mut ui(View::Overview, &scene));
    assert!(text.contains("\n ✓ all clear: 4 TDs, 13.5 GiB lent, no violation\n"), "{text}");
    scene.host.degraded.push("a hook is missing".to_owned());
    let text = drawn((80, 24), &scene, &mut ui(View::Overview, &scene));
    assert!(text.contains("\n ! degraded: a hook is missing\n") && !text.contains("clear"), "{text}");
}

/// A recording in the middle of its time.
fn travelling() -> Scene {
    let mut scene = fixtures::normal();
    scene.about.source = Source::Recording("night.septwatch".to_owned());
    scene.time.travelling = true;
    scene.time.end_ns = scene.time.now_ns + 100_000_000_000;
    scene
}

#[test]
fn time_and_phase_are_shown() {
    let mut scene = travelling();
    let mut ui = ui(View::Log, &scene);
    let shown = |scene: &Scene, ui: &mut Ui| {
        let text = drawn((80, 16), scene, ui);
        text.lines().next().unwrap().to_owned() + "\n" + text.lines().nth(14).unwrap() + "\n"
    };
    let mut all = shown(&scene, &mut ui);
    (scene.time.playing, scene.about.phase) = (Some(2.0), Phase::Reading(425));
    all += &shown(&scene, &mut ui);
    (scene.time.playing, scene.about.phase, ui.paused) = (None, Phase::Over("its end".to_owned()), true);
    all += &shown(&scene, &mut ui);
    snapshot("time", &all);
}

#[test]
fn what_is_typed_is_in_the_last_line() {
    let scene = fixtures::normal();
    let mut ui = ui(View::Tds, &scene);
    let long = "td=web* 計算機室の仮想機械 ".repeat(5);
    let mut all = String::new();
    for (purpose, text, error) in [
        (Purpose::Filter, "td=web* busy>1x", Some("busy: 1x is no number")),
        (Purpose::Search, &*long, None),
        (Purpose::Arm("contain".to_owned()), "cont", None),
        (Purpose::Disarm, "", None),
        (Purpose::Go, "90s", None),
    ] {
        let input =
            Input { purpose, text: text.to_owned(), cursor: text.len(), error: error.map(str::to_owned) };
        ui.input = Some(input);
        let backend = drawn_with((80, 16), &scene, &mut ui, &look());
        all += super::tests::text(&backend).lines().last().unwrap();
        all += &format!("   <- {}\n", backend.cursor_position().x);
    }
    ui.input = None;
    ui.told = Some(("copied".to_owned(), std::time::Instant::now()));
    all += drawn((80, 16), &scene, &mut ui).lines().last().unwrap();
    snapshot("prompts", &all);
}

#[test]
fn a_report_is_plain_text() {
    let scene = fixtures::normal();
    let report = violation::report(&scene.violations[1], &scene);
    assert!(report.is_ascii());
    let version = format!("septwatch {}", env!("CARGO_PKG_VERSION"));
    snapshot("report", &report.replace(&version, "septwatch VERSION"));
}

#[test]
fn what_can_be_clicked_is_where_it_is_drawn() {
    let scene = travelling();
    let mut ui = ui(View::Violations, &scene);
    ui.list(View::Violations).chosen = 3;
    ui.list(View::Violations).sort = Some(("pfn".to_owned(), true));
    let backend = drawn_with((80, 24), &scene, &mut ui, &look());
    let under = |place: Rect| -> String {
        (place.left()..place.right()).map(|x| backend.buffer()[(x, place.y)].symbol()).collect()
    };
    let mut seen = [0; 4];
    for (place, target) in &ui.targets {
        let text = under(*place);
        match target {
            Target::Tab(view) => assert!(text.contains(view.title()), "{text}"),
            Target::Head(key) if key == "pfn" => assert_eq!(text, "        PFN▼"),
            Target::Head(_) => {}
            Target::Row(row) => {
                assert!(text.trim_start().starts_with(&format!("{} ", 12 - row)), "{row}: {text}");
                let style = backend.buffer()[(place.x, place.y)].style();
                assert_eq!(style.add_modifier.contains(Modifier::REVERSED), *row == 3);
            }
            Target::Timeline => assert!(text.contains('◆') && text.contains('✗'), "{text}"),
        }
        seen[match target {
            Target::Tab(_) => 0,
            Target::Row(_) => 1,
            Target::Head(_) => 2,
            Target::Timeline => 3,
        }] += 1;
    }
    assert_eq!((seen[0], seen[1], seen[3]), (6, 12, 1));
    assert!(seen[2] >= 5);
}

#[test]
fn what_is_chosen_stays_on_the_screen() {
    let mut ui = ui(View::Violations, &HUGE);
    for (chosen, first) in [(0, 0), (100, 85), (90, 85), (83, 83), (99_999, 9_984), (9_990, 9_984)] {
        ui.list(View::Violations).chosen = chosen;
        drawn((80, 22), &HUGE, &mut ui);
        let list = ui.list(View::Violations);
        assert_eq!((list.chosen, list.top), (chosen.min(9_999), first));
    }
    ui.list(View::Violations).rows = vec![7, 1_000_000];
    drawn((80, 22), &HUGE, &mut ui);
    assert_eq!(ui.list(View::Violations).chosen, 1);
}

#[test]
fn rows_that_are_not_seen_cost_nothing() {
    let asked = std::cell::Cell::new(0);
    let get = |at: usize| {
        asked.set(asked.get() + 1);
        HUGE.violations.get(at).map(|found| &**found)
    };
    let table = table::Table {
        title: "",
        columns: crate::view::top::columns::VIOLATIONS,
        total: 10_000,
        get: &get,
        style: &|_, _| ratatui::style::Style::new(),
        empty: "",
    };
    let mut buffer = ratatui::buffer::Buffer::empty(Rect::new(0, 0, 120, 40));
    let look = look();
    let mut pen = Pen { buffer: &mut buffer, look: &look, targets: Vec::new() };
    let mut list = crate::view::top::ui::List { rows: (0..10_000).collect(), ..Default::default() };
    table.draw(&mut pen, Rect::new(0, 0, 120, 40), &HUGE, &mut list);
    assert_eq!(asked.get(), 38);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn no_size_is_too_small_or_too_large(
        size in prop_oneof![(1u16..=300, 1u16..=100), (1u16..=45, 1u16..=20)],
        scene in 0..3usize,
        view in 0..6usize,
        open in any::<bool>(),
        help in any::<bool>(),
        unicode in any::<bool>(),
        scroll in any::<u16>(),
        chosen in prop_oneof![0..20usize, any::<usize>()],
        typed in proptest::option::of((".{0,40}", any::<prop::sample::Index>())),
    ) {
        let scene: &Scene = [&*EMPTY, &*NORMAL, &*HUGE][scene];
        let view = View::ALL[view];
        let mut ui = ui(view, scene);
        if open {
            ui.open = match view {
                View::Violations => scene.violations.last().map(|found| found.number),
                _ => scene.td.as_ref().map(|td| td.id.into()),
            };
        }
        (ui.help, ui.scroll) = (help && open, scroll);
        (ui.list(view).chosen, ui.list(view).top) = (chosen, chosen.wrapping_mul(3));
        ui.input = typed.map(|(text, at)| {
            let cursor = (0..=text.len()).filter(|at| text.is_char_boundary(*at)).collect::<Vec<_>>();
            let cursor = *at.get(&cursor);
            Input { purpose: Purpose::Filter, text, cursor, error: Some("計".repeat(9)) }
        });
        let mut look = look();
        if !unicode {
            look.symbols = Symbols::ascii();
        }
        let backend = drawn_with(size, scene, &mut ui, &look);
        let screen = Rect::new(0, 0, size.0, size.1);
        for (place, _) in &ui.targets {
            prop_assert_eq!(place.intersection(screen), *place, "what can be clicked is on the screen");
        }
        for cell in backend.buffer().content() {
            prop_assert_eq!(cell.bg, ratatui::style::Color::Reset);
            prop_assert!(!cell.symbol().contains(char::is_control));
        }
    }
}
