#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::{Terminal, backend::TestBackend};

use super::*;
use crate::{
    fleet::envelope::{Number, Origin},
    view::top::draw::Look,
};

const NOW: u64 = 100_000_000_000;

/// `good-N` hosts, and one with violations.
fn fleet(good: u64) -> Fleet {
    let mut fleet = Fleet::default();
    let mut send = |host: &str, seq: u64, topic: &str, event: &str| {
        let origin = Origin { host: host.to_owned(), boot_id: "b".to_owned(), ledger: 1 };
        let mut text = String::new();
        origin.wrapper().unwrap().wrap(Number::Record { cpu: 0, seq }, event, &mut text);
        fleet.event(topic, 1000 + seq, text.as_bytes());
    };
    for n in 0..good {
        send(&format!("good-{n}"), 0, "td", r#"{"wall_ns":1}"#);
    }
    for seq in 0..30 {
        let event = format!(
            r#"{{"violation":"zap-failed","confidence":"certain","td":{seq},"pfn":4660,"comm":"qemu","wall_ns":{}}}"#,
            NOW - 7_000_000_000
        );
        send("worst", seq, "violation", &event);
    }
    fleet
}

fn screen(fleet: &Fleet, ui: &mut Ui, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let reading = Reading { caught_up: true, trouble: None };
    terminal.draw(|frame| draw(frame, fleet, &reading, ui, &Look::default(), NOW)).unwrap();
    let buffer = terminal.backend().buffer();
    let rows = buffer.content.chunks(width.into());
    let text = |row: &[ratatui::buffer::Cell]| row.iter().map(|cell| cell.symbol()).collect::<String>();
    rows.map(|row| text(row).trim_end().to_owned() + "\n").collect()
}

fn press(ui: &mut Ui, fleet: &Fleet, codes: &[KeyCode]) -> Effect {
    let mut effect = Effect::None;
    for code in codes {
        effect = ui.key(KeyEvent::new(*code, KeyModifiers::NONE), fleet, NOW);
    }
    effect
}

#[test]
fn the_worst_host_is_on_top_and_opens() {
    let fleet = fleet(1000);
    let mut ui = Ui::default();
    let text = screen(&fleet, &mut ui, 110, 20);
    assert!(
        text.starts_with("septwatch fleet  1001 hosts  1 violated  30 violations  1030 events"),
        "{text}"
    );
    let row = text.lines().nth(3).unwrap();
    assert!(
        row.starts_with("worst")
            && row.contains("violated")
            && row.contains("zap-failed")
            && row.contains("7.0 s"),
        "{text}"
    );
    assert_eq!(press(&mut ui, &fleet, &[KeyCode::Enter]), Effect::None);
    let text = screen(&fleet, &mut ui, 110, 20);
    assert!(
        text.contains("30 violations (0 suspect)") && text.contains("it never said how it stands"),
        "{text}"
    );
    // The newest comes first.
    let row = text.lines().find(|line| line.contains("zap-failed")).unwrap();
    assert!(row.contains("29") && row.contains("0x1234") && row.contains("qemu"), "{text}");
    assert_eq!(press(&mut ui, &fleet, &[KeyCode::Down, KeyCode::Enter]), Effect::Fetch(1028));
    assert!(screen(&fleet, &mut ui, 110, 20).contains("it is being fetched"));
    ui.fetched(7, vec!["another".to_owned()]);
    ui.fetched(1028, (0..100).map(|n| format!("line {n}")).collect());
    press(&mut ui, &fleet, &[KeyCode::End]);
    screen(&fleet, &mut ui, 110, 20);
    press(&mut ui, &fleet, &[KeyCode::End]);
    let text = screen(&fleet, &mut ui, 110, 20);
    assert!(text.contains("line 99") && !text.contains("line 82"), "{text}");
    press(&mut ui, &fleet, &[KeyCode::Esc, KeyCode::Esc]);
    assert!(screen(&fleet, &mut ui, 110, 20).contains("hosts, the worst first"));
    assert_eq!(press(&mut ui, &fleet, &[KeyCode::Char('q')]), Effect::Quit);
}

#[test]
fn hosts_are_found_and_ordered() {
    let fleet = fleet(300);
    let mut ui = Ui::default();
    press(&mut ui, &fleet, &[KeyCode::Char('s')]);
    assert!(screen(&fleet, &mut ui, 110, 20).lines().nth(3).unwrap().starts_with("good-0"));
    press(&mut ui, &fleet, &"/od-27".chars().map(KeyCode::Char).collect::<Vec<_>>());
    let text = screen(&fleet, &mut ui, 110, 20);
    assert!(text.contains("11 of 301") && text.contains("filter: od-27"), "{text}");
    press(&mut ui, &fleet, &[KeyCode::Enter, KeyCode::End]);
    let text = screen(&fleet, &mut ui, 110, 20);
    assert!(text.contains("good-279"), "{text}");
    press(&mut ui, &fleet, &[KeyCode::Char('/'), KeyCode::Esc]);
    assert!(screen(&fleet, &mut ui, 110, 20).contains("301 of 301"));
}

#[test]
fn every_page_is_drawn_in_every_size_and_for_no_hosts() {
    for fleet in [Fleet::default(), fleet(3)] {
        for keys in
            [&[][..], &[KeyCode::Enter], &[KeyCode::Enter, KeyCode::Tab], &[KeyCode::Enter, KeyCode::Enter]]
        {
            let mut ui = Ui::default();
            press(&mut ui, &fleet, keys);
            ui.fetched(1029, vec!["a".to_owned()]);
            for (width, height) in [(1, 1), (3, 200), (200, 2), (20, 6), (80, 24)] {
                screen(&fleet, &mut ui, width, height);
            }
        }
    }
}

#[test]
fn a_host_that_goes_leaves_the_list() {
    let mut ui = Ui::default();
    let before = fleet(0);
    press(&mut ui, &before, &[KeyCode::Enter]);
    assert!(screen(&before, &mut ui, 80, 10).contains("worst  violated"));
    assert!(screen(&Fleet::default(), &mut ui, 80, 10).contains("0 of 0"));
}

#[test]
fn what_others_send_cannot_steer_the_terminal() {
    let mut fleet = Fleet::default();
    let origin = Origin { host: "a\u{1b}[2Jb\u{202e}".to_owned(), boot_id: "b".to_owned(), ledger: 1 };
    let mut text = String::new();
    let event = r#"{"violation":"zap-failed","confidence":"certain","comm":"\u001b]0;x\u0007","wall_ns":7}"#;
    origin.wrapper().unwrap().wrap(Number::Record { cpu: 0, seq: 0 }, event, &mut text);
    fleet.event("violation", 1, text.as_bytes());
    let mut ui = Ui::default();
    for _ in 0..2 {
        let text = screen(&fleet, &mut ui, 110, 20);
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
        press(&mut ui, &fleet, &[KeyCode::Enter]);
    }
}
