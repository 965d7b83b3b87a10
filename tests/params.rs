//! Groups of parameters over random optimizers, shapes, types and thread counts: the same bits everywhere, those of each
//! parameter alone, and all or nothing.

use lapidary::{
    Element, ErrorKind, LearningRate, Mask, Optimizer, OptimizerExt, Schema, State, Step, TensorMut, TensorRef,
    half::{bf16, f16},
    optim::{
        Adafactor, Adagrad, Adam, AdamW, Compact, Ema, Lamb, Lion, Lookahead, NAdam, Norm, Outcome, Params, RAdam,
        RmsProp, Scaler, ScheduleFree, Sgd, StepOptions, Update,
    },
};
use proptest::prelude::*;

/// Any optimizer, by number.
#[derive(Debug)]
struct Boxed<T: Element>(Box<dyn Optimizer<T>>);

impl<T: Element> LearningRate for Boxed<T> {
    fn learning_rate(&self) -> f64 {
        self.0.learning_rate()
    }
    fn set_learning_rate(&mut self, learning_rate: f64) -> lapidary::Result<()> {
        self.0.set_learning_rate(learning_rate)
    }
}

impl<T: Element> Optimizer<T> for Boxed<T> {
    fn schema(&self, shape: &[usize]) -> Schema {
        self.0.schema(shape)
    }
    fn step(&self, step: Step<'_, T>) -> lapidary::Result<()> {
        self.0.step(step)
    }
    fn evaluate(&self, p: TensorRef<'_, T>, state: &State, out: TensorMut<'_, T>) -> lapidary::Result<()> {
        self.0.evaluate(p, state, out)
    }
}

const OPTIMIZERS: usize = 16;

fn optimizer<T: Element>(number: usize) -> Boxed<T> {
    let adam = Adam::new(0.01).unwrap();
    Boxed(match number {
        0 => Box::new(Sgd::new(0.1).unwrap()),
        1 => Box::new(Sgd::new(0.1).unwrap().with_nesterov(0.9).unwrap()),
        2 => Box::new(Adagrad::new(0.1).unwrap()),
        3 => Box::new(adam.with_amsgrad()),
        4 => Box::new(AdamW::new(0.01).unwrap()),
        5 => Box::new(RmsProp::new(0.01).unwrap().with_centered()),
        6 => Box::new(NAdam::new(0.01).unwrap()),
        7 => Box::new(RAdam::new(0.01).unwrap()),
        8 => Box::new(Lion::new(0.01).unwrap()),
        9 => Box::new(Lamb::new(0.01).unwrap()),
        10 => Box::new(Adafactor::new(0.01).unwrap()),
        11 => Box::new(ScheduleFree::new(0.01).unwrap()),
        12 => Box::new(Compact::eight_bit(adam)),
        13 => Box::new(Compact::bf16(Lion::new(0.01).unwrap())),
        14 => Box::new(Ema::new(Lookahead::new(adam, 2, 0.5).unwrap(), 0.9).unwrap()),
        _ => Box::new(Ema::new(Lamb::new(0.01).unwrap(), 0.9).unwrap()),
    })
}

/// A parameter to be: its optimizer, its shape, and whether it has a mask, is frozen, or gets no gradient in a step.
#[derive(Debug, Clone)]
struct Spec {
    optimizer: usize,
    shape: Vec<usize>,
    masked: bool,
    frozen: bool,
    skips: [bool; STEPS],
}

const STEPS: usize = 3;

fn specs() -> impl Strategy<Value = Vec<Spec>> {
    let shape = prop_oneof![
        4 => prop::sample::select(vec![vec![], vec![0], vec![1], vec![2], vec![97], vec![1021], vec![1024], vec![4099]]),
        3 => prop::sample::select(vec![vec![1, 1], vec![3, 0], vec![13, 7], vec![257, 31], vec![2, 3, 5]]),
        1 => prop::sample::select(vec![vec![70_001], vec![131_071], vec![401, 251]]),
    ];
    let skips = prop::array::uniform3(prop::bool::weighted(0.2));
    let spec = (0..OPTIMIZERS, shape, any::<bool>(), prop::bool::weighted(0.1), skips)
        .prop_map(|(optimizer, shape, masked, frozen, skips)| Spec { optimizer, shape, masked, frozen, skips });
    prop::collection::vec(spec, 0..9)
}

fn len(shape: &[usize]) -> usize {
    shape.iter().product()
}

fn numbers<T: Element>(n: usize, seed: usize) -> Vec<T> {
    let mut state = seed as u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / (1u64 << 24) as f64 - 0.5
    };
    (0..n).map(|_| T::from_f64(next())).collect()
}

fn mask(shape: &[usize]) -> Mask {
    Mask::from_fn(shape, |i| i % 3 != 1).unwrap()
}

fn bits<T: Element>(values: &[T]) -> Vec<u64> {
    values.iter().map(|x| x.to_f64().to_bits()).collect()
}

struct Run<T: Element> {
    params: Params<T>,
    weights: Vec<Vec<T>>,
}

impl<T: Element> Run<T> {
    fn by_chance(specs: &[Spec]) -> Self {
        Self::new(specs, Params::new().stochastic_rounding(3))
    }

    fn new(specs: &[Spec], mut params: Params<T>) -> Self {
        let groups: Vec<_> = (0..OPTIMIZERS).map(|number| params.group(optimizer::<T>(number))).collect();
        for (i, spec) in specs.iter().enumerate() {
            let name = i.to_string();
            params.add(&name, &spec.shape, groups[spec.optimizer]).unwrap();
            params.set_mask(&name, spec.masked.then(|| mask(&spec.shape))).unwrap();
            params.freeze(&name, spec.frozen).unwrap();
        }
        let weights = specs.iter().enumerate().map(|(i, spec)| numbers(len(&spec.shape), i)).collect();
        Self { params, weights }
    }

    /// One step; `spoil` puts a NaN into the last gradient.
    fn step(
        &mut self,
        specs: &[Spec],
        step: usize,
        spoil: bool,
        options: StepOptions<'_>,
    ) -> lapidary::Result<Outcome> {
        let mut grads: Vec<Vec<T>> =
            specs.iter().enumerate().map(|(i, spec)| numbers(len(&spec.shape), 1000 * step + i)).collect();
        let last = specs.iter().rposition(|spec| !spec.frozen && !spec.skips[step] && len(&spec.shape) > 0);
        if let (Some(last), true) = (last, spoil) {
            *grads[last].last_mut().unwrap() = T::from_f64(f64::NAN);
        }
        let mut updates: Vec<_> = specs
            .iter()
            .zip(self.weights.iter_mut().zip(&grads))
            .map(|(spec, (weights, grad))| match spec.skips[step] {
                true => Update::skipped(TensorMut::new(weights, &spec.shape).unwrap()),
                false => Update::shaped(weights, grad, &spec.shape).unwrap(),
            })
            .collect();
        self.params.step_with(&mut updates, options)
    }

    fn look(&self) -> (Vec<Vec<u64>>, Vec<(String, State)>) {
        let states = self.params.states().map(|(name, state)| (name.to_string(), state.clone()));
        (self.weights.iter().map(|weights| bits(weights)).collect(), states.collect())
    }
}

fn whole<T: Element>(specs: &[Spec]) -> (Vec<Vec<u64>>, Vec<(String, State)>) {
    let mut run = Run::<T>::by_chance(specs);
    for step in 0..STEPS {
        let options = StepOptions::new().clip_norm(0.5, Norm::L2).unwrap().clip_value(0.1).unwrap();
        run.step(specs, step, false, options).unwrap();
    }
    run.look()
}

/// Saved after the first step, and gone on with by others' groups and states.
#[cfg(feature = "safetensors")]
fn saved_and_loaded<T: Element>(specs: &[Spec]) -> (Vec<Vec<u64>>, Vec<(String, State)>) {
    use lapidary::format::checkpoint::{Checkpoint, Loaded};
    let options = || StepOptions::new().clip_norm(0.5, Norm::L2).unwrap().clip_value(0.1).unwrap();
    let mut run = Run::<T>::by_chance(specs);
    run.step(specs, 0, false, options()).unwrap();
    let bytes = Checkpoint::new().with_params(&run.params).unwrap().encode().unwrap();
    let mut again = Run { weights: run.weights, ..Run::by_chance(specs) };
    Loaded::decode(bytes).unwrap().restore_params(&mut again.params).unwrap();
    for step in 1..STEPS {
        again.step(specs, step, false, options()).unwrap();
    }
    again.look()
}

/// On pools of 1, 2 and 7 threads as on the caller's own.
fn same_bits<T: Element>(specs: &[Spec]) {
    let want = whole::<T>(specs);
    #[cfg(feature = "rayon")]
    for threads in [1, 2, 7] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert_eq!(pool.install(|| whole::<T>(specs)), want, "{threads} threads");
        #[cfg(feature = "safetensors")]
        assert_eq!(pool.install(|| saved_and_loaded::<T>(specs)), want, "{threads} threads, saved and loaded");
    }
    assert_eq!(whole::<T>(specs), want);
    #[cfg(feature = "safetensors")]
    assert_eq!(saved_and_loaded::<T>(specs), want);
}

/// Each parameter by itself, without groups.
fn same_as_alone<T: Element>(specs: &[Spec]) {
    let mut run = Run::<T>::new(specs, Params::new().check_finite());
    let mut alone = run.weights.clone();
    let mut states: Vec<_> = specs
        .iter()
        .zip(&alone)
        .map(|(spec, w)| optimizer::<T>(spec.optimizer).init(TensorRef::new(w, &spec.shape).unwrap()).unwrap())
        .collect();
    for step in 0..STEPS {
        run.step(specs, step, false, StepOptions::new()).unwrap();
        for (i, spec) in specs.iter().enumerate().filter(|(_, spec)| !spec.frozen && !spec.skips[step]) {
            let grad = numbers(len(&spec.shape), 1000 * step + i);
            let (w, g) = (TensorMut::new(&mut alone[i], &spec.shape), TensorRef::new(&grad, &spec.shape));
            let (mask, update) = (mask(&spec.shape), Step::new(w.unwrap(), g.unwrap(), &mut states[i]));
            let update = if spec.masked { update.mask(&mask) } else { update };
            optimizer::<T>(spec.optimizer).step(update).unwrap();
        }
    }
    let (weights, found) = run.look();
    assert_eq!(weights, alone.iter().map(|w| bits(w)).collect::<Vec<_>>());
    assert_eq!(found.into_iter().map(|(_, state)| state).collect::<Vec<_>>(), states);
}

/// A NaN in the last gradient of the last parameter: nothing anywhere has moved.
fn all_or_nothing<T: Element>(specs: &[Spec]) {
    let mut run = Run::<T>::by_chance(specs);
    run.step(specs, 0, false, StepOptions::new()).unwrap();
    let moves = specs.iter().any(|spec| !spec.frozen && !spec.skips[1] && len(&spec.shape) > 0);
    let before = run.look();
    let error = run.step(specs, 1, true, StepOptions::new().clip_norm(1.0, Norm::Max).unwrap());
    if moves {
        assert_eq!(error.unwrap_err().kind(), ErrorKind::NonFinite);
        assert!(run.look() == before);
        let mut scaler = Scaler::new(4.0).unwrap();
        let outcome = run.step(specs, 1, true, StepOptions::new().scaler(&mut scaler)).unwrap();
        assert!(outcome.skipped && scaler.scale() == 2.0 && run.look() == before);
        run.params = std::mem::take(&mut run.params).check_finite();
        assert!(run.step(specs, 1, true, StepOptions::new()).is_err() && run.look() == before);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn on_any_number_of_threads(specs in specs()) {
        same_bits::<f32>(&specs);
        same_bits::<f64>(&specs);
        same_bits::<f16>(&specs);
        same_bits::<bf16>(&specs);
    }

    #[test]
    fn as_each_alone(specs in specs()) {
        same_as_alone::<f32>(&specs);
        same_as_alone::<f64>(&specs);
        same_as_alone::<bf16>(&specs);
    }

    #[test]
    fn a_refused_step_moves_nothing(specs in specs()) {
        all_or_nothing::<f32>(&specs);
        all_or_nothing::<f64>(&specs);
        all_or_nothing::<f16>(&specs);
        all_or_nothing::<bf16>(&specs);
    }
}

/// Beyond 2^24 elements, where an `f32` no longer counts them.
#[test]
fn large_tensors() {
    let n = (1 << 24) + 1027;
    let grad = numbers::<bf16>(n, 5);
    let run = || {
        let mut weights = numbers::<bf16>(n, 4);
        let adam = Compact::eight_bit(Adam::new(0.01).unwrap());
        let mut state = adam.init(&weights).unwrap();
        for _ in 0..2 {
            adam.step(Step::new(&mut weights, &grad, &mut state).stochastic_rounding(1).check_finite()).unwrap();
        }
        (weights, state)
    };
    let want = run();
    #[cfg(feature = "rayon")]
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert!(pool.install(run) == want, "{threads} threads");
    }
    // The end is stepped as a tensor of its own would be: its index does not matter but for the rounding.
    assert!(want.0[n - 1] != numbers::<bf16>(n, 4)[n - 1]);
}
