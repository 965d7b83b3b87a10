//! Clipping against PyTorch's: `tests/fixtures/clipping.py` wrote the gradients.

use lapidary::{
    TensorMut,
    optim::{Norm, clip_norm, clip_value},
};
use serde::Deserialize;
use std::fs;

#[derive(Deserialize)]
struct Fixture {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    kind: String,
    limit: f64,
    norm: Option<f64>,
    before: Vec<Vec<f64>>,
    after: Vec<Vec<f64>>,
}

#[test]
fn clipped_gradients_are_those_of_pytorch() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/clipping.json");
    let fixture: Fixture = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(fixture.cases.len(), 12);
    let close = |a: f64, b: f64| (a - b).abs() <= 1e-14 * (1.0 + b.abs());
    for Case { kind, limit, norm, mut before, after } in fixture.cases {
        if kind == "value" {
            before.iter_mut().for_each(|gradient| clip_value(gradient, limit).unwrap());
        } else {
            let measure = if kind == "l2" { Norm::L2 } else { Norm::Max };
            let mut gradients: Vec<_> = before.iter_mut().map(TensorMut::from).collect();
            let got = clip_norm(&mut gradients, limit, measure).unwrap();
            assert!(close(got, norm.unwrap()), "{kind} {limit}: norm {got} for {norm:?}");
        }
        for (got, want) in before.iter().flatten().zip(after.iter().flatten()) {
            assert!(close(*got, *want), "{kind} {limit}: {got} for {want}");
        }
    }
}
