//! The scripts that run the tests.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use softrdma_tests::tidy::tree;

#[test]
fn a_toolchain_without_its_linters_is_named_among_what_was_left_out() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("without-linters-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("make a folder");
    let (cargo, list) = (folder.join("cargo"), folder.join("skipped"));
    fs::write(&cargo, "#!/bin/sh\nexit 101\n").expect("write a cargo that has no subcommands");
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).expect("make it executable");
    fs::write(&list, "").expect("begin the list");
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").expect("PATH is set"));
    let output = Command::new(tree::root().join("tests/lint.sh"))
        .env("PATH", path)
        .env("SOFTRDMA_SKIPPED", &list)
        .output()
        .expect("run lint.sh");
    let skipped = fs::read_to_string(&list).expect("read the list");
    fs::remove_dir_all(&folder).expect("remove the folder");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for tool in ["rustfmt: ", "clippy, rustdoc: "] {
        assert!(skipped.lines().any(|line| line.starts_with(tool)), "{tool}is not among what was left out:\n{skipped}");
    }
}

#[test]
fn a_library_of_clang_that_bindgen_cannot_use_is_not_taken_for_libclang() {
    let mut bash = Command::new("bash")
        .args(["-c", ". tests/common.sh && libclangs"])
        .current_dir(tree::root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("run bash");
    let found = "/usr/lib/llvm-14/lib/libclang.so.1\n\tlibclang-14.so.13 (libc6,x86-64) => /lib/libclang-14.so.13\n";
    let others =
        "/usr/lib/llvm-14/lib/libclang-cpp.so.14\n\tlibclang-cpp.so.14 (libc6,x86-64) => /lib/libclang-cpp.so.14\n";
    let mut input = bash.stdin.take().expect("a pipe");
    input.write_all(format!("{others}{found}/usr/lib/libLLVM-14.so.1\n").as_bytes()).expect("write to bash");
    drop(input);
    let output = bash.wait_with_output().expect("bash ends");
    assert_eq!(String::from_utf8_lossy(&output.stdout), found);
}
