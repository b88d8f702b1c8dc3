use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Policy {
    Policy::parse(text).unwrap_or_else(|error| panic!("{error}"))
}

fn query<'query>(program: &'query str, role: Role, address: &str) -> Query<'query> {
    Query { program, role, address: address.parse().unwrap() }
}

fn decide(policy: &Policy, program: &str, role: Role, address: &str) -> Action {
    policy.decide(&query(program, role, address))
}

#[test]
fn without_rules_what_is_near_may_and_what_is_public_stays_tcp() {
    let policy = Policy::default();
    for near in [
        "127.0.0.1:1",
        "10.1.2.3:1",
        "172.16.0.1:1",
        "192.168.1.1:1",
        "169.254.1.1:1",
        "[::1]:1",
        "[fd00::1]:1",
        "[fe80::1]:1",
        "[::ffff:127.0.0.1]:1",
    ] {
        assert_eq!(decide(&policy, "any", Role::Client, near), Action::SmcD, "{near}");
    }
    for public in ["8.8.8.8:1", "172.32.0.1:1", "[2001:db8::1]:1", "[::ffff:8.8.8.8]:1"] {
        assert_eq!(decide(&policy, "any", Role::Client, public), Action::Tcp, "{public}");
    }
}

#[test]
fn the_first_rule_that_fits_decides() {
    let policy = parse(
        r#"
        [[rule]]
        program = "redis-*"
        role = "server"
        port = 6379
        action = "require"

        [[rule]]
        program = "redis-*"
        action = "tcp"

        [[rule]]
        address = "8.8.0.0/16"
        port = "8000-8999"
        action = "smc-d"

        [[rule]]
        role = "client"
        address = "::1"
        action = "tcp"
        "#,
    );
    assert_eq!(decide(&policy, "redis-server", Role::Server, "127.0.0.1:6379"), Action::Require);
    assert_eq!(decide(&policy, "redis-server", Role::Server, "127.0.0.1:6380"), Action::Tcp);
    assert_eq!(decide(&policy, "redis-server", Role::Client, "127.0.0.1:6379"), Action::Tcp);
    assert_eq!(decide(&policy, "my-redis-server", Role::Client, "127.0.0.1:6379"), Action::SmcD);
    assert_eq!(decide(&policy, "nginx", Role::Server, "8.8.4.4:8000"), Action::SmcD);
    assert_eq!(decide(&policy, "nginx", Role::Server, "[::ffff:8.8.4.4]:8999"), Action::SmcD);
    assert_eq!(decide(&policy, "nginx", Role::Server, "8.8.4.4:9000"), Action::Tcp);
    assert_eq!(decide(&policy, "nginx", Role::Client, "[::1]:80"), Action::Tcp);
    assert_eq!(decide(&policy, "nginx", Role::Server, "[::1]:80"), Action::SmcD);
}

#[test]
fn a_listener_at_all_addresses_may_accept_what_no_rule_excludes() {
    let any = "0.0.0.0:80".parse().unwrap();
    assert!(Policy::default().may_accept("nginx", any));
    assert!(!Policy::default().may_accept("nginx", "8.8.8.8:80".parse().unwrap()));
    let some = parse("rule = [{ address = \"127.0.0.0/8\", action = \"tcp\" }]");
    assert!(some.may_accept("nginx", any), "private networks are left");
    assert!(!some.may_accept("nginx", "127.0.0.1:80".parse().unwrap()));
    let all = parse("rule = [{ program = \"nginx\", action = \"tcp\" }, { action = \"smc-d\" }]");
    assert!(!all.may_accept("nginx", any) && !all.may_accept("nginx", "[::]:80".parse().unwrap()));
    assert!(all.may_accept("redis-server", any));
}

#[test]
fn settings_are_read_in_the_forms_that_people_write() {
    let policy = parse(
        r#"
        upgrade_after = 0
        ring_bytes = "512K"
        max_ring_memory = 1073741824
        spin_us = 5
        rendezvous_directory = "/run/softrdma"
        isolation_domain = "web"
        verbose = true
        "#,
    );
    assert_eq!((policy.upgrade_after, policy.ring_bytes, policy.spin_us), (0, RingBytes::MAX, 5));
    assert_eq!((policy.max_ring_memory, policy.verbose), (1 << 30, true));
    assert_eq!(policy.rendezvous_directory.as_deref(), Some(Path::new("/run/softrdma")));
    policy.checked().unwrap();
    assert_eq!(parse("ring_bytes = 16384").ring_bytes, RingBytes::MIN);
    assert_eq!(parse("max_ring_memory = \"2G\"").max_ring_memory, 2 << 30);
}

#[test]
fn what_is_not_understood_is_named_with_its_line_and_what_is_allowed() {
    for (text, parts) in [
        ("upgrade_after = 1\nspin = 3\n", &["line 2", "`spin`", "`spin_us`", "`verbose`"][..]),
        ("\n[[rule]]\nprogramm = \"x\"\naction = \"tcp\"", &["line 3", "`programm`", "`program`", "`port`"]),
        ("[[rule]]\naction = \"smc-x\"", &["line 2", "`smc-x`", "`smc-d`", "`require`"]),
        ("[[rule]]\nprogram = \"x\"", &["line 1", "`action`"]),
        ("[[rule]]\nrole = \"peer\"\naction = \"tcp\"", &["line 2", "`peer`", "`client`", "`server`", "`both`"]),
        ("[[rule]]\nport = 70000\naction = \"tcp\"", &["line 2", "'70000'", "1 to 65535"]),
        ("[[rule]]\nport = \"9-8\"\naction = \"tcp\"", &["line 2", "'9-8'", "8000-8999"]),
        ("[[rule]]\naddress = \"localhost\"\naction = \"tcp\"", &["line 2", "'localhost'", "127.0.0.0/8"]),
        ("[[rule]]\nprogram = \"/bin/x\"\naction = \"tcp\"", &["line 2", "without directories"]),
        ("[[rule]]\nprogram = \"[\"\naction = \"tcp\"", &["line 2", "no pattern"]),
        ("ring_bytes = 65537", &["line 1", "'65537'", "16K to 512K"]),
        ("ring_bytes = \"1M\"", &["line 1", "'1M'", "16K to 512K"]),
        ("max_ring_memory = -1", &["line 1", "'-1'"]),
        ("max_ring_memory = \"99999999999G\"", &["line 1", "no number of bytes"]),
        ("upgrade_after = -1", &["line 1"]),
    ] {
        let error = Policy::parse(text).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "{part} is not in\n{error}");
        }
    }
}

#[test]
fn a_directory_needs_a_domain_and_both_must_make_sense() {
    for text in [
        "rendezvous_directory = \"/run/x\"",
        "isolation_domain = \"web\"",
        "rendezvous_directory = \"run/x\"\nisolation_domain = \"web\"",
        "rendezvous_directory = \"/run/x\"\nisolation_domain = \"\"",
        "rendezvous_directory = \"/run/x\"\nisolation_domain = \"a/b\"",
    ] {
        let error = parse(text).checked().unwrap_err().to_string();
        assert!(error.contains("go together"), "{error}");
    }
}

#[test]
fn the_environment_has_the_last_word() {
    let values = [
        ("SOFTRDMA_SMC_UPGRADE_AFTER", "4"),
        ("SOFTRDMA_SMC_RING_BYTES", "32K"),
        ("SOFTRDMA_SMC_MAX_RING_MEMORY", "1M"),
        ("SOFTRDMA_SMC_SPIN_US", "0"),
        ("SOFTRDMA_SMC_RENDEZVOUS_DIRECTORY", "/run/x"),
        ("SOFTRDMA_SMC_ISOLATION_DOMAIN", "web"),
        ("SOFTRDMA_SMC_VERBOSE", "1"),
        ("SOFTRDMA_SMC_ACTION", "require"),
    ];
    let mut policy = parse("upgrade_after = 7\nrule = [{ action = \"tcp\" }]");
    policy
        .override_from(|name| values.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
        .unwrap();
    assert_eq!((policy.upgrade_after, policy.ring_bytes.get(), policy.spin_us), (4, 32768, 0));
    assert_eq!((policy.max_ring_memory, policy.verbose), (1 << 20, true));
    assert_eq!(policy.isolation_domain.as_deref(), Some("web"));
    assert_eq!(decide(&policy, "any", Role::Client, "8.8.8.8:1"), Action::Require);

    for (name, value) in [
        ("SOFTRDMA_SMC_UPGRADE_AFTER", "soon"),
        ("SOFTRDMA_SMC_RING_BYTES", "17"),
        ("SOFTRDMA_SMC_MAX_RING_MEMORY", "x"),
        ("SOFTRDMA_SMC_SPIN_US", "-1"),
        ("SOFTRDMA_SMC_VERBOSE", "maybe"),
        ("SOFTRDMA_SMC_ACTION", "smc-r"),
    ] {
        let wrong = |asked: &str| (asked == name).then(|| value.to_owned());
        let error = Policy::default().override_from(wrong).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{name}={value}: ")), "{error}");
    }
}

#[test]
fn a_file_that_is_named_must_be_there_and_be_text() {
    let of = |path: &str| Policy::of_process(|name| (name == FILE_VARIABLE).then(|| path.to_owned()));
    let error = of("/nonexistent/policy.toml").unwrap_err().to_string();
    assert!(error.contains("/nonexistent/policy.toml"), "{error}");
    assert!(matches!(of("/proc/self/exe"), Err(PolicyError::NotText { .. })));
    assert!(matches!(of("/dev/zero"), Err(PolicyError::NotText { .. })));
    assert!(matches!(of("/"), Err(PolicyError::Read { .. })));
    assert_eq!(of("/dev/null").unwrap().upgrade_after, Policy::default().upgrade_after);
}

#[test]
fn the_sample_is_understood_and_says_what_holds_without_it() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/smc-policy.toml");
    let (sample, default) = (Policy::load(&path).unwrap(), Policy::default());
    assert_eq!(sample.upgrade_after, default.upgrade_after);
    assert_eq!(sample.ring_bytes, default.ring_bytes);
    assert_eq!(sample.max_ring_memory, default.max_ring_memory);
    assert_eq!(sample.spin_us, default.spin_us);
    assert_eq!(sample.verbose, default.verbose);
    assert_eq!(decide(&sample, "redis-server", Role::Server, "127.0.0.1:6379"), Action::SmcD);
    assert_eq!(decide(&sample, "sshd", Role::Server, "127.0.0.1:22"), Action::Tcp);
    // What is commented out is understood too.
    let text = std::fs::read_to_string(&path).unwrap();
    let enabled: String = text.lines().map(|line| line.strip_prefix("#: ").unwrap_or(line).to_owned() + "\n").collect();
    assert_ne!(enabled, text);
    parse(&enabled).checked().unwrap();
}

proptest! {
    #[test]
    fn any_text_is_a_policy_or_an_error(
        text in "(\\[\\[rule\\]\\]|[a-z_]{1,8} ?= ?|\"[0-9./:*\\[-]{0,9}\"|[0-9]{1,6}|\n){0,24}",
    ) {
        let _ = Policy::parse(&text);
    }

    #[test]
    fn ports_are_those_from_first_to_last(first in 1u16.., length in 0u16..2000, port: u16) {
        let last = first.saturating_add(length);
        let ports: Ports = format!("{first}-{last}").parse().unwrap();
        prop_assert_eq!(ports.contains(port), (first..=last).contains(&port));
    }
}

#[test]
fn a_capture_can_be_found_from_everywhere() {
    let with = |path: &'static str| {
        let mut policy = Policy::default();
        let set = policy.override_from(|name| (name == "SOFTRDMA_SMC_CAPTURE").then(|| path.to_owned()));
        set.map(|()| policy.capture)
    };
    assert_eq!(with("/tmp/smc-%p.pcap").unwrap(), Some("/tmp/smc-%p.pcap".into()));
    assert_eq!(with("").unwrap(), None);
    assert!(matches!(with("smc.pcap"), Err(PolicyError::Capture)));
    assert_eq!(Policy::parse("capture = \"/tmp/smc.pcap\"").unwrap().capture, Some("/tmp/smc.pcap".into()));
}
