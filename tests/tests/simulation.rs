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

#[test]
fn the_same_seeds_give_the_application_the_same_bytes_whatever_carries_them() {
    let mut bytes = 0;
    for seed in 1000..1100 {
        let run = |scheme| match softrdma_tests::simulation::run(seed, scheme) {
            Ok(report) => report.transcripts,
            Err(error) => panic!("seed {seed}, {scheme:?}: {error}"),
        };
        let (sequential, softrdma) = (run(Scheme::Sequential), run(Scheme::Softrdma));
        assert_eq!(sequential.len(), softrdma.len(), "seed {seed}");
        for (end, (left, right)) in sequential.iter().zip(&softrdma).enumerate() {
            // Not by assert_eq: nobody reads megabytes.
            let is_same = left.requests.iter().zip(&right.requests).position(|(left, right)| left != right);
            assert!(
                left == right,
                "seed {seed}, end {end}: differs from request {is_same:?} on, or in what was received"
            );
            bytes += left.requests.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
        }
    }
    assert!(bytes > 10_000_000, "{bytes} bytes are too few to mean anything");
}
