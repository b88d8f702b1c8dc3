//! `softrdma stat`: counters of running processes.

use std::io::{Write, stdout};
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};
use softrdma_bins_common::directory;
use softrdma_bins_common::statistics_socket::{ProcessStatistics, read_all};

#[derive(Args, Debug)]
pub(crate) struct StatArguments {
    /// One JSON object a process, one a line, instead of text.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &StatArguments) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    let all = read_all();
    if all.is_empty() {
        eprintln!(
            "softrdma: no process shows its counters in {}; softrdma-perf and softrdma ping do while they run, as the same user",
            directory::path().display()
        );
    }
    let mut out = stdout().lock();
    for statistics in all {
        let printed = match statistics {
            Ok(statistics) if arguments.json => writeln!(out, "{}", line(&statistics)),
            Ok(statistics) => write!(out, "{}", text(&statistics)),
            Err(error) => {
                eprintln!("softrdma: {error}");
                code = ExitCode::FAILURE;
                continue;
            }
        };
        // Whoever reads us has had enough.
        if printed.is_err() {
            return ExitCode::FAILURE;
        }
    }
    code
}

/// The process's document with its number in front.
fn line(statistics: &ProcessStatistics) -> Value {
    let mut line = json!({ "process": statistics.process });
    if let (Value::Object(line), Value::Object(document)) = (&mut line, &statistics.document) {
        line.extend(document.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
    line
}

fn text(statistics: &ProcessStatistics) -> String {
    let document = &statistics.document;
    let mut text = format!("process {}  {}\n", statistics.process, document["program"].as_str().unwrap_or("unknown"));
    for device in document["devices"].as_array().into_iter().flatten() {
        section(&mut text, 1, "device", device);
    }
    text
}

/// An object's numbers and words on one line, then what is nested in it, each a section of its own.
fn section(text: &mut String, depth: usize, name: &str, value: &Value) {
    let Value::Object(fields) = value else { return };
    let indent = "  ".repeat(depth);
    let plain = |value: &Value| match value {
        Value::String(word) => Some(word.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    };
    let words: Vec<_> =
        fields.iter().filter_map(|(key, value)| plain(value).map(|value| format!("{key} {value}"))).collect();
    text.push_str(&format!("{indent}{name}: {}\n", words.join(", ")));
    for (key, value) in fields {
        match value {
            Value::Object(_) => section(text, depth + 1, key, value),
            Value::Array(items) => {
                items.iter().for_each(|item| section(text, depth + 1, key.trim_end_matches('s'), item));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statistics() -> ProcessStatistics {
        let document = json!({
            "program": "softrdma-perf server",
            "devices": [{
                "device": "softrdma0",
                "placed_bytes": 4096,
                "engine": { "received_bytes": 5000, "port": { "received_packets": 7 } },
                "queue_pairs": [{ "number": 2, "outstanding": 1 }, { "number": 3, "outstanding": 0 }],
            }],
        });
        ProcessStatistics { process: 42, document }
    }

    #[test]
    fn json_is_one_line_a_process_that_names_it() {
        let line = line(&statistics());
        assert_eq!(line["process"], 42);
        assert_eq!(line["devices"][0]["queue_pairs"][1]["number"], 3);
        assert!(!line.to_string().contains('\n'));
    }

    #[test]
    fn text_shows_device_engine_port_and_each_queue_pair() {
        let text = text(&statistics());
        assert!(text.starts_with("process 42  softrdma-perf server\n"), "{text}");
        for part in ["device: ", "placed_bytes 4096", "engine: received_bytes 5000", "port: received_packets 7"] {
            assert!(text.contains(part), "{part} not in\n{text}");
        }
        assert_eq!(text.matches("queue_pair: ").count(), 2, "{text}");
    }
}
