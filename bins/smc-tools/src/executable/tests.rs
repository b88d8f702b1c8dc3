use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

/// A directory of its own that goes away with this value.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("softrdma-executable-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, contents: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, contents).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A program without code: header, one program header (`loader`, if there is one), sections with `names`.
fn program(loader: Option<&str>, names: &[&str]) -> Vec<u8> {
    let mut strings = vec![0];
    let mut name_offsets = vec![0];
    for name in names.iter().chain(&[".shstrtab"]) {
        name_offsets.push(strings.len() as u32);
        strings.extend_from_slice(name.as_bytes());
        strings.push(0);
    }
    let mut path = loader.unwrap_or_default().as_bytes().to_vec();
    path.push(0);
    let path_at: u64 = 64 + 56;
    let strings_at = path_at + path.len() as u64;
    let sections_at = strings_at + strings.len() as u64;
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    [2_u16, 62].iter().for_each(|half| file.extend(half.to_le_bytes()));
    file.extend(1_u32.to_le_bytes());
    [0, 64, sections_at].iter().for_each(|word: &u64| file.extend(word.to_le_bytes()));
    file.extend(0_u32.to_le_bytes());
    let count = name_offsets.len() as u16;
    [64, 56, 1, 64, count, count - 1].iter().for_each(|half: &u16| file.extend(half.to_le_bytes()));
    // PT_INTERP, or PT_NOTE where there is no loader.
    [if loader.is_some() { 3 } else { 4 }, 4].iter().for_each(|word: &u32| file.extend(word.to_le_bytes()));
    let length = path.len() as u64;
    [path_at, 0, 0, length, length, 1].iter().for_each(|word| file.extend(word.to_le_bytes()));
    file.extend(path);
    file.extend(&strings);
    for (index, name) in name_offsets.iter().enumerate() {
        let kind: u32 = match index {
            0 => 0,
            // SHT_STRTAB, SHT_PROGBITS.
            last if last == name_offsets.len() - 1 => 3,
            _ => 1,
        };
        [*name, kind].iter().for_each(|word| file.extend(word.to_le_bytes()));
        let size = strings.len() as u64 * u64::from(kind == 3);
        [0, 0, strings_at, size, 0, 1, 0].iter().for_each(|word: &u64| file.extend(word.to_le_bytes()));
    }
    file
}

fn bypass(path: &Path) -> Option<Bypass> {
    inspect(path.as_os_str()).expect("understood").bypass
}

#[test]
fn ordinary_programs_are_served() {
    let scratch = Scratch::new("ordinary");
    assert_eq!(bypass(&env::current_exe().unwrap()), None);
    assert_eq!(bypass(Path::new("sh")), None, "found in PATH");
    let glibc = program(Some("/lib64/ld-linux-x86-64.so.2"), &[".text"]);
    assert_eq!(bypass(&scratch.file("glibc", &glibc)), None);
}

#[test]
fn programs_that_do_not_ask_libc_are_left_alone() {
    let scratch = Scratch::new("alone");
    assert_eq!(bypass(&scratch.file("static", &program(None, &[".text"]))), Some(Bypass::Static));
    let go = program(None, &[".text", ".note.go.buildid"]);
    assert_eq!(bypass(&scratch.file("go", &go)), Some(Bypass::Go));
    let with_libc = program(Some("/lib64/ld-linux-x86-64.so.2"), &[".go.buildinfo"]);
    assert_eq!(bypass(&scratch.file("cgo", &with_libc)), Some(Bypass::Go));
    let musl = program(Some("/lib/ld-musl-x86_64.so.1"), &[".text"]);
    assert_eq!(bypass(&scratch.file("musl", &musl)), Some(Bypass::OtherLoader("/lib/ld-musl-x86_64.so.1".into())));
}

#[test]
fn programs_of_other_machines_are_left_alone() {
    let scratch = Scratch::new("foreign");
    let mut other = program(Some("/lib/ld-linux-aarch64.so.1"), &[".text"]);
    other[18] = 183;
    assert!(matches!(bypass(&scratch.file("arm", &other)), Some(Bypass::Foreign(_))));
    other[4] = 1;
    assert!(matches!(bypass(&scratch.file("small", &other)), Some(Bypass::Foreign(_))));
}

#[test]
fn programs_that_get_privileges_are_left_alone() {
    let scratch = Scratch::new("privileged");
    let path = scratch.file("program", &program(Some("/lib64/ld-linux-x86-64.so.2"), &[".text"]));
    // Of the own user the bit changes nothing.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4755)).unwrap();
    assert_eq!(bypass(&path), None);
    let mut metadata = fs::metadata(&path).unwrap();
    assert!(!is_privileged(&path, &metadata));
    if rustix::process::geteuid().is_root() {
        for (mode, owner, group, expected) in [
            (0o4755, 65534, 0, true),
            (0o2755, 0, 65534, true),
            (0o2745, 0, 65534, false),
            (0o755, 65534, 65534, false),
        ] {
            std::os::unix::fs::chown(&path, Some(owner), Some(group)).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            metadata = fs::metadata(&path).unwrap();
            assert_eq!(is_privileged(&path, &metadata), expected, "{mode:o} {owner} {group}");
            assert_eq!(bypass(&path).is_some(), expected);
        }
    }
}

#[test]
fn a_script_is_what_its_interpreter_is() {
    let scratch = Scratch::new("script");
    let alone = scratch.file("static", &program(None, &[]));
    let script = scratch.file("script", format!("#! {} -x\necho", alone.display()).as_bytes());
    let outer = scratch.file("outer", format!("#!{}\n", script.display()).as_bytes());
    assert_eq!(bypass(&outer), Some(Bypass::Static));
    assert_eq!(bypass(&scratch.file("shell", b"#!/bin/sh\nexit 0\n")), None);
    let endless = scratch.0.join("endless");
    scratch.file("endless", format!("#!{}\n", endless.display()).as_bytes());
    assert_eq!(inspect(endless.as_os_str()), None);
}

#[test]
fn what_is_no_program_is_the_kernels_to_judge() {
    let scratch = Scratch::new("nothing");
    for contents in [&b""[..], b"#!", b"#!\n", b"\x7fEL", b"plain text", &program(None, &[".text"])[..80]] {
        let path = scratch.file("file", contents);
        assert_eq!(inspect(path.as_os_str()), None, "{contents:?}");
    }
    assert_eq!(inspect(OsStr::new("/nonexistent")), None);
    assert_eq!(inspect(OsStr::new("surely-there-is-no-such-program")), None);
    assert_eq!(inspect(OsStr::new("/")), None);
}

#[test]
fn damaged_programs_do_no_harm() {
    let scratch = Scratch::new("damaged");
    let whole = program(Some("/lib64/ld-linux-x86-64.so.2"), &[".text", ".dynamic"]);
    for at in 16..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] = 0xff;
        let path = scratch.file("damaged", &damaged);
        let _ = inspect(path.as_os_str());
        let _ = check_library(&path);
    }
}

#[test]
fn a_library_is_something_that_can_be_loaded() {
    let scratch = Scratch::new("library");
    let mut library = program(None, &[]);
    assert!(check_library(&scratch.file("program", &library)).is_err(), "a program at a fixed address");
    library[16] = 3;
    check_library(&scratch.file("library", &library)).unwrap();
    assert!(check_library(&scratch.file("short", &library[..63])).is_err());
    assert!(
        check_library(&scratch.file("text", b"INPUT(libsoftrdma_smc.so) and more than sixty-three bytes of text here"))
            .is_err()
    );
    assert!(check_library(Path::new("/")).is_err());
}
