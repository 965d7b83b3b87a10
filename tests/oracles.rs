//! Against independent implementations: PyTorch's optimizers and pruners, a reference of the min-max quantizer.
//!
//! Reads `tests/fixtures/oracles`, or the folder named by the environment variable `LAPIDARY_ORACLES`.

use flate2::read::GzDecoder;
use lapidary::{
    Element, Mask, Optimizer, OptimizerExt, Pruner, PrunerExt, QuantizerExt, Real, Result, Step, TensorRef, Values,
    optim::{Adagrad, Adam, AdamW, Sgd},
    prune::{Magnitude, Threshold},
    quant::MinMax,
};
use serde::{Deserialize, de::DeserializeOwned};
use std::{collections::BTreeMap, fs, io::Read, path::PathBuf};

#[derive(Deserialize)]
struct File {
    cases: Vec<serde_json::Value>,
}

/// The cases of a file that `wanted` picks.
fn cases<C: DeserializeOwned>(name: &str, wanted: impl Fn(&serde_json::Value) -> bool) -> Vec<C> {
    let text = match std::env::var_os("LAPIDARY_ORACLES") {
        Some(dir) => fs::read_to_string(PathBuf::from(dir).join(format!("{name}.json"))).unwrap(),
        None => {
            let path = format!("{}/tests/fixtures/oracles/{name}.json.gz", env!("CARGO_MANIFEST_DIR"));
            let mut text = String::new();
            GzDecoder::new(fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
            text
        }
    };
    let all = serde_json::from_str::<File>(&text).unwrap().cases;
    all.into_iter().filter(wanted).map(|case| serde_json::from_value(case).unwrap()).collect()
}

/// Prints the line of a kind; fails when it has no case or one is off.
fn report(kind: &str, outcomes: &[Option<String>]) {
    let wrong: Vec<&String> = outcomes.iter().flatten().collect();
    println!("oracle {kind}: {} compared, {} within tolerance", outcomes.len(), outcomes.len() - wrong.len());
    assert!(!outcomes.is_empty(), "no case of {kind}");
    assert!(wrong.is_empty(), "{kind}: {}", wrong[0]);
}

#[derive(Deserialize)]
struct Trajectory {
    optimizer: String,
    config: BTreeMap<String, serde_json::Value>,
    dtype: String,
    init: Vec<f64>,
    grads: Vec<Vec<f64>>,
    params: Vec<Vec<f64>>,
    state: BTreeMap<String, Vec<f64>>,
}

impl Trajectory {
    fn optimizer<T: Element>(&self) -> Result<Box<dyn Optimizer<T>>> {
        let number = |key: &str, default: f64| self.config.get(key).map_or(default, |value| value.as_f64().unwrap());
        let flag = |key: &str| self.config.get(key).is_some_and(|value| value.as_bool().unwrap());
        let known: &[&str] = match self.optimizer.as_str() {
            "sgd" => &["lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize"],
            "adagrad" => &["lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps", "maximize"],
            _ => &["lr", "betas", "eps", "weight_decay", "amsgrad", "maximize"],
        };
        assert!(self.config.keys().all(|key| known.contains(&key.as_str())), "{:?}", self.config);
        let betas = self.config.get("betas").map_or((0.9, 0.999), |b| (b[0].as_f64().unwrap(), b[1].as_f64().unwrap()));
        macro_rules! adam {
            ($adam:expr, $decay:expr) => {{
                let adam = $adam?.with_betas(betas.0, betas.1)?.with_eps(number("eps", 1e-8))?;
                let adam = adam.with_weight_decay(number("weight_decay", $decay))?;
                let adam = if flag("amsgrad") { adam.with_amsgrad() } else { adam };
                Box::new(if flag("maximize") { adam.with_maximize() } else { adam })
            }};
        }
        Ok(match self.optimizer.as_str() {
            "sgd" => {
                let sgd = Sgd::new(number("lr", 1e-3))?;
                let momentum = number("momentum", 0.0);
                let sgd =
                    sgd.with_dampening(number("dampening", 0.0))?.with_weight_decay(number("weight_decay", 0.0))?;
                let sgd = if flag("nesterov") { sgd.with_nesterov(momentum)? } else { sgd.with_momentum(momentum)? };
                Box::new(if flag("maximize") { sgd.with_maximize() } else { sgd })
            }
            "adagrad" => {
                let adagrad = Adagrad::new(number("lr", 1e-2))?.with_learning_rate_decay(number("lr_decay", 0.0))?;
                let adagrad = adagrad.with_weight_decay(number("weight_decay", 0.0))?.with_eps(number("eps", 1e-10))?;
                let adagrad = adagrad.with_initial_accumulator(number("initial_accumulator_value", 0.0))?;
                Box::new(if flag("maximize") { adagrad.with_maximize() } else { adagrad })
            }
            "adam" => adam!(Adam::new(number("lr", 1e-3)), 0.0),
            _ => adam!(AdamW::new(number("lr", 1e-3)), 1e-2),
        })
    }

    /// What is wrong, if anything: parameters within `4 eps * sum over steps of max(largest |p| so far, lr)`, element by
    /// element; the final state within the same of its own sizes.
    fn compare<T: Real>(&self) -> Option<String> {
        let optimizer = self.optimizer::<T>().unwrap();
        let eps = Element::to_f64(T::epsilon());
        let lr = optimizer.learning_rate();
        let mut param: Vec<T> = self.init.iter().map(|&x| T::from_f64(x)).collect();
        let mut state = optimizer.init(&param).unwrap();
        let mut largest: Vec<f64> = self.init.iter().map(|x| x.abs()).collect();
        let mut allowed = vec![0.0; param.len()];
        for (step, (grad, want)) in self.grads.iter().zip(&self.params).enumerate() {
            let grad: Vec<T> = grad.iter().map(|&x| T::from_f64(x)).collect();
            optimizer.step(Step::new(&mut param, &grad, &mut state).check_finite()).unwrap();
            for i in 0..param.len() {
                largest[i] = largest[i].max(want[i].abs());
                allowed[i] += 4.0 * eps * largest[i].max(lr);
                let difference = (Element::to_f64(param[i]) - want[i]).abs();
                if difference > allowed[i] {
                    return Some(format!("{:?} step {step} element {i}: off by {difference:e}", self.config));
                }
            }
        }
        for (name, want) in self.state.iter().filter(|(name, _)| *name != "step") {
            let size = want.iter().fold(0.0, |size: f64, x| size.max(x.abs()));
            let Some(slot) = state.slot(name) else { return Some(format!("{:?}: no slot {name}", self.config)) };
            for (i, want) in want.iter().enumerate() {
                let difference = (slot.values().get(i).unwrap() - want).abs();
                if difference > 4.0 * eps * self.grads.len() as f64 * size {
                    return Some(format!("{:?} slot {name} element {i}: off by {difference:e}", self.config));
                }
            }
        }
        let steps = self.state.get("step").map_or(self.grads.len() as f64, |step| step[0]);
        (state.steps() as f64 != steps).then(|| format!("{:?}: {} steps", self.config, state.steps()))
    }
}

#[test]
fn optimizers() {
    let cases: Vec<Trajectory> = cases("optim", |case| case["source"] == "torch");
    for kind in ["sgd", "adagrad", "adam", "adamw"] {
        let own = cases.iter().filter(|case| case.optimizer == kind);
        let outcomes = own.map(|case| match case.dtype.as_str() {
            "f32" => case.compare::<f32>(),
            _ => case.compare::<f64>(),
        });
        report(kind, &outcomes.collect::<Vec<_>>());
    }
}

#[derive(Deserialize)]
struct Quantized {
    bits: u8,
    x: Vec<f64>,
    min: f64,
    max: f64,
    codes: Vec<u8>,
}

#[test]
fn min_max() {
    let cases: Vec<Quantized> = cases("quant", |case| case["kind"] == "min_max");
    let outcomes = cases.into_iter().map(|case| {
        let x: Vec<f32> = case.x.into_iter().map(|x| x as f32).collect();
        let q = MinMax::new(case.bits).unwrap().quantize(&x).unwrap();
        let lapidary::Grid::MinMax { min: Values::F32(min), max: Values::F32(max) } = q.grid() else { panic!("{q:?}") };
        let range = (f64::from(min[0]), f64::from(max[0]));
        let wrong = q.codes() != case.codes || range != (case.min, case.max);
        wrong.then(|| format!("{} bits", q.bits()))
    });
    report("min_max", &outcomes.collect::<Vec<_>>());
}

#[derive(Deserialize)]
struct Pruned {
    kind: String,
    #[serde(default)]
    shape: Vec<usize>,
    #[serde(default)]
    x: Vec<f64>,
    #[serde(default)]
    mask: Vec<u8>,
    #[serde(default)]
    masks: Vec<Vec<u8>>,
    eps: Option<f64>,
    amount: Option<serde_json::Number>,
    #[serde(default)]
    amounts: Vec<serde_json::Number>,
    #[serde(default)]
    tensors: Vec<Tensor>,
}

#[derive(Deserialize)]
struct Tensor {
    shape: Vec<usize>,
    x: Vec<f64>,
    mask: Vec<u8>,
}

/// A share, or a count where the number is an integer, as in `torch.nn.utils.prune`.
fn magnitude(amount: &serde_json::Number) -> Magnitude {
    match amount.as_u64() {
        Some(count) => Magnitude::count(count as usize),
        None => Magnitude::sparsity(amount.as_f64().unwrap()).unwrap(),
    }
}

fn same(mask: &Mask, want: &[u8]) -> bool {
    mask.len() == want.len() && (0..want.len()).all(|i| mask.get(i) == Some(want[i] == 1))
}

#[test]
fn pruners() {
    let cases: Vec<Pruned> = cases("prune", |_| true);
    let run = |kind: &str, check: &dyn Fn(&Pruned, &[f32]) -> bool| {
        let outcomes = cases.iter().enumerate().filter(|(_, case)| case.kind == kind).map(|(i, case)| {
            let x: Vec<f32> = case.x.iter().map(|&x| x as f32).collect();
            (!check(case, &x)).then(|| format!("case {i}"))
        });
        report(kind, &outcomes.collect::<Vec<_>>());
    };
    run("threshold", &|case, x| same(&Threshold::new(case.eps.unwrap()).unwrap().mask(x).unwrap(), &case.mask));
    run("l1_unstructured", &|case, x| {
        let x = TensorRef::new(x, &case.shape).unwrap();
        same(&magnitude(case.amount.as_ref().unwrap()).mask(x).unwrap(), &case.mask)
    });
    run("iterated_l1_unstructured", &|case, x| {
        let mut mask = Mask::keep_all(&case.shape).unwrap();
        case.amounts.iter().zip(&case.masks).all(|(amount, want)| {
            magnitude(amount).refine(TensorRef::new(x, &case.shape).unwrap(), &mut mask).unwrap();
            same(&mask, want)
        })
    });
    run("global_l1_unstructured", &|case, _| {
        let data: Vec<Vec<f32>> = case.tensors.iter().map(|t| t.x.iter().map(|&x| x as f32).collect()).collect();
        let mut masks: Vec<_> = case.tensors.iter().map(|t| Mask::keep_all(&t.shape).unwrap()).collect();
        let tensors: Vec<_> =
            data.iter().zip(&case.tensors).map(|(x, t)| TensorRef::new(x, &t.shape).unwrap()).collect();
        magnitude(case.amount.as_ref().unwrap()).refine_global(&tensors, &mut masks).unwrap();
        masks.iter().zip(&case.tensors).all(|(mask, t)| same(mask, &t.mask))
    });
}
