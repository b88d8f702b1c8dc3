//! `smcd stats`: what was counted, laid out as users of smc-tools know it.

use std::fmt::Write;

use serde_json::{Value, json};
use softrdma_bins_common::size::Bytes;
use softrdma_smc::statistics::{Counter, Role, SIZE_CLASSES};

use crate::smcss::text_of;
use crate::totals::{Histograms, Reason, Totals};

const CLASSES: [&str; SIZE_CLASSES] = ["8KB", "16KB", "32KB", "64KB", "128KB", "256KB", "512KB", ">512KB"];

/// As text; `with_details` tells clients from servers, and says what happened beside.
pub(crate) fn text(totals: &Totals, with_details: bool) -> String {
    let mut text = connections(totals, with_details);
    direction(&mut text, "RX", totals, &totals.received, with_details);
    direction(&mut text, "TX", totals, &totals.sent, with_details);
    text += "\nExtras\n";
    amount(&mut text, "Special socket calls", totals.get(Counter::Urgent), "");
    if with_details {
        amount(&mut text, "  urgent data", totals.get(Counter::Urgent), "");
        details(&mut text, totals);
    }
    text
}

fn connections(totals: &Totals, with_details: bool) -> String {
    let get = |counter| totals.get(counter);
    let both = |client, server| match with_details {
        true => format!(" (client {}, server {})", get(client), get(server)),
        false => String::new(),
    };
    let accelerated = get(Counter::AcceleratedAsClient) + get(Counter::AcceleratedAsServer);
    let fallbacks = get(Counter::FallbacksAsClient) + get(Counter::FallbacksAsServer);
    let errors = get(Counter::HandshakeErrorsAsClient) + get(Counter::HandshakeErrorsAsServer);
    let requests = get(Counter::SentMessages) + get(Counter::ReceivedMessages);
    let mut text = String::from("SMC-D Connections Summary\n");
    amount(&mut text, "Total connections handled", get(Counter::ConnectionsSeen), "");
    let roles = both(Counter::AcceleratedAsClient, Counter::AcceleratedAsServer);
    amount(&mut text, "SMC connections", accelerated, &roles);
    if with_details {
        // There is no other version here.
        amount(&mut text, "  v1", accelerated, "");
    }
    let roles = both(Counter::HandshakeErrorsAsClient, Counter::HandshakeErrorsAsServer);
    amount(&mut text, "Handshake errors", errors, &roles);
    let average = if accelerated == 0 { 0.0 } else { requests as f64 / accelerated as f64 };
    let _ = writeln!(text, "  {:<32}{average:>14.1}", "Avg requests per SMC conn");
    let roles = both(Counter::FallbacksAsClient, Counter::FallbacksAsServer);
    amount(&mut text, "TCP fallback", fallbacks, &roles);
    for (reason, count) in totals.fallbacks() {
        let _ = writeln!(text, "    {}", fallback(reason, count));
    }
    text
}

/// `      12  client  0x03010000  own   the peer has no SMC`.
fn fallback(reason: Option<Reason>, count: u64) -> String {
    match reason {
        None => format!("{count:>12}  of further reasons"),
        Some(Reason { role, code, by_peer }) => {
            let role = if role == Role::Client { "client" } else { "server" };
            let by = if by_peer { "peer" } else { "own" };
            format!("{count:>12}  {role}  {code:#010x}  {by:<4}  {}", text_of(code)).trim_end().to_owned()
        }
    }
}

fn direction(text: &mut String, name: &str, totals: &Totals, sizes: &Histograms, with_details: bool) {
    let (bytes, messages) = match name {
        "RX" => (totals.get(Counter::ReceivedBytes), totals.get(Counter::ReceivedMessages)),
        _ => (totals.get(Counter::SentBytes), totals.get(Counter::SentMessages)),
    };
    let _ = writeln!(text, "\n{name} Stats");
    amount(text, "Data transmitted (Bytes)", bytes, &format!(" ({})", rounded(bytes)));
    amount(text, "Total requests", messages, "");
    if name == "TX" {
        let full = totals.get(Counter::RingFull);
        let share = if messages == 0 { 0.0 } else { full as f64 * 100.0 / messages as f64 };
        // The sender's buffer is the peer's.
        amount(text, "Buffer full", full, &format!(" ({share:.2}%)"));
        if with_details {
            amount(text, "Buffer full (remote)", full, &format!(" ({share:.2}%)"));
        }
    }
    let row = |cells: [String; SIZE_CLASSES]| cells.iter().map(|cell| format!("{cell:>8}")).collect::<String>();
    let _ = writeln!(text, "        {}", row(CLASSES.map(str::to_owned)));
    let _ = writeln!(text, "  Bufs  {}", row(sizes.rings.map(rounded)));
    let _ = writeln!(text, "  Reqs  {}", row(sizes.messages.map(rounded)));
}

/// What smc-tools do not have.
fn details(text: &mut String, totals: &Totals) {
    let get = |counter| totals.get(counter);
    *text += "\nWaking\n";
    amount(text, "Peers woken", get(Counter::DoorbellsRung), "");
    let vain = format!(" (in vain {})", get(Counter::SpinsVain));
    amount(text, "Sleeps saved by spinning", get(Counter::SpinsPaid), &vain);
    *text += "\nMemory\n";
    amount(text, "Link groups", get(Counter::Arenas), "");
    let limit = format!(" (at most {})", Bytes(get(Counter::RingMemoryLimit)));
    amount(text, "Ring memory in use (Bytes)", get(Counter::RingMemory), &limit);
    amount(text, "Peers' violations", get(Counter::Violations), "");
    amount(text, "Sockets not listed", get(Counter::Unlisted), "");
}

fn amount(text: &mut String, name: &str, value: u64, behind: &str) {
    let _ = writeln!(text, "  {name:<32}{value:>14}{behind}");
}

/// `138.5M`, in powers of 1000 as smc-tools have it; whole below 10,000.
fn rounded(value: u64) -> String {
    let (mut shown, mut suffix) = (value as f64, "");
    for next in ["K", "M", "G", "T", "P", "E"] {
        if shown < 10_000.0 && suffix.is_empty() || shown < 1000.0 {
            break;
        }
        (shown, suffix) = (shown / 1000.0, next);
    }
    if suffix.is_empty() { value.to_string() } else { format!("{shown:.1}{suffix}") }
}

/// As one object.
pub(crate) fn json(totals: &Totals) -> Value {
    let classes = |counts: [u64; SIZE_CLASSES]| {
        CLASSES.into_iter().map(str::to_owned).zip(counts.map(Value::from)).collect::<serde_json::Map<_, _>>()
    };
    let sizes = |sizes: &Histograms| json!({ "bufs": classes(sizes.rings), "reqs": classes(sizes.messages) });
    let fallbacks: Vec<_> = totals
        .fallbacks()
        .into_iter()
        .map(|(reason, count)| match reason {
            None => json!({ "count": count, "text": "further reasons" }),
            Some(Reason { role, code, by_peer }) => json!({
                "count": count, "role": role, "code": format!("{code:#010x}"), "by_peer": by_peer,
                "text": text_of(code),
            }),
        })
        .collect();
    json!({
        "mode": "SMC-D",
        "counters": totals.counters(),
        "fallbacks": fallbacks,
        "sent": sizes(&totals.sent),
        "received": sizes(&totals.received),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_are_rounded() {
        let cases = [(0, "0"), (9999, "9999"), (10_000, "10.0K"), (138_500_300, "138.5M"), (u64::MAX, "18.4E")];
        for (value, expected) in cases {
            assert_eq!(rounded(value), expected);
        }
    }
}
