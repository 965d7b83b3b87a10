//! What state in fewer bits costs: the final loss beside that of `f32` state, and of the published 8-bit scheme.
//!
//! Two tasks on the embedded digits: softmax regression with an L2 penalty, which is convex, and a network of one hidden
//! layer. Each loss is the mean over a few starts with its standard error, since rounding by chance moves a single run of the network as another start
//! does. All numbers: `LAPIDARY_STARTS=24 cargo test --test fewer_bits -- --nocapture`.

use flate2::read::GzDecoder;
use lapidary::{
    Optimizer, Precision, State, Step, Values,
    optim::{Adagrad, Adam, AdamW, Lion, Schedule, Sgd},
};
use std::io::Read;

const INPUTS: usize = 64;
const CLASSES: usize = 10;
const EPOCHS: usize = 30;
const BATCH: usize = 64;

struct Digits {
    x: Vec<f32>,
    y: Vec<usize>,
}

fn digits() -> Digits {
    let mut rows = Vec::new();
    GzDecoder::new(&include_bytes!("../examples/data/digits_1797x65_u8.bin.gz")[..]).read_to_end(&mut rows).unwrap();
    let x = rows.chunks_exact(65).flat_map(|row| row[..64].iter().map(|&p| f32::from(p) / 16.0)).collect();
    Digits { x, y: rows.chunks_exact(65).map(|row| row[64].into()).collect() }
}

/// One hidden layer, or none where `hidden` is 0; all weights in one vector.
#[derive(Clone, Copy)]
struct Net {
    hidden: usize,
    penalty: f32,
}

impl Net {
    fn len(self) -> usize {
        match self.hidden {
            0 => (INPUTS + 1) * CLASSES,
            h => (INPUTS + 1) * h + (h + 1) * CLASSES,
        }
    }

    fn start(self, seed: u64) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        };
        (0..self.len()).map(|_| 0.2 * next()).collect()
    }

    /// The mean loss over some rows; adds its gradient.
    fn loss(self, w: &[f32], data: &Digits, rows: &[usize], grad: &mut [f32]) -> f64 {
        let (first, last) = w.split_at(w.len() - self.last());
        let share = 1.0 / rows.len() as f32;
        let mut total = 0.0;
        for &row in rows {
            let x = &data.x[row * INPUTS..][..INPUTS];
            let hidden: Vec<f32> = match self.hidden {
                0 => x.to_vec(),
                h => affine(first, x, h).into_iter().map(|a| a.max(0.0)).collect(),
            };
            let logits = affine(last, &hidden, CLASSES);
            let top = logits.iter().copied().fold(f32::MIN, f32::max);
            let sum: f32 = logits.iter().map(|a| (a - top).exp()).sum();
            total += f64::from(sum.ln() + top - logits[data.y[row]]);
            let delta: Vec<f32> = logits
                .iter()
                .enumerate()
                .map(|(k, a)| share * ((a - top).exp() / sum - f32::from(k == data.y[row])))
                .collect();
            let (first_grad, last_grad) = grad.split_at_mut(first.len());
            outer(last_grad, &delta, &hidden);
            if self.hidden > 0 {
                let mut back = vec![0f32; self.hidden];
                for (d, unit) in delta.iter().zip(last.chunks_exact(self.hidden + 1)) {
                    back.iter_mut().zip(unit).for_each(|(b, w)| *b += d * w);
                }
                back.iter_mut().zip(&hidden).for_each(|(b, &h)| *b = if h > 0.0 { *b } else { 0.0 });
                outer(first_grad, &back, x);
            }
        }
        grad.iter_mut().zip(w).for_each(|(g, w)| *g += self.penalty * w);
        let size: f64 = w.iter().map(|&w| f64::from(w).powi(2)).sum();
        total / rows.len() as f64 + 0.5 * f64::from(self.penalty) * size
    }

    fn last(self) -> usize {
        (if self.hidden == 0 { INPUTS } else { self.hidden } + 1) * CLASSES
    }
}

/// Units of weights and a bias.
fn affine(w: &[f32], x: &[f32], units: usize) -> Vec<f32> {
    let unit = |w: &[f32]| w[..x.len()].iter().zip(x).map(|(w, x)| w * x).sum::<f32>() + w[x.len()];
    w.chunks_exact(x.len() + 1).take(units).map(unit).collect()
}

fn outer(grad: &mut [f32], delta: &[f32], x: &[f32]) {
    for (g, &d) in grad.chunks_exact_mut(x.len() + 1).zip(delta) {
        g.iter_mut().zip(x).for_each(|(g, x)| *g += d * x);
        g[x.len()] += d;
    }
}

trait Any: Optimizer<f32> {}
impl<O: Optimizer<f32>> Any for O {}
type Make = fn() -> Box<dyn Any>;

/// Trains from a start, and gives the final loss over all rows. `after` may change the state after each step.
fn train(
    (net, seed): (Net, u64),
    data: &Digits,
    optimizer: &mut dyn Any,
    precision: Precision,
    after: impl Fn(&mut State),
) -> f64 {
    let mut w = net.start(seed);
    let schema = optimizer.schema(&[w.len()]).with_precision(precision);
    let mut state = State::new::<f32>(&[w.len()], schema).unwrap();
    let batches = data.y.len() / BATCH;
    let schedule = Schedule::cosine(optimizer.learning_rate(), (EPOCHS * batches) as u64, 0.0).unwrap();
    for step in 0..EPOCHS * batches {
        // Rows in a fixed shuffled order: 1,009 is prime to their number.
        let rows: Vec<_> = (0..BATCH).map(|i| (step * BATCH + i) * 1009 % data.y.len()).collect();
        let mut grad = vec![0f32; w.len()];
        net.loss(&w, data, &rows, &mut grad);
        optimizer.set_learning_rate(schedule.rate(step as u64)).unwrap();
        optimizer.step(Step::new(&mut w, &grad, &mut state)).unwrap();
        after(&mut state);
    }
    let rows: Vec<_> = (0..data.y.len()).collect();
    net.loss(&w, data, &rows, &mut vec![0f32; w.len()])
}

/// The dynamic map of Dettmers et al. 2022 (arXiv:2110.02861, as `bitsandbytes` makes it): 256 values from -1 (or 0) to 1.
fn dynamic_map(signed: bool) -> Vec<f32> {
    let mut map = vec![0.0, 1.0];
    for i in 0..7 {
        let items = if signed { 1 << i } else { 2 << i };
        let place = |k: i32| 0.1 + 0.9 * f64::from(k) / f64::from(items);
        for k in 0..items {
            let mean = 10f64.powi(i - 6) * (place(k) + place(k + 1)) / 2.0;
            map.push(mean);
            if signed {
                map.push(-mean);
            }
        }
    }
    let mut map: Vec<f32> = map.into_iter().map(|x| x as f32).collect();
    map.sort_by(f32::total_cmp);
    map
}

/// Replaces each block of 256 by its nearest values of the map, relative to its largest magnitude.
fn by_map(state: &mut State) {
    let names: Vec<String> = state.slots().iter().map(|slot| slot.name().into()).collect();
    for name in names {
        let mut values = state.slot(&name).unwrap().values().as_slice::<f32>().unwrap().to_vec();
        let map = dynamic_map(!["exp_avg_sq", "sum"].contains(&name.as_str()));
        for block in values.chunks_mut(256) {
            let largest = block.iter().fold(0f32, |a, x| a.max(x.abs()));
            for x in block.iter_mut().filter(|_| largest > 0.0) {
                let r = *x / largest;
                let above = map.partition_point(|&m| m < r).min(map.len() - 1);
                let below = above.saturating_sub(1);
                *x = largest * if r - map[below] <= map[above] - r { map[below] } else { map[above] };
            }
        }
        state.set_slot(&name, Values::F32(values)).unwrap();
    }
}

/// The mean, and its standard error.
fn mean_and_error(numbers: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let n = numbers.clone().count() as f64;
    let mean = numbers.clone().sum::<f64>() / n;
    let squares: f64 = numbers.map(|x| (x - mean).powi(2)).sum();
    (mean, (squares / (n - 1.0) / n).sqrt())
}

#[test]
fn the_final_loss_is_that_of_f32_state_within_a_hundredth() {
    let data = digits();
    let starts = std::env::var("LAPIDARY_STARTS").map_or(5, |starts| starts.parse::<u64>().unwrap());
    let tasks = [("convex", Net { hidden: 0, penalty: 1e-3 }), ("network", Net { hidden: 100, penalty: 1e-4 })];
    println!("| task | optimizer | loss, f32 | bf16 | 8-bit | published 8-bit |");
    println!("|---|---|--:|--:|--:|--:|");
    for (task, net) in tasks {
        let optimizers: [(&str, Make); 5] = [
            ("Adam", || Box::new(Adam::new(3e-3).unwrap())),
            ("AdamW", || Box::new(AdamW::new(3e-3).unwrap())),
            ("Lion", || Box::new(Lion::new(1e-3).unwrap())),
            ("Adagrad", || Box::new(Adagrad::new(5e-2).unwrap())),
            ("momentum", || Box::new(Sgd::new(1e-1).unwrap().with_momentum(0.9).unwrap())),
        ];
        for (name, optimizer) in optimizers {
            let run = |precision, map: bool| -> Vec<f64> {
                let after = |state: &mut State| {
                    if map {
                        by_map(state)
                    }
                };
                let data = &data;
                std::thread::scope(|scope| {
                    let train = |seed| move || train((net, seed), data, optimizer().as_mut(), precision, after);
                    let threads: Vec<_> = (1..=starts).map(|seed| scope.spawn(train(seed))).collect();
                    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
                })
            };
            let full = run(Precision::Full, false);
            let (mean, _) = mean_and_error(full.iter().copied());
            let (_, error) = mean_and_error(full.iter().map(|loss| loss / mean));
            // Start by start, relative to the mean.
            let beside = |losses: Vec<f64>| mean_and_error(losses.iter().zip(&full).map(|(a, b)| (a - b) / mean));
            let bf16 = beside(run(Precision::Bf16, false));
            let eight = beside(run(Precision::Eight, false));
            let published = beside(run(Precision::Full, true));
            let percent = |(mean, error)| format!("{:+.2} ± {:.2} %", 100.0 * mean, 100.0 * error);
            println!(
                "| {task} | {name} | {mean:.6} ± {:.2} % | {} | {} | {} |",
                100.0 * error,
                percent(bf16),
                percent(eight),
                percent(published)
            );
            // A lower loss is no harm; nor is what chance explains, two standard errors.
            for (mean, error) in [bf16, eight] {
                assert!(mean <= 0.01 + 2.0 * error && error < 0.015, "{task}, {name}: {mean} ± {error}");
                assert!(task == "network" || mean.abs() < 0.005, "{task}, {name}: {mean}");
            }
        }
    }
}
