//! Two sides, two applications, and all that can happen, in every order: the whole graph is walked.

use std::collections::{HashMap, HashSet};

use super::*;

/// One side, its application, and what it has raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Side {
    state: State,
    raised: StateFlags,
    /// Of the other side's flags: what this one has looked at.
    seen: StateFlags,
    /// The application has closed or aborted.
    is_released: bool,
    /// The process was killed; what it has raised stays.
    is_dead: bool,
    /// This side knows that the other was killed.
    knows_of_death: bool,
    /// The application was told of a reset.
    was_reset: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct World([Side; 2]);

const APPLICATION: [Input; 4] =
    [Input::ShutdownWrite, Input::Close { unread: false }, Input::Close { unread: true }, Input::Abort];

impl World {
    fn new(states: [State; 2]) -> Self {
        Self(states.map(|state| Side {
            state,
            raised: StateFlags::empty(),
            seen: StateFlags::empty(),
            is_released: false,
            is_dead: false,
            knows_of_death: false,
            was_reset: false,
        }))
    }

    /// This world after `side` was given `input`.
    fn after(mut self, side: usize, input: Input) -> Self {
        let (state, output) = self.0[side].state.handle(input);
        self.take(side, state, output);
        self
    }

    /// Makes `state` the state of `side`, and checks what holds of every step.
    fn take(&mut self, side: usize, state: State, output: Output) {
        let side = &mut self.0[side];
        let last_words = StateFlags::CLOSED | StateFlags::ABORTED;
        if !output.raise.is_empty() {
            assert!(!side.raised.intersects(last_words), "nothing is said after C or A (RFC 7609 §A.4): {side:?}");
        }
        if side.is_released {
            assert_eq!(output.notice, Notice::None, "nobody is there to notice: {side:?}");
        }
        side.state = state;
        side.raised |= output.raise;
        side.was_reset |= output.notice == Notice::Reset;
    }

    /// What the applications can do next, and a killer.
    fn choices(self) -> Vec<Self> {
        let mut worlds = Vec::new();
        for side in 0..2 {
            let Side { is_released, is_dead, .. } = self.0[side];
            if is_dead {
                continue;
            }
            let mut killed = self;
            killed.0[side].is_dead = true;
            worlds.push(killed);
            if !is_released {
                for input in APPLICATION {
                    let mut world = self.after(side, input);
                    world.0[side].is_released = input != Input::ShutdownWrite;
                    worlds.push(world);
                }
            }
        }
        worlds
    }

    /// What happens by itself next: the agreement, flags and a death are noticed.
    fn events(self) -> Vec<Self> {
        let mut worlds = Vec::new();
        for side in 0..2 {
            let (this, other) = (self.0[side], self.0[1 - side]);
            if this.is_dead {
                continue;
            }
            if this.state == State::Init {
                worlds.push(self.after(side, Input::Established));
            }
            if this.seen != other.raised {
                let mut world = self;
                let (state, output) = this.state.handle_peer_flags(other.raised);
                world.take(side, state, output);
                world.0[side].seen = other.raised;
                worlds.push(world);
            }
            // The flags are looked at once more when the death is known; it is news only behind them.
            if other.is_dead && !this.knows_of_death && this.seen == other.raised {
                for unread in [false, true] {
                    let mut world = self.after(side, Input::PeerVanished { unread });
                    world.0[side].knows_of_death = true;
                    worlds.push(world);
                }
            }
        }
        worlds
    }

    /// What holds always.
    fn check(self) {
        for side in 0..2 {
            let (this, other) = (self.0[side], self.0[1 - side]);
            if this.is_dead {
                continue;
            }
            if this.state == State::Closed {
                assert!(this.is_released, "the application has not closed yet: {self:?}");
                let last_words = StateFlags::CLOSED | StateFlags::ABORTED;
                let peer_is_done = this.seen.intersects(last_words) || this.knows_of_death;
                assert!(peer_is_done, "the peer may still write: {self:?}");
            }
            if this.was_reset {
                assert!(other.raised.contains(StateFlags::ABORTED) || other.is_dead, "a reset from nowhere: {self:?}");
            }
        }
    }
}

/// All worlds that can be reached from `states`, and for each what happens in it by itself.
fn explore(states: [State; 2]) -> HashMap<World, Vec<World>> {
    let mut events = HashMap::new();
    let mut open = vec![World::new(states)];
    while let Some(world) = open.pop() {
        if events.contains_key(&world) {
            continue;
        }
        world.check();
        let by_itself = world.events();
        open.extend(by_itself.iter().copied());
        open.extend(world.choices());
        events.insert(world, by_itself);
    }
    events
}

const BEGINNINGS: [[State; 2]; 3] =
    [[State::Active, State::Active], [State::Init, State::Active], [State::Init, State::Init]];

#[test]
fn when_both_applications_have_let_go_both_sides_get_closed() {
    for beginning in BEGINNINGS {
        let events = explore(beginning);
        assert!(events.len() > 1000, "only {} worlds", events.len());
        let quiet = events.iter().filter(|(_, next)| next.is_empty()).map(|(world, _)| world);
        for World(sides) in quiet {
            for side in sides.iter().filter(|side| side.is_released && !side.is_dead) {
                let other_may_act = sides.iter().any(|other| !other.is_released && !other.is_dead);
                assert!(side.state == State::Closed || other_may_act, "stuck: {sides:?}");
            }
        }
    }
}

#[test]
fn what_happens_by_itself_comes_to_an_end() {
    /// The longest way on from `world`; a circle would make it endless.
    fn longest(
        world: World,
        events: &HashMap<World, Vec<World>>,
        known: &mut HashMap<World, usize>,
        on_the_way: &mut HashSet<World>,
    ) -> usize {
        if let Some(&length) = known.get(&world) {
            return length;
        }
        assert!(on_the_way.insert(world), "around and around: {world:?}");
        let length = events[&world].iter().map(|&next| 1 + longest(next, events, known, on_the_way)).max().unwrap_or(0);
        on_the_way.remove(&world);
        known.insert(world, length);
        length
    }
    for beginning in BEGINNINGS {
        let events = explore(beginning);
        let (mut known, mut on_the_way) = (HashMap::new(), HashSet::new());
        let longest = events.keys().map(|&world| longest(world, &events, &mut known, &mut on_the_way)).max();
        assert!(longest.is_some_and(|longest| (2..20).contains(&longest)), "{longest:?} steps");
    }
}

#[test]
fn a_time_out_frees_a_side_whose_peer_says_nothing() {
    for beginning in BEGINNINGS {
        for World(sides) in explore(beginning).into_keys() {
            for side in sides.iter().filter(|side| side.is_released && !side.is_dead) {
                let (state, output) = side.state.handle(Input::TimedOut);
                assert_eq!((state, output), (State::Closed, Output::NOTHING), "{side:?}");
            }
        }
    }
}
