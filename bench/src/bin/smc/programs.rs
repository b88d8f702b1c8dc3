//! Measurements with the programs that people run.

use std::fs;
use std::process::Command;

use crate::report::Bar;
use crate::rig::{Rig, Role, Side, Trouble};
use crate::rounds::{Figure, Measurement};

pub(crate) const SOCKPERF_PING_PONG: Measurement = Measurement {
    figures: &[Figure { what: "sockperf pp 14 B, latency p50", unit: "us", bar: Bar::AtMost(0.15) }],
    run: |rig, side| Ok(vec![sockperf(rig, side, "ping-pong", "14", "percentile 50.000 =")?]),
};

pub(crate) const SOCKPERF_THROUGHPUT: Measurement = Measurement {
    figures: &[Figure { what: "sockperf tp 64000 B", unit: "MB/s", bar: Bar::AtLeast(2.0) }],
    run: |rig, side| Ok(vec![sockperf(rig, side, "throughput", "64000", "BandWidth is")?]),
};

pub(crate) const REDIS_MANY: Measurement = Measurement {
    figures: &[
        Figure { what: "redis-benchmark -c 200 -d 1024, SET", unit: "a second", bar: Bar::AtLeast(1.6) },
        Figure { what: "redis-benchmark -c 200 -d 1024, GET", unit: "a second", bar: Bar::AtLeast(1.6) },
    ],
    run: |rig, side| redis(rig, side, "200", "1024", 100_000.0),
};

pub(crate) const REDIS_ONE: Measurement = Measurement {
    figures: &[
        Figure { what: "redis-benchmark -c 1 -d 64, SET", unit: "a second", bar: Bar::AtLeast(2.0) },
        Figure { what: "redis-benchmark -c 1 -d 64, GET", unit: "a second", bar: Bar::AtLeast(2.0) },
    ],
    run: |rig, side| redis(rig, side, "1", "64", 50_000.0),
};

pub(crate) const NGINX: Measurement = Measurement {
    figures: &[Figure { what: "nginx keep-alive, wrk -c 100", unit: "requests/s", bar: Bar::AtLeast(1.5) }],
    run: |rig, side| Ok(vec![nginx(rig, side)?]),
};

pub(crate) const THRIFT: Measurement = Measurement {
    figures: &[Figure { what: "thrift request/reply, one connection", unit: "calls/s", bar: Bar::AtLeast(1.5) }],
    run: |rig, side| Ok(vec![thrift(rig, side)?]),
};

pub(crate) const BLOCKS: Measurement = Measurement {
    figures: &[
        Figure { what: "qemu-img bench over NBD, 4 KiB, depth 1", unit: "reads/s", bar: Bar::Hoped(1.5) },
        Figure { what: "qemu-img bench over NBD, 4 KiB, depth 32", unit: "reads/s", bar: Bar::Hoped(1.5) },
    ],
    run: blocks,
};

/// The number behind `label` in what a program printed.
fn number_behind(printed: &str, label: &str) -> Result<f64, Trouble> {
    let found = printed.split(label).nth(1).and_then(|rest| rest.split_whitespace().next());
    found
        .and_then(|word| word.trim_end_matches(|last: char| !last.is_ascii_digit()).parse().ok())
        .ok_or_else(|| format!("no number behind '{label}' in: {}", printed.trim()))
}

fn sockperf(rig: &Rig, side: Side, what: &str, bytes: &str, label: &str) -> Result<f64, Trouble> {
    let port = rig.free_port();
    let place = ["--tcp", "-i", "127.0.0.1", "-p", &port.to_string()].map(str::to_owned);
    let mut server = rig.command(Role::Server, side, "sockperf");
    server.arg("server").args(&place);
    let server = rig.serve(server, port)?;
    let mut client = rig.command(Role::Client, side, "sockperf");
    // It counts in whole seconds.
    let seconds = rig.seconds.ceil().max(1.0).to_string();
    client.arg(what).args(&place).args(["--msg-size", bytes, "--time", &seconds]);
    let printed = rig.run(client)?;
    rig.check(side, &server, 1)?;
    number_behind(&printed, label)
}

/// SET and GET a second; `pace` is about how many there are of each in a second of plain TCP.
fn redis(rig: &Rig, side: Side, clients: &str, bytes: &str, pace: f64) -> Result<Vec<f64>, Trouble> {
    let port = rig.free_port();
    let text = port.to_string();
    let mut server = rig.command(Role::Server, side, "redis-server");
    server.args(["--bind", "127.0.0.1", "--port", &text, "--save", "", "--dir"]).arg(&rig.scratch);
    let server = rig.serve(server, port)?;
    let mut client = rig.command(Role::Client, side, "redis-benchmark");
    let requests = (pace * rig.seconds).round().to_string();
    client.args(["-p", &text, "-t", "set,get", "-c", clients, "-d", bytes, "-n", &requests, "--csv"]);
    let printed = rig.run(client)?;
    rig.check(side, &server, clients.parse().unwrap_or(1))?;
    let rate = |test: &str| number_behind(&printed.replace(['"', ','], " "), &format!("\n {test} "));
    Ok(vec![rate("SET")?, rate("GET")?])
}

fn nginx(rig: &Rig, side: Side) -> Result<f64, Trouble> {
    /// As large as the page that comes with it.
    const PAGE: usize = 612;
    let port = rig.free_port();
    let directory = rig.scratch.display();
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let configuration = format!(
        "daemon off; pid {directory}/nginx.pid; worker_processes 1; {user}\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n access_log off; sendfile on; keepalive_requests 100000000;\n\
         client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;\n\
         fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;\n\
         server {{ listen 127.0.0.1:{port}; root {directory}; }}\n}}\n"
    );
    let write = |name: &str, bytes: &[u8]| {
        fs::write(rig.scratch.join(name), bytes).map_err(|error| format!("cannot write {name}: {error}"))
    };
    write("nginx.conf", configuration.as_bytes())?;
    write("page", &[b'x'; PAGE])?;
    let mut server = rig.command(Role::Server, side, "nginx");
    server.args(["-e", "stderr", "-p"]).arg(&rig.scratch).arg("-c").arg(rig.scratch.join("nginx.conf"));
    let server = rig.serve(server, port)?;
    let mut client = rig.command(Role::Client, side, "wrk");
    let seconds = format!("{}s", rig.seconds.ceil().max(1.0));
    client.args(["-t", "1", "-c", "100", "-d", &seconds, &format!("http://127.0.0.1:{port}/page")]);
    let printed = rig.run(client)?;
    rig.check(side, &server, 100)?;
    if printed.contains("Socket errors") || printed.contains("Non-2xx") {
        return Err(format!("wrk met errors: {}", printed.trim()));
    }
    number_behind(&printed, "Requests/sec:")
}

fn thrift(rig: &Rig, side: Side) -> Result<f64, Trouble> {
    let port = rig.free_port();
    let mut server = rig.command(Role::Server, side, rig.thrift("thrift_server")?);
    server.arg(port.to_string());
    let server = rig.serve(server, port)?;
    let mut client = rig.command(Role::Client, side, rig.thrift("thrift_client")?);
    client.args([&port.to_string(), "measure", &rig.seconds.to_string()]);
    let printed = rig.run(client)?;
    rig.check(side, &server, 1)?;
    printed.trim().parse().map_err(|_| format!("thrift_client printed '{}'", printed.trim()))
}

/// Blocks a second at both depths, from a file that is in the page cache.
fn blocks(rig: &Rig, side: Side) -> Result<Vec<f64>, Trouble> {
    const DISK_BYTES: u64 = 64 << 20;
    /// About as many as there are in a second of plain TCP.
    const PACE: [(&str, f64); 2] = [("1", 8_000.0), ("32", 25_000.0)];
    let port = rig.free_port();
    let disk = rig.scratch.join("disk");
    fs::write(&disk, vec![0xD5; DISK_BYTES as usize]).map_err(|error| format!("cannot write a disk: {error}"))?;
    let mut server = rig.command(Role::Server, side, "qemu-nbd");
    server.args([
        "--persistent",
        "--shared",
        "4",
        "--bind",
        "127.0.0.1",
        "--format",
        "raw",
        "--port",
        &port.to_string(),
    ]);
    server.arg(&disk);
    let server = rig.serve(server, port)?;
    let measure = |(depth, pace): (&str, f64)| -> Result<f64, Trouble> {
        let count = (pace * rig.seconds).round();
        let mut client: Command = rig.command(Role::Client, side, "qemu-img");
        client.args(["bench", "-f", "raw", "-s", "4096", "-d", depth, "-c", &count.to_string()]);
        client.arg(format!("nbd://127.0.0.1:{port}"));
        Ok(count / number_behind(&rig.run(client)?, "Run completed in")?)
    };
    let rates = PACE.into_iter().map(measure).collect();
    rig.check(side, &server, 2)?;
    rates
}
