//! What goes on around the optimizers, against PyTorch's and optax's: `tests/fixtures/around.py` wrote the values.

use lapidary::{
    Optimizer, OptimizerExt, Step,
    optim::{Ema, Lookahead, Params, Plateau, Scaler, Sgd, StepOptions, Update},
};
use serde::Deserialize;
use std::{collections::BTreeMap, fs};

#[derive(Deserialize)]
struct Fixture {
    plateau: BTreeMap<String, Watched>,
    scaler: Vec<Scaled>,
    ema: Vec<Averaged>,
    lookahead: Vec<Averaged>,
}

#[derive(Deserialize)]
struct Watched {
    losses: Vec<Option<f64>>,
    rates: Vec<f64>,
}

#[derive(Deserialize)]
struct Scaled {
    bad: bool,
    scale: f64,
    param: [f32; 2],
}

#[derive(Deserialize)]
struct Averaged {
    param: [f32; 3],
    average: [f32; 3],
}

fn fixture() -> Fixture {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/around.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn near(got: &[f32], want: &[f32]) -> bool {
    got.iter().zip(want).all(|(g, w)| (g - w).abs() <= 1e-6 * w.abs().max(1.0))
}

#[test]
fn plateaus() {
    let fixture = fixture().plateau;
    assert_eq!(fixture.len(), 3);
    for (name, Watched { losses, rates }) in fixture {
        let plateau = Plateau::new(0.5).unwrap();
        let mut plateau = match name.as_str() {
            "default" => plateau.with_patience(3),
            "cooldown" => {
                let plateau = plateau.with_factor(0.3).unwrap().with_patience(2).with_cooldown(4);
                plateau.with_relative_threshold(0.05).unwrap().with_least(0.004).unwrap()
            }
            "absolute" => {
                let plateau = plateau.with_factor(0.5).unwrap().with_patience(1);
                plateau.with_absolute_threshold(0.02).unwrap().with_eps(0.01).unwrap()
            }
            other => panic!("unknown plateau {other}"),
        };
        assert!(rates.last() < rates.first());
        for (i, (loss, want)) in losses.into_iter().zip(rates).enumerate() {
            let got = plateau.observe(loss.unwrap_or(f64::NAN));
            assert!((got - want).abs() <= 1e-15, "{name} at {i}: {got} for {want}");
        }
    }
}

#[test]
fn scaled_losses() {
    let mut scaler = Scaler::new(1024.0).unwrap().with_growth(4.0).unwrap().with_backoff(0.25).unwrap();
    scaler = scaler.with_interval(3).unwrap();
    let mut params = Params::new();
    let group = params.group(Sgd::new(0.25).unwrap());
    params.add("p", &[2], group).unwrap();
    let mut p = [0f32; 2];
    for Scaled { bad, scale, param } in fixture().scaler {
        let factor = if bad { f32::INFINITY } else { scaler.scale() as f32 };
        let gradient = [2.0 * (p[0] - 1.0) * factor, 2.0 * (p[1] + 2.0) * factor];
        let options = StepOptions::new().scaler(&mut scaler);
        let outcome = params.step_with(&mut [Update::new(&mut p, &gradient)], options).unwrap();
        assert_eq!((outcome.skipped, scaler.scale()), (bad, scale));
        assert!(near(&p, &param), "{p:?} for {param:?}");
    }
}

fn averages(optimizer: &dyn Optimizer<f32>, rows: Vec<Averaged>) {
    let mut p = [0.5f32, -1.0, 2.0];
    let mut state = optimizer.init(&p).unwrap();
    assert_eq!(rows.len(), 20);
    for (i, Averaged { param, average }) in rows.into_iter().enumerate() {
        optimizer.step(Step::new(&mut p, &[1.0, -0.5, 0.1 * i as f32], &mut state)).unwrap();
        let mut out = [0f32; 3];
        optimizer.evaluate((&p).into(), &state, (&mut out).into()).unwrap();
        assert!(near(&p, &param), "{i}: {p:?} for {param:?}");
        assert!(near(&out, &average), "{i}: {out:?} for {average:?}");
    }
}

#[test]
fn averaged_weights() {
    let sgd = Sgd::new(0.1).unwrap();
    averages(&Ema::new(sgd, 0.9).unwrap(), fixture().ema);
    averages(&Lookahead::new(sgd, 3, 0.4).unwrap(), fixture().lookahead);
}
