//! The ledger against a naive model: the same random lives through both, and every answer compared.
#![expect(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]
#![expect(clippy::panic, reason = "a test that found a difference says so")]

mod kvm;
mod naive;
mod rerun;
mod rules;
mod snapshot;
mod steps;
mod transitions;
mod twins;
mod walk;

use std::{cell::RefCell, collections::BTreeMap};

use proptest::{
    prelude::*,
    test_runner::{Config, TestError, TestRunner},
};
use septwatch_common::Violation;
use twins::{Mutation, Twins};

/// Operations of one run.
const OPERATIONS: u64 = if cfg!(debug_assertions) { 50_000 } else { 1_000_000 };

/// What two that agree have been through.
#[derive(Debug, Default)]
struct Lived {
    operations: u64,
    violations: BTreeMap<Violation, u64>,
}

/// Random lives until `operations` are done, or the twins differ: then the shortest such life.
fn run(operations: u64, noise: u32, mutation: Option<Mutation>) -> Result<Lived, String> {
    const STEPS: usize = 160;
    let lived = RefCell::new(Lived::default());
    let life = prop::collection::vec(steps::step(noise, 0.01), 1..STEPS);
    let setting = (life, any::<bool>());
    // How long a life gets is random, and so is how many there must be.
    while lived.borrow().operations < operations {
        let config =
            Config { cases: 64, failure_persistence: None, max_shrink_iters: 4096, ..Config::default() };
        let result = TestRunner::new(config).run(&setting, |(life, premap_exempt)| {
            let mut twins = Twins::new(premap_exempt, mutation);
            let compared = twins.live(&life);
            let lived = &mut *lived.borrow_mut();
            lived.operations += twins.operations;
            for (violation, count) in twins.violations {
                *lived.violations.entry(violation).or_default() += count;
            }
            compared.map_err(TestCaseError::fail)
        });
        match result {
            Ok(()) => {}
            Err(TestError::Fail(why, (life, premap_exempt))) => {
                return Err(format!("{why}\nafter (premap_exempt {premap_exempt}) {life:#?}"));
            }
            Err(why) => return Err(why.to_string()),
        }
    }
    Ok(lived.into_inner())
}

fn agree(noise: u32) {
    let lived = run(OPERATIONS, noise, None).unwrap_or_else(|why| panic!("{why}"));
    assert!(lived.operations >= OPERATIONS, "{lived:?}");
    println!("noise {noise}: {lived:?}");
    // A ledger that finds nothing agrees with lives in which nothing is wrong: there was enough of everything.
    for violation in &Violation::ALL[..=Violation::TeardownLeak as usize] {
        let count = lived.violations.get(violation).copied().unwrap_or(0);
        assert!(count >= OPERATIONS / 5_000, "{count} times {}", violation.name());
    }
}

#[test]
fn ledger_and_naive_model_agree_on_plausible_lives() {
    agree(1);
}

#[test]
fn ledger_and_naive_model_agree_on_noise() {
    agree(60);
}

/// The comparison can fail: each of these breaks one rule of the ledger, and is found soon.
#[test]
fn a_broken_rule_is_found() {
    const SOON: u64 = 20_000;
    for mutation in Mutation::ALL {
        match run(SOON, 10, Some(mutation)) {
            Ok(lived) => panic!("{mutation:?} was not found: {lived:?}"),
            Err(why) => assert!(why.contains("expected"), "a difference: {why}"),
        }
    }
}

/// Lives in which nothing goes wrong, whatever is BUSY in between: no verdict, and nothing is left of any zap.
#[test]
fn clean_lives_leave_nothing_behind() {
    const LIVES: u32 = if cfg!(debug_assertions) { 200 } else { 2_000 };
    let life = prop::collection::vec(steps::clean_step(), 1..160);
    let config = Config { cases: LIVES, failure_persistence: None, ..Config::default() };
    let lived = TestRunner::new(config).run(&life, |life| {
        let mut twins = Twins::new(false, None);
        twins.live(&life).map_err(TestCaseError::fail)?;
        prop_assert!(twins.violations.is_empty(), "{:?}", twins.violations);
        prop_assert_eq!((twins.ledger.zaps().count(), twins.ledger.windows().count()), (0, 0));
        Ok(())
    });
    lived.unwrap_or_else(|why| panic!("{why}"));
}
