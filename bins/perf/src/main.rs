//! softrdma-perf: latency and throughput of softrdma, both ends, over any fabric.

#![forbid(unsafe_code)]

mod arguments;
mod buffers;
mod child;
mod client;
mod control;
mod endpoint;
mod failure;
mod measurement;
mod message;
mod network;
mod operation;
mod pair;
mod pattern;
mod plain_tcp;
mod plan;
mod progress;
mod raw;
mod report;
mod server;
mod statistics;
mod traffic;
mod upkeep;
mod usage;
mod wait;

use std::io::stdout;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use clap::Parser;
use softrdma_bins_common::device::{DeviceArguments, DevicePlan, End, Fabric};
use softrdma_bins_common::logging;
use softrdma_bins_common::statistics_page::StatisticsPage;

use arguments::{Arguments, ClientArguments, Command, DEFAULT_PORT, PairArguments, ServerArguments};
use client::Client;
use endpoint::Endpoint;
use failure::{Context, Failure};
use plan::MAX_QUEUE_PAIRS;
use report::{Reporter, Row};
use server::Server;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.command {
        Command::Child => return child::run(),
        Command::Server(arguments) => serve(&arguments).map(|()| 0),
        Command::Client(arguments) => measure(&arguments),
        Command::Pair(arguments) => pair(&arguments),
        Command::Raw(arguments) => {
            logging::start(arguments.device.verbose);
            raw::run(&arguments).map(|()| 0)
        }
    };
    match outcome {
        Ok(0) => ExitCode::SUCCESS,
        Ok(errors) => {
            eprintln!("softrdma-perf: {errors} errors in all");
            ExitCode::FAILURE
        }
        Err(failure) => {
            eprintln!("softrdma-perf: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

fn serve(arguments: &ServerArguments) -> Result<(), Failure> {
    logging::start(arguments.device.verbose);
    let plan = plan(&arguments.device, End::Server, MAX_QUEUE_PAIRS)?;
    let listen = arguments.listen.map_or_else(|| default_address(&plan, true), |peer| peer.0);
    let endpoint = Endpoint::open(&plan, arguments.timeout)?;
    let _page = StatisticsPage::show(&endpoint.device, "softrdma-perf server");
    let server = Server::listen(endpoint, listen, arguments.memory)?;
    eprintln!(
        "softrdma-perf: listening on {} ({}, {})",
        server.address(),
        plan.config.scheme.name(),
        plan.fabric_name()
    );
    loop {
        let outcome = server.serve_one();
        if arguments.once {
            return outcome;
        }
        if let Err(failure) = outcome {
            eprintln!("softrdma-perf: a client's run ended: {failure}");
        }
    }
}

/// Errors in the data of all rows.
fn measure(arguments: &ClientArguments) -> Result<u64, Failure> {
    logging::start(arguments.device.verbose);
    let plan = plan(&arguments.device, End::Client, arguments.test.qps)?;
    let server = arguments.server.map_or_else(|| default_address(&plan, false), |peer| peer.0);
    let mut printer = Printer::new(arguments.test.json, false);
    let endpoint = Endpoint::open(&plan, arguments.limits.timeout)?;
    let _page = StatisticsPage::show(&endpoint.device, "softrdma-perf client");
    let mut client = Client::connect(endpoint, &plan, server, &arguments.test, &arguments.limits)?;
    client.run(|row| printer.take(&row))?;
    client.close()?;
    Ok(printer.errors)
}

fn pair(arguments: &PairArguments) -> Result<u64, Failure> {
    logging::start(arguments.device.verbose);
    let mut printer = Printer::new(arguments.test.json, arguments.with_raw);
    pair::run(arguments, |row| printer.take(&row))?;
    Ok(printer.errors)
}

/// Prints rows and adds up their errors.
struct Printer {
    reporter: Reporter,
    errors: u64,
}

impl Printer {
    fn new(json: bool, with_raw: bool) -> Self {
        Self { reporter: Reporter::new(json, with_raw), errors: 0 }
    }

    fn take(&mut self, row: &Row) -> Result<(), Failure> {
        self.errors += row.errors;
        self.reporter.print(row, &mut stdout().lock()).context(|| "cannot print")
    }
}

fn plan(device: &DeviceArguments, end: End, queue_pairs: u32) -> Result<DevicePlan, Failure> {
    let mut plan = device.plan(end)?;
    // A configuration file has the limits that it says.
    if device.config.is_none() {
        pair::make_room(&mut plan, queue_pairs);
    }
    Ok(plan)
}

/// Where a server listens, or is looked for, if nothing else is said. On a port with addresses of ours: the first.
fn default_address(plan: &DevicePlan, own: bool) -> SocketAddr {
    let first = plan.config.addresses.first().map(|address| address.address);
    let address = match plan.fabric {
        Some(Fabric::Kernel) => Ipv4Addr::LOCALHOST.into(),
        _ if own => first.unwrap_or(Ipv4Addr::LOCALHOST.into()),
        Some(_) => End::Server.address().into(),
        None => Ipv4Addr::LOCALHOST.into(),
    };
    SocketAddr::new(address, DEFAULT_PORT)
}
