use super::*;

#[test]
fn a_child_of_fork_leaves_the_file_to_its_parent() {
    let path = std::env::temp_dir().join(format!("smc-file-{}", std::process::id()));
    let socket = new_socket(SocketType::DGRAM).unwrap();
    let file = File::bind(&path, &socket).unwrap();
    let inode = file.inode;
    drop(File { path: path.clone(), inode, maker: Pid::INIT });
    assert!(path.exists(), "another process has made it");
    drop(file);
    assert!(!path.exists());
}

#[test]
fn the_hash_is_the_known_one() {
    // Test vectors of its authors.
    assert_eq!(hash(b""), 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);
    assert_eq!(hash(b"a"), 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
    assert_eq!(hash(b"foobar"), 0x343e_1662_793c_64bf_6f0d_3597_ba44_6f18);
}
