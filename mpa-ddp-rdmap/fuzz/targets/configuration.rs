//! Arbitrary text as device configuration: it is refused with its place and what is accepted, or means the same when it is
//! written and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use softrdma_verbs::{ConfigError, DeviceConfig};

const FILE: &str = "fuzz.toml";

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match DeviceConfig::from_toml(text, FILE) {
        Ok(config) => {
            config.validate().expect("what was read is valid");
            let written = toml::to_string(&config).expect("a configuration can be written");
            assert_eq!(DeviceConfig::from_toml(&written, FILE).expect("and read again"), config);
        }
        Err(error) => check(&error, text),
    }
});

fn check(error: &ConfigError, text: &str) {
    assert!(error.to_string().starts_with(FILE), "names no file: {error}");
    let place = match error {
        ConfigError::Unreadable { .. } => panic!("no file was read: {error}"),
        ConfigError::Syntax { place, message } => {
            assert!(!message.is_empty());
            place
        }
        ConfigError::Type { place, key, message } => {
            assert!(!key.is_empty() && !message.is_empty());
            place
        }
        ConfigError::Value { place, key, accepted, .. } => {
            assert!(!key.is_empty() && !accepted.is_empty());
            place
        }
    };
    // An error may stand behind the last line.
    assert!(place.line <= text.matches('\n').count() + 1, "line {} of {text:?}", place.line);
}
