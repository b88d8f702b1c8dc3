//! The scripts that run the tests.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

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
