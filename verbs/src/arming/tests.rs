use super::Arming;

#[test]
fn an_arming_gives_one_notice() {
    let arming = Arming::default();
    assert!(!arming.is_due(true), "not armed");
    arming.arm(false);
    assert!(arming.is_due(false));
    assert!(!arming.is_due(false), "it was used up");
}

#[test]
fn armed_for_solicited_it_waits_for_a_solicited_one() {
    let arming = Arming::default();
    arming.arm(true);
    assert!(!arming.is_due(false));
    assert!(arming.is_due(true));
    assert!(!arming.is_due(true));
}

#[test]
fn arming_for_solicited_does_not_weaken_arming_for_any() {
    let arming = Arming::default();
    arming.arm(false);
    arming.arm(true);
    assert!(arming.is_due(false));
    arming.arm(true);
    arming.arm(false);
    assert!(arming.is_due(false));
}
