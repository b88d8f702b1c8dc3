//! The table as text, and two sides that meet in every way.

mod pair;

use super::*;

const STATES: [State; 15] = [
    State::Init,
    State::Active,
    SHUT_1,
    CLOSED_1,
    SHUT_2,
    CLOSED_2,
    HALF_1,
    GONE_1,
    HALF_2,
    GONE_2,
    State::AppFinCloseWait,
    State::PeerFinCloseWait,
    State::PeerAbortWait,
    State::ProcessAbort,
    State::Closed,
];

const INPUTS: [Input; 11] = [
    Input::Established,
    Input::ShutdownWrite,
    Input::Close { unread: false },
    Input::Close { unread: true },
    Input::Abort,
    Input::PeerSendingDone,
    Input::PeerClosed,
    Input::PeerAborted,
    Input::PeerVanished { unread: false },
    Input::PeerVanished { unread: true },
    Input::TimedOut,
];

fn state_text(state: State) -> String {
    let kind = match state {
        CLOSED_1 | CLOSED_2 => ", closed",
        GONE_1 | GONE_2 => ", peer closed",
        _ => "",
    };
    format!("{state}{kind}")
}

fn input_text(input: Input) -> &'static str {
    match input {
        Input::Established => "established",
        Input::ShutdownWrite => "shutdown",
        Input::Close { unread: false } => "close",
        Input::Close { unread: true } => "close, unread bytes",
        Input::Abort => "abort",
        Input::PeerSendingDone => "peer's D",
        Input::PeerClosed => "peer's C",
        Input::PeerAborted => "peer's A",
        Input::PeerVanished { unread: false } => "peer vanished",
        Input::PeerVanished { unread: true } => "peer vanished, unread bytes",
        Input::TimedOut => "timed out",
    }
}

fn output_text(output: Output) -> String {
    let raised = match output.raise {
        StateFlags::SENDING_DONE => "D",
        StateFlags::CLOSED => "C",
        StateFlags::ABORTED => "A",
        _ => "",
    };
    let notice = match output.notice {
        Notice::None => "",
        Notice::EndOfStream => "end of stream",
        Notice::PeerClosed => "peer closed",
        Notice::Reset => "reset",
    };
    [raised, notice].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(", ")
}

/// Every pair that changes or says anything, a line each.
fn table() -> String {
    let mut lines = Vec::new();
    for state in STATES {
        for input in INPUTS {
            let (next, output) = state.handle(input);
            if (next, output) != (state, Output::NOTHING) {
                let (from, to) = (state_text(state), state_text(next));
                let line = format!("{from:<27} {:<28} {to:<27} {}", input_text(input), output_text(output));
                lines.push(line.trim_end().to_owned());
            }
        }
    }
    let heading = format!("{:<27} {:<28} {:<27} raised, noticed", "state", "input", "next");
    format!("{heading}\n{}\n", lines.join("\n"))
}

#[test]
fn the_table_is_the_one_in_the_documentation() {
    let actual = table();
    assert!(actual == include_str!("table.txt"), "table.txt says otherwise; the code's table is:\n{actual}");
}

#[test]
fn what_the_peer_says_twice_changes_nothing() {
    for state in STATES {
        for input in [Input::PeerSendingDone, Input::PeerClosed, Input::PeerAborted, Input::Established] {
            let (next, _) = state.handle(input);
            assert_eq!(next.handle(input), (next, Output::NOTHING), "{} then {}", state_text(state), input_text(input));
        }
    }
}

#[test]
fn several_flags_at_once_are_several_inputs() {
    let (state, output) = State::Active.handle_peer_flags(StateFlags::SENDING_DONE | StateFlags::CLOSED);
    assert_eq!((state, output), (GONE_1, Output::PEER_CLOSED));
    let (state, output) = SHUT_1.handle_peer_flags(StateFlags::all());
    assert_eq!((state, output), (State::ProcessAbort, Output::RESET_ANSWERED));
    assert_eq!(SHUT_1.handle_peer_flags(StateFlags::empty()), (SHUT_1, Output::NOTHING));
}

#[test]
fn a_new_connection_has_neither_begun_nor_ended() {
    assert_eq!(State::default(), State::Init);
    let rest = |state: State| (state.can_send(), state.can_receive(), state.is_waiting_for_peer());
    assert_eq!(rest(State::Init), (false, true, false), "the peer may have begun");
    assert_eq!(rest(State::Active), (true, true, false));
    assert_eq!(rest(State::Closed), (false, false, false));
}

#[test]
fn what_can_be_done_follows_from_what_was_said() {
    for state in STATES {
        // Who has said D, C or A sends no more; a wait for the peer alone is one that a time-out ends.
        let (_, output) = state.handle(Input::ShutdownWrite);
        let could_still_end = output.raise == StateFlags::SENDING_DONE;
        assert!(!state.can_send() || could_still_end, "{state:?}");
        let (next, _) = state.handle(Input::TimedOut);
        assert_eq!(state.is_waiting_for_peer(), next != state, "{state:?}");
        let (next, output) = state.handle(Input::PeerSendingDone);
        assert_eq!(output.notice == Notice::EndOfStream, state.can_receive(), "{state:?}");
        assert!(!next.can_receive());
    }
}

#[test]
fn states_have_the_names_of_smcss() {
    let mut names: Vec<&str> = STATES.iter().map(|state| state.name()).collect();
    names.dedup();
    assert_eq!(
        names,
        [
            "INIT",
            "ACTIVE",
            "PEERCLOSEWAIT1",
            "PEERCLOSEWAIT2",
            "APPCLOSEWAIT1",
            "APPCLOSEWAIT2",
            "APPFINCLOSEWAIT",
            "PEERFINCLOSEWAIT",
            "PEERABORTWAIT",
            "PROCESSABORT",
            "CLOSED"
        ]
    );
}
