//! One connection between two applications, from its beginning to the end of both scripts.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::End;
use super::cable::Cable;
use super::script::{Application, Step};

/// A run that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(20);
/// What takes no byte for so long is stuck.
const STUCK: Duration = Duration::from_millis(20);
/// What was silent for so long has said all it had to say, timers of hundreds of milliseconds aside.
const SILENCE: Duration = Duration::from_millis(3);
/// How long nothing is to do before somebody is asked again.
const NAP: Duration = Duration::from_micros(100);

/// An application and its TCP.
pub(super) struct Party<'a> {
    end: Box<dyn End + 'a>,
    application: Application,
}

/// Two of them, the one that connects first.
pub(super) struct Play<'a, 'c> {
    parties: [Party<'a>; 2],
    cable: &'c mut Cable<'a>,
}

impl<'a> Party<'a> {
    pub(super) fn new(end: Box<dyn End + 'a>, script: &'static [Step], side: usize) -> Self {
        Self { end, application: Application::new(script, side) }
    }
}

impl<'a, 'c> Play<'a, 'c> {
    pub(super) fn new(parties: [Party<'a>; 2], cable: &'c mut Cable<'a>) -> Self {
        Self { parties, cable }
    }

    /// What each saw; an error tells what went wrong by itself, and how it stood then.
    pub(super) fn run(mut self, listens: bool) -> Result<[Vec<String>; 2], String> {
        self.play(listens).map_err(|error| format!("{error}\n{}", self.describe()))?;
        let [active, passive] = self.parties.map(|party| party.application);
        Ok([active.account(passive.sent), passive.account(active.sent)])
    }

    fn play(&mut self, listens: bool) -> Result<(), String> {
        let mut address = self.parties[1].end.listen()?;
        if !listens {
            // Where nobody is: the port below one that is taken, or above.
            address = SocketAddr::new(address.ip(), address.port() ^ 1);
        }
        self.parties[0].end.connect(address)?;
        let begun = Instant::now();
        loop {
            // Before the first frame, for who gives up before there is an answer.
            let mut moved = false;
            for index in 0..2 {
                let Party { end, application } = &mut self.parties[index];
                moved |= end.advance(application)?;
                moved |= self.follow(index)?;
                if let Some(wrong) = &self.parties[index].application.wrong {
                    return Err(format!("{}: {wrong}", name(index)));
                }
            }
            moved |= self.cable.carry()?;
            let is_done = self.parties.iter().all(|party| party.application.at == party.application.script.len());
            // Whatever is seen too much is seen soon.
            if is_done && self.cable.silence() > SILENCE {
                return Ok(());
            }
            if begun.elapsed() > LIMIT {
                return Err(format!("it takes longer than {LIMIT:?}"));
            }
            if !moved {
                std::thread::sleep(NAP);
            }
        }
    }

    /// Does the steps of one that can be done now; whether there were any.
    fn follow(&mut self, index: usize) -> Result<bool, String> {
        let mut moved = false;
        loop {
            let application = &self.parties[index].application;
            if application.waits_for_connection() {
                return Ok(moved);
            }
            let Some(&step) = application.script.get(application.at) else { return Ok(moved) };
            if application.begun.is_none() {
                self.begin(index, step)?;
                self.parties[index].application.begun = Some(Instant::now());
                moved = true;
            }
            if !self.is_done(index, step)? {
                return Ok(moved);
            }
            let application = &mut self.parties[index].application;
            application.at += 1;
            application.begun = None;
        }
    }

    fn begin(&mut self, index: usize, step: Step) -> Result<(), String> {
        let Party { end, application } = &mut self.parties[index];
        match step {
            Step::Send(count) => application.goal += count,
            Step::SendUntilStuck | Step::Flood => {
                application.goal = u64::MAX;
                application.sent_at = Instant::now();
            }
            Step::StopReading => application.reads = false,
            Step::ReadOn => application.reads = true,
            Step::End => {
                application.goal = application.sent;
                application.has_ended = true;
                end.end()?;
            }
            Step::Reset | Step::Leave => {
                application.goal = application.sent;
                application.is_gone = true;
                if step == Step::Reset { end.reset()? } else { end.leave()? }
            }
            Step::Meet => application.meetings += 1,
            Step::Hold => self.cable.is_held[index] = true,
            Step::Release => self.cable.is_held[index] = false,
            Step::AtOnce | Step::SendUrgent | Step::AwaitBytes(_) | Step::Await(_) => return Ok(()),
            Step::Settle | Step::Pause(_) => return Ok(()),
        }
        // What it brought about leaves at once, before the next step.
        let Party { end, application } = &mut self.parties[index];
        end.advance(application).map(|_| ())
    }

    /// Whether a step that has begun is through.
    fn is_done(&mut self, index: usize, step: Step) -> Result<bool, String> {
        let other = self.parties[1 - index].application.meetings;
        let Party { end, application } = &mut self.parties[index];
        let time = application.begun.map_or(Duration::ZERO, |begun| begun.elapsed());
        Ok(match step {
            Step::Send(_) => application.sent == application.goal || application.is_broken(),
            Step::SendUntilStuck => {
                let is_stuck = application.sent_at.elapsed() > STUCK;
                if is_stuck {
                    application.goal = application.sent;
                }
                is_stuck
            }
            Step::SendUrgent => {
                let mut byte = [0];
                Application::fill(index, application.sent, &mut byte);
                let is_taken = end.send_urgent(byte[0])?;
                application.goal += u64::from(is_taken);
                application.note_sent(u64::from(is_taken));
                is_taken
            }
            Step::AwaitBytes(count) => application.received >= count,
            Step::Await(seen) => application.has_seen(seen),
            Step::Meet => other >= application.meetings,
            Step::Settle => time > SILENCE && self.cable.silence() > SILENCE,
            Step::Pause(milliseconds) => time.as_millis() as u64 >= milliseconds,
            Step::AtOnce | Step::Flood | Step::StopReading | Step::ReadOn => true,
            Step::End | Step::Reset | Step::Leave | Step::Hold | Step::Release => true,
        })
    }

    fn describe(&self) -> String {
        let mut text = String::new();
        for (index, Party { application, .. }) in self.parties.iter().enumerate() {
            let Application { at, script, sent, goal, received, seen, .. } = application;
            let step = script.get(*at);
            text.push_str(&format!(
                "  {}: at step {at} ({step:?}), sent {sent} of {goal}, received {received}, saw {seen:?}\n",
                name(index)
            ));
        }
        text + "  the last frames:\n" + &self.cable.describe()
    }
}

fn name(index: usize) -> &'static str {
    ["who connects", "who listens"][index]
}
