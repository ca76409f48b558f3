#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
use septwatch_common::{Leaf, Violation};

use super::*;
use crate::source::event::Event;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/lab-7.3-zap-failed-remove.swt");

/// A recording on its thread, which ends with this.
struct Shown {
    feed: Arc<Feed>,
    thread: Option<std::thread::JoinHandle<Result<u64>>>,
}

impl Shown {
    fn open(path: &str, at: Option<Duration>) -> Self {
        let (feed, asks) = Feed::new(Scene::default(), None);
        // What is not read yet is not there.
        let starting = Scene {
            about: About { phase: Phase::Starting(String::new()), ..About::default() },
            ..Scene::default()
        };
        feed.publish(Arc::new(starting));
        let (path, shared) = (PathBuf::from(path), Arc::clone(&feed));
        let thread = std::thread::spawn(move || run(&path, at, &shared, asks));
        Self { feed, thread: Some(thread) }
    }

    /// The first scene that is as it should be.
    fn scene(&self, what: &str, is_right: impl Fn(&Scene) -> bool) -> Arc<Scene> {
        let begun = Instant::now();
        loop {
            let scene = self.feed.latest();
            if scene.about.phase == Phase::Running && is_right(&scene) {
                return scene;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "{what}: {:#?}", scene.time);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn end(&mut self) -> Result<u64> {
        self.feed.quit();
        self.feed.ask(Ask::Td(None));
        self.thread.take().unwrap().join().unwrap()
    }
}

fn kinds(scene: &Scene) -> Vec<Violation> {
    scene.violations.iter().map(|found| found.verdict.violation).collect()
}

#[test]
fn a_recording_is_shown_as_it_was_at_any_moment() {
    use Violation::{FreedWhileBlocked, MapFailed, ReusedWhileMapped, TeardownLeak, VmBugged, ZapFailed};
    let mut shown = Shown::open(GOLDEN, None);
    let last = shown.scene("the end", |scene| !scene.time.travelling);
    let all = [ZapFailed, VmBugged, FreedWhileBlocked, ReusedWhileMapped, MapFailed, VmBugged, TeardownLeak];
    assert_eq!(kinds(&last), all);
    assert_eq!(last.by_kind.values().sum::<u64>(), 7);
    assert!(last.host.vital.unwrap().is_exact() && last.host.pages.unwrap().is_exact());

    // Just after the second violation.
    let then_ns = last.violations[1].verdict.time_ns;
    shown.feed.ask(Ask::Go(then_ns));
    let then = shown.scene("then", |scene| scene.time.now_ns == then_ns);
    assert!(then.time.travelling);
    assert_eq!(kinds(&then), all[..2]);
    assert_eq!(then.by_kind.values().sum::<u64>(), 2);
    // What is later can be gone to.
    let times: Vec<_> = last.violations.iter().map(|found| found.verdict.time_ns).collect();
    assert_eq!(*then.marks, times);
    assert!(then.log.iter().all(|line| line.time_ns <= then_ns));
    let td = then.tds.iter().find(|td| td.id == 1).unwrap();
    assert_eq!((td.failed_zaps, td.bugged_ns), (1, Some(then_ns)));
    assert!(td.private() > 0);

    // And on to the end: the same as before.
    shown.feed.ask(Ask::Go(u64::MAX));
    let again = shown.scene("the end again", |scene| !scene.time.travelling);
    assert_eq!((&again.tds.len(), &again.by_kind), (&last.tds.len(), &last.by_kind));
    assert_eq!(
        again.tds.iter().map(|td| (td.frames, td.failed_zaps)).collect::<Vec<_>>(),
        last.tds.iter().map(|td| (td.frames, td.failed_zaps)).collect::<Vec<_>>()
    );
    let calls = |scene: &Scene| scene.leaves.iter().map(|row| (row.leaf, row.calls())).collect::<Vec<_>>();
    assert_eq!(calls(&again), calls(&last));
    assert_eq!(shown.end().unwrap(), 7);
}

#[test]
fn the_td_that_is_asked_for_has_its_guest_frames() {
    let mut shown = Shown::open(GOLDEN, None);
    let last = shown.scene("the end", |_| true);
    shown.feed.ask(Ask::Td(Some(1)));
    shown.feed.ask(Ask::Go(last.violations[0].verdict.time_ns));
    let then = shown.scene("the TD", |scene| scene.time.travelling && scene.td.is_some());
    let td = then.td.as_ref().unwrap();
    let gfn = last.violations[0].verdict.gfn.unwrap();
    let row = then.tds.iter().find(|row| row.id == 1).unwrap();
    assert_eq!(td.grid.blocks.len() as u64, row.private());
    let block = td.grid.blocks.iter().find(|block| block.gfn == gfn).unwrap();
    assert_eq!(
        block.states.mapped + block.states.blocked,
        1,
        "the page of the failed zap is not out: {block:?}"
    );
    assert!(td.leaves.iter().any(|row| row.leaf == Leaf::MemPageRemove && row.busy == 2));
    assert!(td.added > 0 && !td.states.is_empty());
    shown.end().unwrap();
}

#[test]
fn a_story_is_the_life_of_the_frame() {
    let mut shown = Shown::open(GOLDEN, None);
    let last = shown.scene("the end", |_| true);
    let freed = last.violations.iter().find(|found| found.verdict.violation == Violation::FreedWhileBlocked);
    let freed = freed.unwrap();
    let leaves: Vec<_> = freed
        .story
        .iter()
        .filter_map(|event| match event {
            Event::Call(call) => Leaf::from_number(call.call.leaf.into()),
            _ => None,
        })
        .collect();
    let lent = [Leaf::MemPageAdd, Leaf::MemPageAug];
    assert!(lent.contains(&leaves[0]) && !freed.story_is_cut, "{leaves:?}");
    for leaf in [Leaf::MemRangeBlock, Leaf::MemTrack, Leaf::MemPageRemove] {
        assert!(leaves.contains(&leaf), "{leaves:?}");
    }
    // Who got it afterwards.
    let reused = |event: &Event| matches!(event, Event::Violation(event) if event.violation == Violation::ReusedWhileMapped as u8);
    assert_eq!(freed.story.iter().filter(|event| reused(event)).count(), 1);
    assert!(freed.story.is_sorted_by_key(|event| event.header().time_ns));
    // The page is freed before it is said that it was.
    let at = |is_meant: &dyn Fn(&Event) -> bool| freed.story.iter().position(is_meant).unwrap();
    let failing = at(&|event| matches!(event, Event::Call(call) if call.status != 0));
    let said = at(
        &|event| matches!(event, Event::Violation(event) if event.violation == Violation::ZapFailed as u8),
    );
    assert!(failing < said, "{failing} {said}");
    shown.end().unwrap();
}

#[test]
fn a_recording_plays_by_itself_up_to_its_end() {
    let mut shown = Shown::open(GOLDEN, Some(Duration::ZERO));
    let first = shown.scene("the begin", |scene| scene.time.travelling);
    assert_eq!((first.time.now_ns, first.violations.len()), (first.time.begin_ns, 0));
    shown.feed.ask(Ask::Play(Some(20.0)));
    let on = shown.scene("it goes on", |scene| scene.time.playing == Some(20.0));
    assert!(on.time.now_ns >= first.time.now_ns);
    shown.scene("the end", |scene| !scene.time.travelling && scene.time.playing.is_none());
    shown.end().unwrap();
}

#[test]
fn what_is_no_recording_is_an_error() {
    let mut shown = Shown::open("/dev/null", None);
    assert!(shown.end().unwrap_err().to_string().contains("/dev/null"));
}
