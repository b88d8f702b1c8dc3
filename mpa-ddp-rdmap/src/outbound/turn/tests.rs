use super::*;

fn run(turn: &mut Turn, rounds: usize) -> Vec<Side> {
    (0..rounds)
        .map(|_| {
            let side = turn.choose(true, true).unwrap();
            turn.note(side, 100);
            side
        })
        .collect()
}

#[test]
fn two_busy_sides_take_turns_of_four() {
    let sides = run(&mut Turn::default(), 16);
    let expected: Vec<Side> =
        [Side::Queue, Side::Responses, Side::Queue, Side::Responses].into_iter().flat_map(|side| [side; 4]).collect();
    assert_eq!(sides, expected);
}

#[test]
fn a_side_that_is_alone_goes_on_and_then_yields_at_once() {
    let mut turn = Turn::default();
    for _ in 0..100 {
        assert_eq!(turn.choose(true, false), Some(Side::Queue));
        turn.note(Side::Queue, 1);
    }
    assert_eq!(turn.choose(true, true), Some(Side::Responses));
    assert_eq!(turn.choose(false, false), None);
}

#[test]
fn a_write_lets_responses_pass_when_it_had_as_much_as_they_had() {
    let mut turn = Turn::default();
    turn.note(Side::Responses, 1000);
    for sent in 0..9 {
        assert!(!turn.write_had_its_share(100), "after {sent} segments");
        turn.note(Side::Queue, 100);
    }
    assert!(turn.write_had_its_share(100));
}
