//! `softrdma devices`: opens devices and shows what they can do.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};
use softrdma_bins_common::output;
use softrdma_verbs::{Device, DeviceConfig};

#[derive(Args, Debug)]
pub(crate) struct DevicesArguments {
    /// Device configurations in TOML [default: one kernel-socket device].
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// One JSON object a device, one a line, instead of text.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &DevicesArguments) -> ExitCode {
    let configs: Vec<_> = match arguments.files.is_empty() {
        true => vec![Ok(DeviceConfig::default())],
        false => {
            arguments.files.iter().map(|file| DeviceConfig::load(file).map_err(|error| error.to_string())).collect()
        }
    };
    let mut code = ExitCode::SUCCESS;
    for config in configs {
        match config.and_then(describe) {
            Ok(device) if arguments.json => output::line(device),
            Ok(device) => print(&device),
            Err(error) => {
                eprintln!("softrdma: {error}");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

/// Opens the device, asks it, and closes it.
fn describe(config: DeviceConfig) -> Result<Value, String> {
    let name = config.name.clone();
    let device = Device::open(config).map_err(|error| format!("device {name}: {error}"))?;
    let config = device.config();
    Ok(json!({
        "name": name,
        "scheme": config.scheme.name(),
        "threads": config.threads.name(),
        "mtu": config.mtu,
        "crc": config.crc,
        "addresses": device.addresses(),
        "port": config.port,
        "attributes": device.attributes(),
    }))
}

fn print(device: &Value) {
    let word = |key: &str| device[key].as_str().map_or_else(|| device[key].to_string(), str::to_owned);
    output::line(format_args!(
        "{}: scheme {}, threads {}, CRC {}",
        word("name"),
        word("scheme"),
        word("threads"),
        word("crc")
    ));
    match device["addresses"].as_array() {
        Some(addresses) if !addresses.is_empty() => {
            output::line(format_args!("  addresses: {}, MTU {}", device["addresses"], word("mtu")))
        }
        _ => output::line(format_args!("  addresses: those of the operating system")),
    }
    if !device["port"].is_null() {
        output::line(format_args!("  port: {}", device["port"]));
    }
    for (key, value) in device["attributes"].as_object().into_iter().flatten() {
        if value.is_number() {
            output::line(format_args!("  {key}: {value}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_device_opens_and_tells_its_attributes() {
        let device = describe(DeviceConfig::default()).unwrap();
        assert_eq!(device["scheme"], "kernel-socket");
        assert!(device["attributes"]["max_queue_pairs"].as_u64().unwrap() > 0);
    }
}
