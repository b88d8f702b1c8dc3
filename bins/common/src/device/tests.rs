use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    device: DeviceArguments,
}

fn arguments(line: &str) -> DeviceArguments {
    Line::try_parse_from(std::iter::once("test").chain(line.split_whitespace())).unwrap().device
}

fn refusal(line: &str) -> String {
    arguments(line).plan(End::Client).unwrap_err().to_string()
}

#[test]
fn without_options_it_is_kernel_sockets() {
    let plan = arguments("").plan(End::Client).unwrap();
    assert_eq!(plan.config.scheme, Scheme::KernelSocket);
    assert_eq!(plan.fabric, Some(Fabric::Kernel));
    assert_eq!(plan.config.port, None);
}

#[test]
fn a_dpdk_fabric_or_port_means_softrdma() {
    assert_eq!(arguments("--fabric memif").scheme_and_fabric().unwrap(), (Scheme::Softrdma, Some(Fabric::Memif)));
    assert_eq!(arguments("--port net_null0").scheme_and_fabric().unwrap(), (Scheme::Softrdma, None));
    assert_eq!(
        arguments("--scheme sequential").scheme_and_fabric().unwrap(),
        (Scheme::Sequential, Some(Fabric::Memif))
    );
}

#[test]
fn what_is_not_in_this_version_says_so() {
    assert!(refusal("--scheme rnic").contains("not in this version"), "{}", refusal("--scheme rnic"));
}

#[test]
fn receive_and_transmit_threads_are_for_softrdma() {
    let text = refusal("--scheme kernel-socket --threads c3");
    assert!(text.contains("kernel-socket") && text.contains("softrdma"), "{text}");
}

#[test]
fn schemes_and_fabrics_that_do_not_go_together_are_refused_with_the_way_out() {
    assert!(refusal("--scheme kernel-socket --fabric memif").contains("--scheme softrdma"));
    assert!(refusal("--scheme sequential --fabric kernel").contains("--scheme kernel-socket"));
}

#[test]
fn options_of_ports_are_refused_for_kernel_sockets() {
    for line in ["--mtu 9000", "--checksum off", "--pcap x", "--address 10.0.0.1/24", "--gateway 10.0.0.1"] {
        assert!(refusal(line).contains("is for DPDK ports"), "{line}: {}", refusal(line));
    }
}

#[cfg(not(feature = "dpdk"))]
#[test]
fn a_dpdk_fabric_in_a_program_without_dpdk_says_how_to_build_it_in() {
    assert!(refusal("--fabric memif").contains("--features dpdk"), "{}", refusal("--fabric memif"));
}

#[cfg(feature = "dpdk")]
#[test]
fn the_two_ends_of_a_memif_meet_at_one_socket_in_different_roles() {
    let ends = [End::Server, End::Client].map(|end| arguments("--fabric memif --mtu 9000").plan(end).unwrap().config);
    let devices = ends.clone().map(|config| config.port.unwrap().device);
    let [PortDevice::Memif { role, socket, .. }, PortDevice::Memif { role: other_role, socket: other, .. }] = devices
    else {
        panic!("{devices:?}");
    };
    assert_eq!(socket, other);
    assert_ne!(role, other_role);
    assert_ne!(ends[0].addresses, ends[1].addresses);
    assert_eq!(ends[0].mtu, 9000);
}

#[cfg(feature = "dpdk")]
#[test]
fn threads_are_what_suits_the_scheme_unless_told() {
    let threads = |line: &str| arguments(line).plan(End::Server).unwrap().config.threads;
    assert_eq!(threads("--fabric memif"), Threads::C3);
    assert_eq!(threads("--fabric memif --threads c2"), Threads::C2);
    assert_eq!(threads("--scheme sequential"), Threads::C1);
    assert_eq!(threads("--scheme kernel-socket"), Threads::C1);
}

#[test]
fn options_reach_the_device() {
    let plan = arguments("--threads c2 --crc off --busy-poll --pin 3,1").plan(End::Server).unwrap();
    assert_eq!(plan.config.threads, Threads::C2);
    assert!(!plan.config.crc && plan.config.busy_poll);
    assert_eq!((plan.application_cpu, plan.config.stack_cpu), (Some(3), Some(1)));
}

#[test]
fn a_stack_thread_on_its_applications_cpu_has_none_of_its_own() {
    let cpus = |line: &str| {
        let plan = arguments(line).plan(End::Server).unwrap();
        (plan.application_cpu, plan.config.stack_cpu)
    };
    assert_eq!(cpus("--pin 1,1"), (Some(1), None));
    assert_eq!(cpus("--pin 1,1,0,0"), (Some(1), None));
    assert_eq!(cpus("--pin 1"), (Some(1), None));
    assert_eq!(cpus("--pin 1,0"), (Some(1), Some(0)));
}

#[test]
fn a_pci_address_is_told_from_a_device_in_dpdks_words() {
    assert_eq!(named_port("0000:3b:00.0"), PortDevice::Pci { address: "0000:3b:00.0".into() });
    assert_eq!(named_port("net_null0,size=64"), PortDevice::Dpdk { arguments: "net_null0,size=64".into() });
}

#[test]
fn a_plan_survives_its_way_to_another_process() {
    let plan = arguments("--threads c2").plan(End::Server).unwrap();
    let copy: DevicePlan = serde_json::from_str(&serde_json::to_string(&plan).unwrap()).unwrap();
    assert_eq!(copy.config, plan.config);
}
