//! Which of our packages may depend on which: downwards only, and nothing on tests or benchmarks.

use super::Finding;
use serde_json::Value;

/// Package, what of ours it may depend on, and whether DPDK must be optional in it.
const MAY_DEPEND_ON: &[(&str, &[&str])] = &[
    ("dpdk-sys", &[]),
    ("softrdma-stack", &[]),
    ("softrdma-mpa-ddp-rdmap", &[]),
    ("softrdma-dpdk-glue", &["dpdk-sys", "softrdma-stack"]),
    ("softrdma-verbs", &["softrdma-stack", "softrdma-mpa-ddp-rdmap", "softrdma-dpdk-glue?"]),
    ("softrdma-smc", &[]),
    ("softrdma-bins-common", &["softrdma-verbs"]),
    ("softrdma-perf", BINARY),
    ("softrdma-smc-preload", &["softrdma-smc"]),
    ("softrdma-smc-tools", &["softrdma-bins-common", "softrdma-smc"]),
    (
        "softrdma",
        &[
            "softrdma-stack",
            "softrdma-mpa-ddp-rdmap",
            "softrdma-dpdk-glue?",
            "softrdma-verbs",
            "softrdma-bins-common",
            "softrdma-smc-tools",
        ],
    ),
    (
        "softrdma-tests",
        &["softrdma-stack", "softrdma-mpa-ddp-rdmap", "softrdma-dpdk-glue?", "softrdma-verbs", "softrdma-smc"],
    ),
    (
        "softrdma-bench",
        &["softrdma-stack", "softrdma-mpa-ddp-rdmap", "softrdma-dpdk-glue?", "softrdma-verbs", "softrdma-smc"],
    ),
];

/// A trailing `?` means: only as an optional dependency, so that everything builds without DPDK.
const APPLICATION: &[&str] = &["softrdma-stack", "softrdma-mpa-ddp-rdmap", "softrdma-dpdk-glue?", "softrdma-verbs"];
const BINARY: &[&str] =
    &["softrdma-stack", "softrdma-mpa-ddp-rdmap", "softrdma-dpdk-glue?", "softrdma-verbs", "softrdma-bins-common"];

/// Dependencies between our packages that the table does not allow, in the output of `cargo metadata --no-deps`.
/// Build and development dependencies count like any other.
pub fn forbidden_dependencies(metadata: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let mut find = |message: String| findings.push(Finding::new(name, 0, message));
        let Some((_, allowed)) = MAY_DEPEND_ON.iter().find(|(listed, _)| *listed == name) else {
            find("a new package: say in tests/src/tidy/manifest.rs what it may depend on".to_owned());
            continue;
        };
        for dependency in package["dependencies"].as_array().map(Vec::as_slice).unwrap_or_default() {
            let on = dependency["name"].as_str().unwrap_or_default();
            let is_ours = dependency["path"].is_string();
            let is_optional = dependency["optional"].as_bool().unwrap_or(false);
            let if_optional = allowed.contains(&format!("{on}?").as_str());
            match (is_ours, allowed.contains(&on), if_optional, is_optional) {
                (false, ..) | (_, true, ..) | (_, _, true, true) => {}
                (_, _, true, false) => find(format!("must depend on {on} optionally only: it needs DPDK")),
                _ => find(format!("must not depend on {on}: dependencies point downwards only")),
            }
        }
    }
    if packages.len() < MAY_DEPEND_ON.len() {
        findings.push(Finding::new("Cargo.toml", 0, "fewer packages than the table of dependencies has"));
    }
    findings
}
