//! A few hundred seeds of the simulation. `make soak` runs tens of thousands.

use softrdma_verbs::Scheme;

#[test]
fn two_hosts_agree_on_every_byte_whatever_the_wire_does() {
    agree(Scheme::Sequential);
}

#[test]
fn two_hosts_agree_on_every_byte_with_one_copy_whatever_the_wire_does() {
    agree(Scheme::Softrdma);
}

fn agree(scheme: Scheme) {
    let mut requests = 0;
    for seed in 0..300 {
        match softrdma_tests::simulation::run(seed, scheme) {
            Ok(report) => requests += report.requests,
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
    assert!(requests > 10_000, "{requests} requests are too few to mean anything");
}
