//! Every rule against text that breaks it: a rule that cannot fail keeps nothing.

use super::code::{Function, functions, without_comments_and_literals};
use super::length::{self, Lengths};
use super::{manifest, safety, text, tree};
use proptest::prelude::*;
use serde_json::json;

#[test]
fn comments_and_literals_are_blanked_and_code_is_not() {
    let cases = [
        ("a // unsafe\nb", "a          \nb"),
        ("a /* x /* y */ unsafe */ b", "a                        b"),
        (r#"f("unsafe \" {")"#, r#"f(             )"#),
        (r##"f(r#"un"safe"#, c)"##, r##"f(            , c)"##),
        (r#"f(br"{", b"}")"#, r#"f(b    , b   )"#),
        (r"match c { '{' | '\'' | '}' => 1 }", r"match c {     |      |     => 1 }"),
        ("fn f<'a>(x: &'a str, y: char) { y == 'é' }", "fn f<'a>(x: &'a str, y: char) { y ==      }"),
        ("for r in rest { r.write() }", "for r in rest { r.write() }"),
        ("let r#type = 1;", "let r#type = 1;"),
    ];
    for (source, code) in cases {
        assert_eq!(without_comments_and_literals(source), code, "of {source}");
    }
}

proptest! {
    #[test]
    fn blanking_keeps_every_position_of_any_text(source in "[a-z'\"/*\\\\#r{}\n é]{0,60}") {
        let code = without_comments_and_literals(&source);
        prop_assert_eq!(code.len(), source.len());
        let breaks = |text: &str| text.match_indices('\n').map(|(at, _)| at).collect::<Vec<_>>();
        prop_assert_eq!(breaks(&code), breaks(&source));
    }
}

#[test]
fn functions_are_measured_from_fn_to_closing_brace() {
    let code = "trait T { fn declared(&self) -> [u8; 4]; }\nfn one() {}\nfn three(\n    f: fn(u8) -> u8,\n) where u8: Copy { if a { b } }\n";
    let found = functions(code);
    let expected = [("one", 2, 1), ("three", 3, 3)];
    let expected = expected.map(|(name, line, lines)| Function { name: name.to_owned(), line, lines });
    assert_eq!(found, expected);
}

#[test]
fn unsafe_is_found_outside_its_places_and_only_there() {
    let places = safety::UNSAFE_PLACES;
    let source = "#![deny(unsafe_code)]\n// unsafe\nfn f() {\n    unsafe { g() }\n}\n";
    let found = safety::unsafe_outside(places, "verbs/src/queue.rs", source);
    assert_eq!(found.iter().map(|finding| finding.line).collect::<Vec<_>>(), [4]);
    for place in
        ["verbs/src/memory.rs", "verbs/src/memory/tests.rs", "dpdk-glue/sys/src/lib.rs", "bins/libibverbs/src/abi.rs"]
    {
        assert_eq!(safety::unsafe_outside(places, place, source), [], "in {place}");
    }
    for place in ["stack/src/memory.rs", "verbs/src/memory/copy.rs", "bins/abi.rs", "bins/a/b/src/abi.rs"] {
        assert_eq!(safety::unsafe_outside(places, place, source).len(), 1, "in {place}");
    }
}

#[test]
fn crate_roots_must_ban_unsafe_code() {
    let ban = |path, source| safety::root_without_ban(safety::UNSAFE_PLACES, path, source).is_none();
    assert!(ban("stack/src/lib.rs", "#![forbid(unsafe_code)]"));
    assert!(!ban("stack/src/lib.rs", "#![deny(unsafe_code)]"), "no unsafe place in stack");
    assert!(!ban("stack/src/lib.rs", "// #![forbid(unsafe_code)]"), "a comment bans nothing");
    assert!(ban("verbs/src/lib.rs", "#![deny(unsafe_code)]"));
    assert!(!ban("verbs/src/lib.rs", ""));
    assert!(ban("dpdk-glue/sys/src/lib.rs", ""), "bindings");
    assert!(ban("stack/src/port.rs", ""), "not a crate root");
}

#[test]
fn left_overs_are_found_with_their_line() {
    let bad = [
        concat!("a\n// TO", "DO later"),
        concat!("a\n    to", "do!()"),
        concat!("a\nlet x = db", "g!(y);"),
        concat!("a\n#[ig", "nore]"),
        concat!("a\nopen(\"/ro", "ot/x\")"),
        concat!("a\n\"/ho", "me/someone/x\""),
        concat!("a\nhttps://index.crates", ".io/"),
    ];
    for text in bad {
        let found = text::left_overs("x.rs", text);
        assert_eq!(found.iter().map(|finding| finding.line).collect::<Vec<_>>(), [2], "in {text}");
    }
    let good =
        "the method to do it\nmktemp -d softrdma.XXXXXX\n/proc/self/root\nhttps://crates.io/crates/smoltcp\n.gitignore";
    assert_eq!(text::left_overs("x.rs", good), []);
}

#[test]
fn a_locked_package_from_elsewhere_is_found() {
    let lock = "name = \"a\"\nsource = \"registry+https://github.com/rust-lang/crates.io-index\"\n\
        name = \"b\"\nsource = \"git+https://example.org/b\"\n";
    assert_eq!(text::foreign_sources("Cargo.lock", lock).iter().map(|finding| finding.line).collect::<Vec<_>>(), [4]);
}

#[test]
fn stray_top_level_entries_are_found() {
    for path in ["stack/src/lib.rs", "Cargo.lock", "LICENSE-MIT", ".ci/run", "README.md"] {
        assert_eq!(text::stray_entry(path), None);
    }
    for path in ["notes.txt", "scripts/run.sh", "stack2/src/lib.rs"] {
        assert!(text::stray_entry(path).is_some(), "{path} went unnoticed");
    }
}

#[test]
fn long_files_and_functions_are_measured() {
    let mut measured = Lengths::new();
    let body = "    x();\n".repeat(length::FUNCTION_LINES);
    length::measure("a.rs", &format!("fn long() {{\n{body}}}\nfn short() {{}}\n"), &mut measured);
    length::measure("b.rs", &"\n".repeat(length::FILE_LINES), &mut measured);
    length::measure("c.sh", &"\n".repeat(length::FILE_LINES + 1), &mut measured);
    let expected = [("a.rs::long".to_owned(), length::FUNCTION_LINES + 2), ("c.sh".to_owned(), length::FILE_LINES + 1)];
    assert_eq!(measured, expected.into());
}

#[test]
fn listed_lengths_only_go_down() {
    let listed = length::parse("list", "# comment\n900 grown.rs\n900 shrunk.rs\n100 same.rs::f # why\n80 gone.rs::g\n");
    let measured = [("grown.rs", 901), ("shrunk.rs", 899), ("same.rs::f", 100), ("new.rs::h", 71)];
    let measured = measured.map(|(subject, lines)| (subject.to_owned(), lines)).into();
    let found: Vec<_> = length::compare("list", &listed.expect("a well-formed list"), &measured)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        found,
        [
            "grown.rs: grew from 900 to 901 lines: split it",
            "new.rs::h: 71 lines, at most 70: split it",
            "list: shrunk.rs shrank: lower 900 to 899",
            "list: gone.rs::g is short enough or gone: remove its entry",
        ]
    );
}

#[test]
fn a_malformed_list_of_lengths_names_its_line() {
    assert_eq!(length::parse("list", "900 a.rs\nmany b.rs\n").expect_err("'many' is no number").line, 2);
    assert_eq!(length::parse("list", "900 a.rs\n901 a.rs\n").expect_err("a.rs stands twice").line, 2);
}

#[test]
fn upward_and_unconditional_dependencies_are_found() {
    let dependency = |name, optional| json!({"name": name, "path": "somewhere", "optional": optional});
    let metadata = json!({"packages": [
        {"name": "softrdma-stack", "dependencies": [{"name": "smoltcp"}, dependency("softrdma-verbs", false)]},
        {"name": "softrdma-verbs", "dependencies": [dependency("softrdma-dpdk-glue", false)]},
        {"name": "softrdma-perf", "dependencies": [dependency("softrdma-dpdk-glue", true), dependency("softrdma-tests", true)]},
        {"name": "softrdma-new", "dependencies": []},
    ]});
    let found: Vec<_> = manifest::forbidden_dependencies(&metadata).iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "softrdma-stack: must not depend on softrdma-verbs: dependencies point downwards only",
            "softrdma-verbs: must depend on softrdma-dpdk-glue optionally only: it needs DPDK",
            "softrdma-perf: must not depend on softrdma-tests: dependencies point downwards only",
            "softrdma-new: a new package: say in tests/src/tidy/manifest.rs what it may depend on",
            "Cargo.toml: fewer packages than the table of dependencies has",
        ]
    );
}

#[test]
fn the_files_are_those_of_this_repository() {
    let files = tree::files(&tree::root()).expect("list the files");
    assert!(files.contains(&"tests/src/tidy/tests.rs".to_owned()));
    assert!(files.iter().all(|path| !path.starts_with("target/")));
}
