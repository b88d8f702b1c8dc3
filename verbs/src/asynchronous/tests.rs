use super::*;

fn fatal(number: u32) -> AsyncEvent {
    AsyncEvent::QueuePairFatal { number }
}

fn taken(events: &AsyncEvents) -> Vec<AsyncEvent> {
    std::iter::from_fn(|| events.try_get()).collect()
}

#[test]
fn events_beyond_the_limit_are_lost_and_said_to_be_once() {
    let events = AsyncEvents::new(3).unwrap();
    (0..1000).for_each(|number| events.push(fatal(number)));
    assert_eq!(events.lost(), 997);
    assert_eq!(taken(&events), [fatal(0), fatal(1), fatal(2), AsyncEvent::EventsLost]);
    (0..3).for_each(|number| events.push(fatal(number)));
    assert_eq!(taken(&events), [fatal(0), fatal(1), fatal(2)], "there is room again, and nothing was lost");
    assert_eq!(events.lost(), 997);
}

#[test]
fn each_gap_in_the_events_is_marked_where_it_is() {
    let events = AsyncEvents::new(2).unwrap();
    (0..4).for_each(|number| events.push(fatal(number)));
    assert_eq!(events.try_get(), Some(fatal(0)));
    // The mark takes the place of the event that was taken: still no room.
    events.push(fatal(4));
    assert_eq!(events.try_get(), Some(fatal(1)));
    events.push(fatal(5));
    events.push(fatal(6));
    assert_eq!(taken(&events), [AsyncEvent::EventsLost, fatal(5), AsyncEvent::EventsLost]);
    assert_eq!(events.lost(), 4);
}
