//! Finds the system's DPDK, binds the part of it that softrdma calls, and compiles the shim around its inline functions.

use std::env;
use std::path::{Path, PathBuf};
use std::process::exit;

/// What goes into the error message when something is missing.
const HOW_TO_INSTALL: &str = "On Debian or Ubuntu: apt-get install libdpdk-dev libclang-dev clang pkg-config. \
     DPDK elsewhere: set PKG_CONFIG_PATH to the folder of its libdpdk.pc. \
     Without DPDK, build the workspace's default members (plain `cargo build`): only the dpdk packages need it.";

/// Libraries that the bindings call. Drivers are plugins, which the EAL loads by itself.
const LIBRARIES: [&str; 4] = ["rte_ethdev", "rte_mbuf", "rte_mempool", "rte_eal"];

fn main() {
    println!("cargo::rerun-if-changed=shim/shim.c");
    println!("cargo::rerun-if-changed=shim/shim.h");

    let mut query = pkg_config::Config::new();
    query.atleast_version("22.11").cargo_metadata(false).print_system_libs(false);
    let dpdk = match query.probe("libdpdk") {
        Ok(library) => library,
        Err(error) => give_up(&format!(
            "DPDK 22.11 or later (libdpdk) was not found by pkg-config: {}",
            first_line(&error.to_string())
        )),
    };
    for path in &dpdk.link_paths {
        println!("cargo::rustc-link-search=native={}", path.display());
    }
    for library in LIBRARIES {
        println!("cargo::rustc-link-lib=dylib={library}");
    }

    let target_flags = target_flags();
    compile_shim(&dpdk.include_paths, &target_flags);
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    bind(&dpdk.include_paths, &target_flags, &out.join("bindings.rs"));
}

/// The flags that pkg-config's crate does not hand on: DPDK's headers want their configuration included first, and the
/// instruction set DPDK itself was built for.
fn target_flags() -> Vec<String> {
    let architecture = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets CARGO_CFG_TARGET_ARCH");
    if architecture != "x86_64" {
        give_up(&format!("softrdma runs on x86-64, not on {architecture}"));
    }
    ["-include", "rte_config.h", "-march=corei7"].map(String::from).to_vec()
}

fn compile_shim(include_paths: &[PathBuf], flags: &[String]) {
    let mut build = cc::Build::new();
    // Always optimised: an inline function that is called out of line costs a debug build its line rate.
    build.file("shim/shim.c").includes(include_paths).opt_level(3).warnings(false);
    for flag in flags {
        build.flag(flag);
    }
    build.compile("softrdma_dpdk_shim");
}

fn bind(include_paths: &[PathBuf], flags: &[String], to: &Path) {
    let includes = include_paths.iter().map(|path| format!("-I{}", path.display()));
    let bindings = std::panic::catch_unwind(|| {
        bindgen::Builder::default()
            .header("shim/shim.h")
            .clang_args(includes.chain(flags.iter().cloned()))
            .allowlist_function("rte_eal_(init|process_type)")
            .allowlist_function("rte_eth_dev_(configure|start|stop|close|info_get|get_port_by_name|set_mtu|get_mtu|is_valid_port|count_avail|rx_intr_ctl_q_get_fd)")
            .allowlist_function("rte_eth_(rx|tx)_queue_setup")
            .allowlist_function("rte_eth_(link_get_nowait|macaddr_get|stats_get|promiscuous_enable|allmulticast_enable|dev_socket_id)")
            .allowlist_function("rte_dev_(probe|remove)")
            .allowlist_function("rte_lcore_count|rte_thread_(register|unregister)")
            .allowlist_function("rte_pktmbuf_pool_create_by_ops|rte_mempool_(avail_count|free)")
            .allowlist_function("rte_log_(set_global_level|set_level_pattern|cur_msg_loglevel)|rte_openlog_stream")
            .allowlist_function("rte_intr_(instance_alloc|instance_free|fd_set|type_set|callback_register)")
            .allowlist_function("rte_version|rte_strerror")
            .allowlist_function("softrdma_.*")
            .allowlist_type("rte_mbuf|rte_mempool|rte_eth_(conf|dev_info|link|stats|rxconf|txconf)|rte_intr_handle_type")
            .allowlist_var("RTE_PKTMBUF_HEADROOM|RTE_LOG_.*|SOFTRDMA_.*")
            // Types that are packed and aligned at once, which Rust cannot express; they are only ever named behind pointers.
            .opaque_type("rte_arp_.*|rte_ipv4_hdr|rte_ipv6_hdr|rte_tcp_hdr|rte_gtp_.*|rte_l2tpv2_.*|rte_flow_.*")
            .default_enum_style(bindgen::EnumVariation::ModuleConsts)
            .derive_default(true)
            .layout_tests(false)
            .generate_comments(false)
            .merge_extern_blocks(true)
            .wrap_unsafe_ops(true)
            .generate()
    });
    match bindings {
        Ok(Ok(bindings)) => bindings.write_to_file(to).expect("OUT_DIR can be written"),
        Ok(Err(error)) => give_up(&format!("DPDK's headers cannot be bound: {error}")),
        Err(_) => give_up("bindgen cannot work here: is libclang installed?"),
    }
}

fn first_line(text: &str) -> &str {
    text.lines().find(|line| !line.trim().is_empty()).unwrap_or("no reason given").trim()
}

fn give_up(reason: &str) -> ! {
    println!("cargo::error={reason}. {HOW_TO_INSTALL}");
    exit(1)
}
