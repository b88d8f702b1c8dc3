//! Every interleaving of arming with completing. A counter stands for the queue.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;

use super::Arming;

#[derive(Default)]
struct Scene {
    arming: Arming,
    entries: AtomicU32,
    notices: AtomicU32,
}

impl Scene {
    fn complete(&self, solicited: bool) {
        // Relaxed: the fences of `Arming` have to do it.
        self.entries.fetch_add(1, Ordering::Relaxed);
        if self.arming.is_due(solicited) {
            self.notices.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[test]
fn loom_what_is_not_seen_after_arming_is_notified() {
    loom::model(|| {
        let scene = Arc::new(Scene::default());
        let other = scene.clone();
        let completer = thread::spawn(move || other.complete(false));
        scene.arming.arm(false);
        let seen = scene.entries.load(Ordering::Relaxed);
        completer.join().expect("no panic");
        let notices = scene.notices.load(Ordering::Relaxed);
        assert!(seen == 1 || notices == 1, "an entry neither seen nor notified");
        assert!(notices <= 1);
    });
}

#[test]
fn loom_two_completers_give_one_notice_for_one_arming() {
    loom::model(|| {
        let scene = Arc::new(Scene::default());
        scene.arming.arm(false);
        let completers: Vec<_> = (0..2)
            .map(|_| {
                let scene = scene.clone();
                thread::spawn(move || scene.complete(false))
            })
            .collect();
        for completer in completers {
            completer.join().expect("no panic");
        }
        assert_eq!(scene.notices.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn loom_arming_for_any_is_not_lost_to_a_solicited_arming_under_way() {
    loom::model(|| {
        let scene = Arc::new(Scene::default());
        scene.arming.arm(true);
        let other = scene.clone();
        let completer = thread::spawn(move || other.complete(false));
        scene.arming.arm(false);
        let seen = scene.entries.load(Ordering::Relaxed);
        completer.join().expect("no panic");
        assert!(seen == 1 || scene.notices.load(Ordering::Relaxed) == 1);
    });
}

#[test]
fn loom_a_second_arming_after_a_notice_gives_a_second_one() {
    loom::model(|| {
        let scene = Arc::new(Scene::default());
        scene.arming.arm(false);
        scene.complete(false);
        let other = scene.clone();
        let completer = thread::spawn(move || other.complete(false));
        scene.arming.arm(false);
        let seen = scene.entries.load(Ordering::Relaxed);
        completer.join().expect("no panic");
        assert!(seen == 2 || scene.notices.load(Ordering::Relaxed) == 2);
    });
}
