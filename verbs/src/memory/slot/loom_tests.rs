//! Every interleaving of an access with the end of a registration.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use softrdma_mpa_ddp_rdmap::{Access, Stag, TaggedOffset};

use super::{Pin, PinRecord, Released, Slot};
use crate::region::AccessFlags;

const TAG: Stag = Stag::new(5, 17);
const BASE: usize = 0x1000;

/// A slot with one region, whose memory is a cell: loom fails if it is reached while its owner has it to itself.
struct Scene {
    slot: Slot,
    records: [PinRecord; 2],
    memory: UnsafeCell<u8>,
}

impl Scene {
    fn new() -> Arc<Self> {
        let scene = Self { slot: Slot::default(), records: Default::default(), memory: UnsafeCell::new(0) };
        let base = std::ptr::without_provenance_mut(BASE);
        scene.slot.publish(TAG, base, 64, 1, AccessFlags::ALL);
        Arc::new(scene)
    }

    fn access(&self, record: usize, access: Access) -> bool {
        let pin = Pin::new(&self.slot, TAG.index(), &self.records[record]);
        let admitted = pin.admit(TAG, 1, TaggedOffset(BASE as u64), 8, access).is_ok();
        if admitted {
            // Many may touch shared memory at a time, but none while its owner has it back.
            self.memory.with(|_| ());
        }
        admitted
    }

    /// The wait of who frees, then the owner's sole access.
    fn take_back(&self) {
        let is_pinned = || self.slot.has_pins() || self.records.iter().any(|record| record.is_pinning(TAG.index()));
        while is_pinned() {
            thread::yield_now();
        }
        self.memory.with_mut(|_| ());
        self.slot.free();
    }
}

#[test]
fn loom_no_access_reaches_memory_that_was_given_back() {
    loom::model(|| {
        let scene = Scene::new();
        let other = scene.clone();
        let accessor = thread::spawn(move || other.access(0, Access::RemoteWrite));
        scene.slot.close(TAG, |_, _| Ok(())).expect("it is open");
        scene.slot.finish(TAG).expect("nothing holds it");
        scene.take_back();
        accessor.join().expect("no panic");
        assert!(!scene.access(1, Access::RemoteWrite), "the tag is void");
    });
}

#[test]
fn loom_two_threads_on_one_view_are_both_waited_for() {
    loom::model(|| {
        let scene = Scene::new();
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let scene = scene.clone();
                thread::spawn(move || scene.access(0, Access::RemoteRead))
            })
            .collect();
        scene.slot.close(TAG, |_, _| Ok(())).expect("it is open");
        scene.slot.finish(TAG).expect("nothing holds it");
        scene.take_back();
        for thread in threads {
            thread.join().expect("no panic");
        }
    });
}

#[test]
fn loom_a_revoked_region_is_gone_for_who_holds_it() {
    loom::model(|| {
        let scene = Scene::new();
        let other = scene.clone();
        scene.slot.hold(TAG);
        let accessor = thread::spawn(move || {
            other.access(0, Access::LocalRead);
            assert_eq!(other.slot.release(TAG), Released::Done);
        });
        scene.slot.close(TAG, |_, _| Ok(())).expect("it is open");
        scene.slot.revoke();
        scene.take_back();
        accessor.join().expect("no panic");
    });
}

#[test]
fn loom_a_held_region_serves_its_request_and_exactly_one_side_frees_it() {
    loom::model(|| {
        let scene = Scene::new();
        let other = scene.clone();
        scene.slot.hold(TAG);
        let request = thread::spawn(move || {
            assert!(other.access(0, Access::LocalRead), "it is held, whatever the owner does");
            let last = other.slot.release(TAG) == Released::Last;
            if last {
                other.take_back();
            }
            last
        });
        scene.slot.close(TAG, |_, _| Ok(())).expect("it is open");
        let freed_here = !scene.slot.orphan(TAG);
        if freed_here {
            scene.take_back();
        }
        let freed_there = request.join().expect("no panic");
        assert!(freed_here != freed_there, "freed by exactly one");
    });
}
