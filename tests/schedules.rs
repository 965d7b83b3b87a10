//! Schedules against PyTorch's: `tests/fixtures/schedules.py` wrote the rates.

use lapidary::optim::Schedule;
use serde::Deserialize;
use std::{collections::BTreeMap, fs};

#[derive(Deserialize)]
struct Fixture {
    rates: BTreeMap<String, Vec<f64>>,
}

fn schedule(name: &str) -> lapidary::Result<Schedule> {
    match name {
        "step" => Schedule::step(0.5, 7, 0.3),
        "multi_step" => Schedule::multi_step(0.5, &[5, 20, 21], 0.4),
        "exponential" => Schedule::exponential(0.5, 0.93),
        "linear" => Schedule::linear(0.5, 0.25, 0.8, 30),
        "polynomial" => Schedule::polynomial(0.5, 40, 1.7),
        "cosine" => Schedule::cosine(0.5, 45, 0.01),
        "warm_restarts" => Schedule::warm_restarts(0.5, 6, 2, 0.02),
        "warm_restarts_even" => Schedule::warm_restarts(0.5, 9, 1, 0.0),
        "one_cycle" => Schedule::one_cycle(0.7, 61, 0.3, 25.0, 1e4),
        "one_cycle_late" => Schedule::one_cycle(0.7, 61, 0.45, 10.0, 50.0),
        "warm_up" => Schedule::cosine(0.5, 48, 0.0)?.with_warm_up(12, 0.1),
        other => panic!("unknown schedule {other}"),
    }
}

#[test]
fn rates_are_those_of_pytorch() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/schedules.json");
    let fixture: Fixture = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(fixture.rates.len(), 11);
    for (name, want) in fixture.rates {
        let schedule = schedule(&name).unwrap();
        for (k, want) in want.into_iter().enumerate() {
            let got = schedule.rate(k as u64);
            // PyTorch multiplies its rates from step to step; these are closed forms.
            assert!((got - want).abs() <= 1e-12, "{name} at {k}: {got} for {want}");
        }
    }
}
