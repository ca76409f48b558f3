//! The last minutes of a host that is watched, to go back to: a scene for each second, then for each five, then for each
//! fifteen. What did not change between scenes is kept once.

use std::{collections::VecDeque, sync::Arc};

use crate::view::top::scene::Scene;

/// Up to which age, in seconds, there is a scene for each so many seconds.
const STEPS: [(u64, u64); 3] = [(60, 1), (300, 5), (1200, 15)];

const SECOND_NS: u64 = 1_000_000_000;

/// Scenes that are kept.
#[derive(Debug, Default)]
pub struct Travel {
    /// Oldest first.
    scenes: VecDeque<Arc<Scene>>,
    /// The moment that is gone to, in ns of CLOCK_MONOTONIC; none: what happens is followed.
    to_ns: Option<u64>,
}

impl Travel {
    /// Keeps a scene: about one a second.
    pub fn keep(&mut self, scene: Arc<Scene>) {
        let now_ns = scene.time.now_ns;
        self.scenes.push_back(scene);
        let mut last_ns = 0;
        let oldest_s = STEPS[STEPS.len() - 1].0;
        self.scenes.retain(|scene| {
            let age_s = now_ns.saturating_sub(scene.time.now_ns) / SECOND_NS;
            let step = STEPS.iter().find(|(up_to, _)| age_s <= *up_to).map_or(oldest_s, |(_, step)| *step);
            // Scenes come a little late or early.
            let is_next =
                last_ns == 0 || scene.time.now_ns.saturating_sub(last_ns) + SECOND_NS / 2 >= step * SECOND_NS;
            let stays = age_s <= oldest_s && is_next;
            if stays {
                last_ns = scene.time.now_ns;
            }
            stays
        });
    }

    /// Goes to a moment; the newest and beyond: follows what happens again.
    pub fn go(&mut self, to_ns: u64) {
        let newest_ns = self.scenes.back().map_or(0, |scene| scene.time.now_ns);
        self.to_ns = (to_ns < newest_ns).then_some(to_ns);
    }

    /// The earliest moment that can be gone to.
    pub fn begin_ns(&self) -> Option<u64> {
        self.scenes.front().map(|scene| scene.time.now_ns)
    }

    /// What is shown while `newest` is the newest scene.
    pub fn shown(&self, newest: &Arc<Scene>) -> Arc<Scene> {
        let Some(to_ns) = self.to_ns else { return Arc::clone(newest) };
        let after = self.scenes.partition_point(|scene| scene.time.now_ns <= to_ns);
        let Some(scene) = self.scenes.get(after.saturating_sub(1)) else { return Arc::clone(newest) };
        let mut scene = Scene::clone(scene);
        scene.time.travelling = true;
        (scene.time.begin_ns, scene.time.end_ns) = (newest.time.begin_ns, newest.time.end_ns);
        scene.marks = Arc::clone(&newest.marks);
        // How far the source is does not belong to the past.
        scene.about = newest.about.clone();
        Arc::new(scene)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scene(second: u64) -> Arc<Scene> {
        let mut scene = Scene::default();
        scene.time.now_ns = second * SECOND_NS;
        scene.time.end_ns = scene.time.now_ns;
        Arc::new(scene)
    }

    #[test]
    fn the_last_minute_is_fine_and_the_rest_coarse() {
        let mut travel = Travel::default();
        for second in 1..=5000 {
            travel.keep(scene(second));
        }
        let times: Vec<_> = travel.scenes.iter().map(|scene| scene.time.now_ns / SECOND_NS).collect();
        assert!((150..=200).contains(&times.len()), "{}", times.len());
        assert!(times[0] >= 5000 - 1200 && times[0] <= 5000 - 1180, "{}", times[0]);
        assert!(times[times.len() - 60..].windows(2).all(|pair| pair[1] - pair[0] == 1), "{times:?}");
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] <= 20), "{times:?}");
    }

    #[test]
    fn an_earlier_moment_is_shown_until_the_newest_is_asked_for() {
        let mut travel = Travel::default();
        (1..=50).for_each(|second| travel.keep(scene(second)));
        let newest = scene(50);
        travel.go(20 * SECOND_NS + 7);
        let shown = travel.shown(&newest);
        assert_eq!((shown.time.now_ns, shown.time.end_ns), (20 * SECOND_NS, 50 * SECOND_NS));
        assert!(shown.time.travelling);
        travel.go(0);
        assert_eq!(travel.shown(&newest).time.now_ns, SECOND_NS);
        travel.go(u64::MAX);
        assert!(Arc::ptr_eq(&travel.shown(&newest), &newest));
    }
}
