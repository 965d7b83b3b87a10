//! Against independent implementations: PyTorch's optimizers and pruners, a reference of the min-max quantizer.
//!
//! Reads `tests/fixtures/oracles`, or the folder named by the environment variable `LAPIDARY_ORACLES`.

use flate2::read::GzDecoder;
#[cfg(feature = "linalg")]
use lapidary::optim::{Muon, RateScale};
use lapidary::{
    Element, Grid, Mask, Optimizer, OptimizerExt, Pruner, PrunerExt, Quantizer, QuantizerExt, Real, Result, Step,
    TensorMut, TensorRef, Values,
    optim::{
        Adadelta, Adafactor, Adagrad, Adam, AdamW, Adamax, Convention, Lamb, Lion, NAdam, RAdam, RmsProp, ScheduleFree,
        Sgd,
    },
    prune::{Magnitude, Pruning, Select},
    quant::{Affine, FakeQuantize, MinMax},
};
use serde::{Deserialize, de::DeserializeOwned};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read,
    path::PathBuf,
};

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
    source: String,
    optimizer: String,
    config: BTreeMap<String, serde_json::Value>,
    dtype: String,
    shape: Vec<usize>,
    init: Vec<f64>,
    grads: Vec<Vec<f64>>,
    params: Vec<Vec<f64>>,
    state: BTreeMap<String, Vec<f64>>,
}

impl Trajectory {
    fn number(&self, key: &str) -> Option<f64> {
        self.config.get(key).map(|value| value.as_f64().unwrap())
    }

    fn flag(&self, key: &str) -> bool {
        self.config.get(key).is_some_and(|value| value.as_bool().unwrap())
    }

    /// The optimizer of a case. Every key of its configuration must be used.
    fn optimizer<T: Element>(&self) -> Result<Box<dyn Optimizer<T>>> {
        let mut used = vec!["lr", "learning_rate"];
        let mut number = |key: &'static str| {
            used.push(key);
            self.number(key)
        };
        let rate = self.number("lr").or(self.number("learning_rate"));
        let betas = |list: Option<&serde_json::Value>| list.map(|b| (b[0].as_f64().unwrap(), b[1].as_f64().unwrap()));
        let betas = betas(self.config.get("betas")).or(self.number("b1").map(|b1| (b1, self.number("b2").unwrap())));
        // Sets what the case says and leaves the rest at our default for the convention.
        macro_rules! set {
            ($optimizer:ident, $with:ident, $key:literal) => {
                if let Some(value) = number($key) {
                    $optimizer = $optimizer.$with(value)?;
                }
            };
        }
        macro_rules! switch {
            ($optimizer:ident, $with:ident, $key:literal) => {
                if self.flag($key) {
                    $optimizer = $optimizer.$with();
                }
            };
        }
        macro_rules! betas {
            ($optimizer:ident) => {
                if let Some((beta1, beta2)) = betas {
                    $optimizer = $optimizer.with_betas(beta1, beta2)?;
                }
            };
        }
        let convention = match self.source.as_str() {
            "torch" => Convention::PyTorch,
            "keras" => Convention::Keras,
            _ => Convention::Optax,
        };
        let boxed: Box<dyn Optimizer<T>> = match self.optimizer.as_str() {
            "sgd" => {
                let mut sgd = Sgd::new(rate.unwrap())?.with_convention(convention)?;
                let momentum = number("momentum").unwrap_or(0.0);
                sgd = if self.flag("nesterov") { sgd.with_nesterov(momentum)? } else { sgd.with_momentum(momentum)? };
                set!(sgd, with_dampening, "dampening");
                set!(sgd, with_weight_decay, "weight_decay");
                switch!(sgd, with_maximize, "maximize");
                Box::new(sgd)
            }
            "adagrad" => {
                let mut adagrad = Adagrad::new(rate.unwrap_or(1e-2))?.with_convention(convention);
                set!(adagrad, with_learning_rate_decay, "lr_decay");
                set!(adagrad, with_weight_decay, "weight_decay");
                set!(adagrad, with_initial_accumulator, "initial_accumulator_value");
                set!(adagrad, with_eps, "eps");
                switch!(adagrad, with_maximize, "maximize");
                Box::new(adagrad)
            }
            "adam" => {
                let mut adam = Adam::new(rate.unwrap_or(1e-3))?.with_convention(convention);
                betas!(adam);
                set!(adam, with_eps, "eps");
                set!(adam, with_eps_root, "eps_root");
                set!(adam, with_weight_decay, "weight_decay");
                switch!(adam, with_amsgrad, "amsgrad");
                switch!(adam, with_maximize, "maximize");
                Box::new(adam)
            }
            "adamw" => {
                let mut adamw = AdamW::new(rate.unwrap_or(1e-3))?.with_convention(convention)?;
                betas!(adamw);
                set!(adamw, with_eps, "eps");
                set!(adamw, with_weight_decay, "weight_decay");
                switch!(adamw, with_amsgrad, "amsgrad");
                switch!(adamw, with_maximize, "maximize");
                Box::new(adamw)
            }
            "rmsprop" => {
                let mut rmsprop = RmsProp::new(rate.unwrap_or(1e-2))?.with_convention(convention)?;
                set!(rmsprop, with_alpha, "alpha");
                set!(rmsprop, with_momentum, "momentum");
                set!(rmsprop, with_weight_decay, "weight_decay");
                switch!(rmsprop, with_centered, "centered");
                Box::new(rmsprop)
            }
            "adadelta" => {
                let mut adadelta = Adadelta::new(rate.unwrap_or(1.0))?;
                set!(adadelta, with_rho, "rho");
                set!(adadelta, with_eps, "eps");
                set!(adadelta, with_weight_decay, "weight_decay");
                Box::new(adadelta)
            }
            "adamax" => {
                let mut adamax = Adamax::new(rate.unwrap_or(2e-3))?;
                betas!(adamax);
                set!(adamax, with_weight_decay, "weight_decay");
                Box::new(adamax)
            }
            "nadam" => {
                let mut nadam = NAdam::new(rate.unwrap_or(2e-3))?;
                set!(nadam, with_momentum_decay, "momentum_decay");
                set!(nadam, with_weight_decay, "weight_decay");
                switch!(nadam, with_decoupled, "decoupled_weight_decay");
                Box::new(nadam)
            }
            "radam" => {
                let mut radam = RAdam::new(rate.unwrap_or(1e-3))?;
                betas!(radam);
                set!(radam, with_weight_decay, "weight_decay");
                switch!(radam, with_decoupled, "decoupled_weight_decay");
                Box::new(radam)
            }
            "adafactor" => {
                let mut adafactor = Adafactor::new(rate.unwrap_or(1e-2))?;
                set!(adafactor, with_beta2_decay, "beta2_decay");
                set!(adafactor, with_d, "d");
                set!(adafactor, with_weight_decay, "weight_decay");
                Box::new(adafactor)
            }
            "lion" => {
                let mut lion = Lion::new(rate.unwrap())?;
                betas!(lion);
                set!(lion, with_weight_decay, "weight_decay");
                Box::new(lion)
            }
            "lamb" => {
                let mut lamb = Lamb::new(rate.unwrap())?;
                set!(lamb, with_weight_decay, "weight_decay");
                Box::new(lamb)
            }
            "schedule_free_adamw" => {
                let mut free = ScheduleFree::new(rate.unwrap())?;
                set!(free, with_weight_decay, "weight_decay");
                Box::new(free)
            }
            #[cfg(feature = "linalg")]
            "muon" => {
                let mut muon = Muon::new(rate.unwrap_or(1e-3))?;
                set!(muon, with_momentum, "momentum");
                set!(muon, with_weight_decay, "weight_decay");
                if self.config.get("nesterov").is_some_and(|nesterov| nesterov == false) {
                    muon = muon.without_nesterov();
                }
                if let Some(scale) = self.config.get("adjust_lr_fn") {
                    assert_eq!(scale, "match_rms_adamw");
                    muon = muon.with_rate_scale(RateScale::MatchAdamW);
                }
                Box::new(muon)
            }
            other => panic!("unknown optimizer {other}"),
        };
        used.extend([
            "betas",
            "b1",
            "b2",
            "amsgrad",
            "maximize",
            "nesterov",
            "centered",
            "decoupled_weight_decay",
            "adjust_lr_fn",
        ]);
        assert!(self.config.keys().all(|key| used.contains(&key.as_str())), "{:?}", self.config);
        Ok(boxed)
    }

    /// How much wider the tolerance is: Keras forms the powers of the betas in f32; PyTorch's NAdam keeps the product of momenta
    /// in f32 even for f64 parameters, and computes Muon's iteration in bf16.
    fn slack(&self, eps: f64) -> f64 {
        match (self.source.as_str(), self.optimizer.as_str(), self.dtype.as_str()) {
            ("keras", ..) => 16.0,
            (_, "nadam", "f64") => 1e-8 / (4.0 * eps),
            (_, "muon", _) => 1e-3 / (4.0 * eps),
            _ => 1.0,
        }
    }

    /// What is wrong, if anything: parameters within `4 eps * sum over steps of max(largest |p| so far, lr)`, element by
    /// element; the final state within the same of its own sizes.
    fn compare<T: Real>(&self) -> Option<String> {
        let optimizer = self.optimizer::<T>().unwrap();
        let eps = Element::to_f64(T::epsilon());
        let slack = self.slack(eps);
        let lr = optimizer.learning_rate();
        let shape = &self.shape[..];
        let mut param: Vec<T> = self.init.iter().map(|&x| T::from_f64(x)).collect();
        let mut state = optimizer.init(TensorRef::new(&param, shape).unwrap()).unwrap();
        let mut largest: Vec<f64> = self.init.iter().map(|x| x.abs()).collect();
        let mut allowed = vec![0.0; param.len()];
        for (step, (grad, want)) in self.grads.iter().zip(&self.params).enumerate() {
            let grad: Vec<T> = grad.iter().map(|&x| T::from_f64(x)).collect();
            let (p, g) = (TensorMut::new(&mut param, shape).unwrap(), TensorRef::new(&grad, shape).unwrap());
            optimizer.step(Step::new(p, g, &mut state).check_finite()).unwrap();
            if self.optimizer == "muon" {
                // Each element of its update depends on all: sizes are the matrix's.
                let all = largest.iter().chain(want).fold(0.0, |all: f64, x| all.max(x.abs()));
                largest.fill(all);
            }
            for i in 0..param.len() {
                largest[i] = largest[i].max(want[i].abs());
                allowed[i] += 4.0 * slack * eps * largest[i].max(lr);
                let difference = (Element::to_f64(param[i]) - want[i]).abs();
                if difference > allowed[i] {
                    return Some(format!("{:?} step {step} element {i}: off by {difference:e}", self.config));
                }
            }
        }
        for (name, want) in self.state.iter().filter(|(name, _)| *name != "step") {
            if let ([want], Some(got)) = (&want[..], state.scalar(name)) {
                if (got - want).abs() > 1e-6 * want.abs() {
                    return Some(format!("{:?} scalar {name}: {got} for {want}", self.config));
                }
                continue;
            }
            let size = want.iter().fold(0.0, |size: f64, x| size.max(x.abs()));
            let Some(slot) = state.slot(name) else { return Some(format!("{:?}: no slot {name}", self.config)) };
            for (i, want) in want.iter().enumerate() {
                let difference = (slot.values().get(i).unwrap() - want).abs();
                if difference > 4.0 * slack * eps * self.grads.len() as f64 * size {
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
    let cases: Vec<Trajectory> = cases("optim", |case| cfg!(feature = "linalg") || case["optimizer"] != "muon");
    let kinds: BTreeSet<_> = cases.iter().map(|case| (&case.source, &case.optimizer)).collect();
    assert_eq!(kinds.len(), if cfg!(feature = "linalg") { 21 } else { 20 }, "{kinds:?}");
    for (source, optimizer) in kinds {
        let own = cases.iter().filter(|case| case.source == *source && case.optimizer == *optimizer);
        let outcomes = own.map(|case| match case.dtype.as_str() {
            "f32" => case.compare::<f32>(),
            _ => case.compare::<f64>(),
        });
        let kind = if source == "torch" { optimizer.clone() } else { format!("{source} {optimizer}") };
        report(&kind, &outcomes.collect::<Vec<_>>());
    }
}

#[derive(Deserialize)]
struct Quantized {
    bits: u8,
    x: Vec<f64>,
    min: f64,
    max: f64,
    codes: Vec<u16>,
}

#[test]
fn min_max() {
    let cases: Vec<Quantized> = cases("quant", |case| case["kind"] == "min_max");
    let outcomes = cases.into_iter().map(|case| {
        let x: Vec<f32> = case.x.into_iter().map(|x| x as f32).collect();
        let q = MinMax::new(case.bits).unwrap().quantize(&x).unwrap();
        let Grid::MinMax { min: Values::F32(min), max: Values::F32(max) } = q.grid() else { panic!("{q:?}") };
        let range = (f64::from(min[0]), f64::from(max[0]));
        let wrong = q.codes() != case.codes || range != (case.min, case.max);
        wrong.then(|| format!("{} bits", q.bits()))
    });
    report("min_max", &outcomes.collect::<Vec<_>>());
}

/// Codes by scales and zero points that are given: one for the tensor, or one for each index along an axis.
#[derive(Deserialize)]
struct Torch {
    axis: Option<usize>,
    dtype: String,
    shape: Vec<usize>,
    x: Vec<f64>,
    scale: OneOrMany<f64>,
    zero_point: OneOrMany<i16>,
    codes: Vec<i16>,
    dequantized: Option<Vec<f64>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T: Copy> OneOrMany<T> {
    fn all(&self) -> &[T] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

impl Torch {
    fn compare(&self) -> Option<String> {
        // Signed codes are ours less 128.
        let unsigned = |code: &i16| u16::try_from(code + if self.dtype == "i8" { 128 } else { 0 }).unwrap();
        let x: Vec<f32> = self.x.iter().map(|&x| x as f32).collect();
        let affine = Affine::new(8).unwrap();
        let affine = self.axis.map_or(affine, |axis| affine.per_channel(axis));
        let grid = Grid::Affine {
            scale: Values::F32(self.scale.all().iter().map(|&scale| scale as f32).collect()).into(),
            zero_point: Some(self.zero_point.all().iter().map(unsigned).collect()),
        };
        let tensor = TensorRef::new(&x, &self.shape).unwrap();
        let mut q = Quantizer::<f32>::layout(&affine, &self.shape).unwrap();
        q.set_grid(grid).unwrap();
        affine.encode(tensor, &mut q).unwrap();
        if q.codes() != self.codes.iter().map(unsigned).collect::<Vec<_>>() {
            return Some(format!("{} {:?}: codes", self.dtype, self.axis));
        }
        let back: Vec<f64> = q.dequantize();
        let values = self
            .dequantized
            .as_ref()
            .is_some_and(|values| values.iter().zip(back).any(|(want, got)| *want as f32 != got as f32));
        values.then(|| format!("{}: values", self.dtype))
    }
}

#[test]
fn affine() {
    for kind in ["torch_per_tensor", "torch_per_channel"] {
        let cases: Vec<Torch> = cases("quant", |case| case["kind"] == kind);
        report(kind, &cases.iter().map(Torch::compare).collect::<Vec<_>>());
    }
}

#[derive(Deserialize)]
struct Fake {
    bits: u8,
    x: Vec<f64>,
    scale: f64,
    zero_point: u8,
    y: Vec<f64>,
    upstream: Vec<f64>,
    grad: Vec<f64>,
}

impl Fake {
    /// Values and gradients exactly, but where `x * (1 / scale)`, which PyTorch rounds, is another integer than
    /// `x / scale`. Counts the elements, and those that are so.
    fn compare(&self, elements: &mut usize, moved: &mut usize) -> Option<String> {
        let single = |values: &[f64]| values.iter().map(|&x| x as f32).collect::<Vec<f32>>();
        let (x, upstream, scale) = (single(&self.x), single(&self.upstream), self.scale as f32);
        let affine = Affine::new(self.bits).unwrap();
        let mut levels = Quantizer::<f32>::layout(&affine, &[x.len()]).unwrap();
        let grid =
            Grid::Affine { scale: Values::F32(vec![scale]).into(), zero_point: Some(vec![self.zero_point.into()]) };
        levels.set_grid(grid).unwrap();
        let fake = FakeQuantize::from(affine);
        let (mut y, mut gradient) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        fake.forward(&x, &levels, &mut y).unwrap();
        fake.backward(&x, &levels, &upstream, &mut gradient).unwrap();
        for i in 0..x.len() {
            *elements += 1;
            if (x[i] / scale).round_ties_even() != (x[i] * (1.0 / scale)).round_ties_even() {
                *moved += 1;
            } else if (y[i], gradient[i]) != (self.y[i] as f32, self.grad[i] as f32) {
                return Some(format!("{} bits, element {i}", self.bits));
            }
        }
        None
    }
}

#[test]
fn fake_quantization() {
    let cases: Vec<Fake> = cases("quant", |case| case["kind"] == "torch_fake_quantize");
    let (mut elements, mut moved) = (0, 0);
    let outcomes: Vec<_> = cases.iter().map(|case| case.compare(&mut elements, &mut moved)).collect();
    report("torch_fake_quantize", &outcomes);
    println!("torch_fake_quantize: {moved} of {elements} elements lie where a product and a quotient round apart");
    assert!(moved * 100 < elements, "{moved} of {elements}");
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
    /// Of a norm: a number, or `inf`.
    n: Option<String>,
    axis: Option<usize>,
    keep: Option<usize>,
    of: Option<usize>,
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
fn select(amount: &serde_json::Number) -> Select {
    match amount.as_u64() {
        Some(count) => Select::count(count as usize),
        None => Select::sparsity(amount.as_f64().unwrap()).unwrap(),
    }
}

fn magnitude(amount: &serde_json::Number) -> Pruning<Magnitude> {
    select(amount).by(Magnitude)
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
    run("threshold", &|case, x| same(&Magnitude::threshold(case.eps.unwrap()).unwrap().mask(x).unwrap(), &case.mask));
    run("l1_unstructured", &|case, x| {
        let x = TensorRef::new(x, &case.shape).unwrap();
        same(&magnitude(case.amount.as_ref().unwrap()).mask(x).unwrap(), &case.mask)
    });
    run("ln_structured", &|case, x| {
        let x = TensorRef::new(x, &case.shape).unwrap();
        let norm = case.n.as_ref().unwrap().parse().unwrap();
        let select = select(case.amount.as_ref().unwrap()).along(case.axis.unwrap()).with_norm(norm).unwrap();
        same(&select.by(Magnitude).mask(x).unwrap(), &case.mask)
    });
    run("n_of_m", &|case, x| {
        let x = TensorRef::new(x, &case.shape).unwrap();
        let select = Select::n_of_m(case.keep.unwrap(), case.of.unwrap()).unwrap();
        same(&select.by(Magnitude).mask(x).unwrap(), &case.mask)
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
