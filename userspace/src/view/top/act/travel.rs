//! Through time.

use std::time::{Duration, Instant};

use crate::view::top::{
    filter::span_ns,
    keys::Action,
    scene::{Ask, Sample, Scene, Source, Time},
    ui::{Input, Purpose, Ui},
};

const SECOND: u64 = 1_000_000_000;
/// How long a moment that was asked for is gone on from, though the scene is not there yet.
const UNDER_WAY: Duration = Duration::from_secs(1);
/// Slowest and fastest that a recording is played.
const SPEEDS: (f64, f64) = (1.0 / 1024.0, 1024.0);

fn is_recording(scene: &Scene) -> bool {
    matches!(scene.about.source, Source::Recording(_))
}

/// An action of the group of time.
pub(super) fn travel(ui: &mut Ui, scene: &Scene, action: Action) {
    let time = &scene.time;
    // Steps of 1/100, 1/10 and 1/4 of a recording, or of so many seconds.
    let length = time.end_ns.saturating_sub(time.begin_ns);
    let step = |parts: u64, seconds: u64| {
        if is_recording(scene) { (length / parts).max(1) } else { seconds * SECOND }
    };
    let now = now(ui, time);
    match action {
        Action::Pause => pause(ui, scene),
        Action::Slower => speed(ui, scene, 0.5),
        Action::Faster => speed(ui, scene, 2.0),
        Action::GoTo => ui.input = Some(Input::new(Purpose::Go, "")),
        Action::Back => back(ui, scene, step(100, 1)),
        Action::BackMore => back(ui, scene, step(10, 10)),
        Action::BackMost => back(ui, scene, step(4, 60)),
        Action::Forth => go(ui, scene, now.saturating_add(step(100, 1))),
        Action::ForthMore => go(ui, scene, now.saturating_add(step(10, 10))),
        Action::ForthMost => go(ui, scene, now.saturating_add(step(4, 60))),
        Action::Begin => go(ui, scene, time.begin_ns),
        Action::Latest => go(ui, scene, u64::MAX),
        Action::PreviousViolation => match before(scene, now) {
            Some(moment) => go(ui, scene, moment),
            None => ui.tell("there is no violation before"),
        },
        Action::NextViolation => match after(scene, now) {
            Some(moment) => go(ui, scene, moment),
            None => ui.tell("there is no violation after"),
        },
        _ => {}
    }
}

/// The moment that steps are taken from.
fn now(ui: &Ui, time: &Time) -> u64 {
    ui.going.filter(|(_, since)| since.elapsed() < UNDER_WAY).map_or(time.now_ns, |(moment, _)| moment)
}

fn back(ui: &mut Ui, scene: &Scene, step: u64) {
    let now = now(ui, &scene.time);
    if now <= scene.time.begin_ns {
        return ui.tell("nothing earlier is kept");
    }
    go(ui, scene, now.saturating_sub(step));
}

/// To a moment, or the nearest that can be gone to.
pub(super) fn go(ui: &mut Ui, scene: &Scene, moment: u64) {
    let time = &scene.time;
    let latest = moment >= time.end_ns;
    // What happens on a host goes on meanwhile: there is no last moment to name.
    let follow = latest && !is_recording(scene);
    if follow && !time.travelling && ui.going.is_none() && !ui.paused {
        return ui.tell("this is the latest");
    }
    ui.paused = false;
    let moment = moment.max(time.begin_ns).min(time.end_ns);
    ui.going = (!follow).then(|| (moment, Instant::now()));
    ui.asks.push(Ask::Go(if follow { u64::MAX } else { moment }));
}

/// To a moment as it is typed: so long after the begin, or, with a minus, before the latest.
pub(super) fn go_to(ui: &mut Ui, scene: &Scene, text: &str) -> Result<(), String> {
    let (text, before_end) = text.strip_prefix('-').map_or((text, false), |text| (text, true));
    let Some(span) = span_ns(text.trim()) else {
        return Err("a time after the begin, as in 90s or 2.5m, or before the latest, as in -10s".to_owned());
    };
    let time = &scene.time;
    let moment =
        if before_end { time.end_ns.saturating_sub(span) } else { time.begin_ns.saturating_add(span) };
    go(ui, scene, moment);
    Ok(())
}

/// When violations happened.
fn marks(scene: &Scene) -> impl Iterator<Item = u64> {
    scene.violations.iter().map(|found| found.verdict.time_ns).chain(scene.marks.iter().copied())
}

/// The last violation before a moment.
fn before(scene: &Scene, now: u64) -> Option<u64> {
    let exact = marks(scene).filter(|time| *time < now).max();
    let step = |sample: &&Sample| sample.violations > 0 && sample.time_ns < now;
    exact.or_else(|| scene.history.iter().rev().find(step).map(|sample| sample.time_ns))
}

/// The first one after it; to the end of its step where nothing more is known of it.
fn after(scene: &Scene, now: u64) -> Option<u64> {
    let times = || scene.violations.iter().map(|found| found.verdict.time_ns);
    let exact = marks(scene).filter(|time| *time > now).min();
    let mut begin = 0;
    let step = scene.history.iter().find(|sample| {
        let seen = || times().filter(|time| *time > begin && *time <= now).count() as u64;
        let more = sample.violations > 0 && sample.time_ns > now && sample.violations > seen();
        begin = sample.time_ns;
        more
    });
    exact.or(step.map(|sample| sample.time_ns))
}

fn pause(ui: &mut Ui, scene: &Scene) {
    let time = &scene.time;
    if !is_recording(scene) {
        if time.travelling && !ui.paused {
            return go(ui, scene, u64::MAX);
        }
        ui.paused = !ui.paused;
        return;
    }
    ui.paused = false;
    if time.playing.is_none() && now(ui, time) >= time.end_ns {
        go(ui, scene, time.begin_ns);
    }
    ui.asks.push(Ask::Play(if time.playing.is_some() { None } else { Some(1.0) }));
}

fn speed(ui: &mut Ui, scene: &Scene, factor: f64) {
    if !is_recording(scene) {
        return ui.tell("only a recording can be played at another speed");
    }
    let speed = scene.time.playing.map_or(1.0, |speed| speed * factor).clamp(SPEEDS.0, SPEEDS.1);
    ui.asks.push(Ask::Play(Some(speed)));
}
