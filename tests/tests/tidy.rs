//! The rules that the tree keeps about itself, over the whole tree. The rules and their own tests: `src/tidy`.

use softrdma_tests::tidy::{Finding, length, manifest, safety, text, tree};
use std::fs;
use std::process::Command;

/// The exceptions to the limits on length.
const LENGTHS: &str = "tests/lengths.txt";

/// Every text file of the repository: path from the top, contents. Binary files (captures) are left out.
fn texts() -> Vec<(String, String)> {
    let root = tree::root();
    let files = tree::files(&root).expect("list the files of the repository");
    assert!(
        files.len() > 40,
        "only {} files found under {}: the checks below would check nothing",
        files.len(),
        root.display()
    );
    files.into_iter().filter_map(|path| Some((path.clone(), fs::read_to_string(root.join(&path)).ok()?))).collect()
}

fn is_rust(path: &str) -> bool {
    path.ends_with(".rs")
}

fn assert_none(findings: Vec<Finding>) {
    let lines: Vec<_> = findings.iter().map(Finding::to_string).collect();
    assert!(lines.is_empty(), "{} findings:\n{}", lines.len(), lines.join("\n"));
}

#[test]
fn unsafe_stands_in_the_listed_files_only() {
    let places = safety::UNSAFE_PLACES;
    assert_none(
        texts()
            .iter()
            .filter(|(path, _)| is_rust(path))
            .flat_map(|(path, source)| {
                let mut findings = safety::unsafe_outside(places, path, source);
                findings.extend(safety::root_without_ban(places, path, source));
                findings
            })
            .collect(),
    );
}

#[test]
fn packages_depend_downwards_only() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(tree::root())
        .output()
        .expect("run cargo metadata");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    assert_none(manifest::forbidden_dependencies(&metadata));
}

#[test]
fn nothing_unfinished_and_nothing_of_one_machine_is_left_over() {
    assert_none(texts().iter().flat_map(|(path, source)| text::left_overs(path, source)).collect());
}

#[test]
fn locked_packages_come_from_the_public_registry() {
    let texts = texts();
    let locks: Vec<_> = texts.iter().filter(|(path, _)| path.ends_with("Cargo.lock")).collect();
    assert!(!locks.is_empty(), "no Cargo.lock");
    assert_none(locks.iter().flat_map(|(path, lock)| text::foreign_sources(path, lock)).collect());
}

#[test]
fn the_top_level_has_its_entries_and_no_others() {
    assert_none(texts().iter().filter_map(|(path, _)| text::stray_entry(path)).collect());
}

#[test]
fn files_and_functions_only_shrink() {
    let mut measured = length::Lengths::new();
    for (path, source) in
        texts().iter().filter(|(path, _)| is_rust(path) || path.ends_with(".c") || path.ends_with(".sh"))
    {
        length::measure(path, source, &mut measured);
    }
    let list = fs::read_to_string(tree::root().join(LENGTHS)).expect("read the list of lengths");
    match length::parse(LENGTHS, &list) {
        Ok(listed) => assert_none(length::compare(LENGTHS, &listed, &measured)),
        Err(finding) => assert_none(vec![finding]),
    }
}
