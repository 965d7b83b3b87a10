//! The Rust side of `benches/peers/run` and `benches/peers/run-quant`, which measure it beside PyTorch and ONNX Runtime, in turn.
//!
//! With `--serve` it is told what to do by lines on standard input, and answers each by one line; rayon has as many threads as
//! `RAYON_NUM_THREADS` says:
//!
//! | line | answer |
//! |---|---|
//! | `open CASE TENSORS LENGTH` | bytes of state a parameter, bytes of memory a parameter that one step reads and writes |
//! | `step COUNT` | seconds of each of so many steps |
//! | `plain COUNT` | seconds of each of so many loops over as many bytes; of the case `composed` and of quantization |
//! | `close` | the first parameters or results, after all steps |
//!
//! The cases of sparse matrices are forms (`csr`, `bitmask`, `16x1`, `pairs` for two of four, some with `-codes` for 4 bits), of `VECTORS SIZE`;
//! started by `benches/peers/run-sparse`. They answer bytes alone. The cases of quantization are `layerBITS VECTORS SIZE` and `quantize8`, `channel8`, `fake8`, `dequantize8`, of `1 LENGTH`; they answer
//! bytes alone.
//!
//! `benches/peers/run-slim` asks by `slim NETWORK RATIO FOLDER`, which has `step` and `close` too: see `slim.rs`.

#[path = "../plain/mod.rs"]
mod plain;
mod quant;
mod slim;
mod sparse;

use lapidary::{
    Isa, Mask, Optimizer, OptimizerExt, Step,
    half::bf16,
    optim::{Adagrad, Adam, AdamW, Compact, Ema, Params, Sgd, Update},
};
use std::{
    error::Error,
    io::{BufRead, Lines, Write, stdin, stdout},
    time::Instant,
};

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// What a parameter is at first, and how many of them `close` shows.
const START: f32 = 0.5;
const SHOWN: usize = 17;

struct Port<R, W> {
    lines: Lines<R>,
    out: W,
}

impl<R: BufRead, W: Write> Port<R, W> {
    fn serve(&mut self) -> Result {
        self.answer([Isa::current().name()])?;
        while let Some(line) = self.lines.next() {
            let line = line?;
            if let Some(what) = line.strip_prefix("slim ") {
                self.slim(what)?;
                continue;
            }
            let ["open", case, tensors, length] = line.split(' ').collect::<Vec<_>>()[..] else {
                return Err(format!("{line:?} instead of `open CASE TENSORS LENGTH`").into());
            };
            let (tensors, length) = (tensors.parse()?, length.parse()?);
            match case {
                "momentum" => self.params(Sgd::new(1e-3)?.with_momentum(0.9)?, tensors, length),
                "adagrad" => self.params(Adagrad::new(1e-2)?, tensors, length),
                "adam" => self.params(Adam::new(1e-3)?, tensors, length),
                "adamw" => self.params(AdamW::new(1e-3)?, tensors, length),
                "adam8" => self.params(Compact::eight_bit(Adam::new(1e-3)?), tensors, length),
                "composed" => self.composed(length),
                "layer2" => self.layer(2, tensors, length),
                "layer4" => self.layer(4, tensors, length),
                "layer8" => self.layer(8, tensors, length),
                "csr" | "bitmask" | "pairs" | "dense" | "16x1" | "4x4" | "1x16" | "csr-codes" | "bitmask-codes"
                | "16x1-codes" => self.sparse(case, tensors, length),
                "quantize8" | "channel8" | "fake8" | "dequantize8" => self.codes(case, length),
                _ => Err(format!("no case {case:?}").into()),
            }?;
        }
        Ok(())
    }

    /// All tensors by one call.
    fn params(&mut self, optimizer: impl Optimizer<f32> + 'static, tensors: usize, length: usize) -> Result {
        let mut data = vec![vec![START; length]; tensors];
        let grads = vec![gradient(length); tensors];
        let mut params = Params::new();
        let group = params.group(optimizer);
        (0..tensors).try_for_each(|i| params.add(&format!("{i}"), &[length], group))?;
        let mut updates: Vec<_> = data.iter_mut().zip(&grads).map(|(data, grad)| Update::new(data, grad)).collect();
        let state =
            params.states().map(|(_, state)| state.byte_size()).sum::<usize>() as f64 / (tensors * length) as f64;
        self.answer([state, 3.0 * 4.0 + 2.0 * state])?;
        self.turns(|| Ok(params.step(&mut updates)?), || Err("no loop beside this case".into()))?;
        drop(updates);
        self.answer(&data[0][..SHOWN.min(length)])
    }

    /// Everything a step can do in its one pass, of one tensor.
    fn composed(&mut self, length: usize) -> Result {
        let optimizer = Ema::new(AdamW::new(1e-3)?, 0.999)?;
        let (mut param, grad) = (vec![START; length], gradient(length));
        let mut copy = vec![bf16::ZERO; length];
        let mask = Mask::from_fn(&[length], |i| i % 10 != 3)?;
        let mut state = optimizer.init(&param)?;
        let [mut a, mut b, mut c, mut d] = std::array::from_fn(|_| vec![START; length]);
        let mut bits = vec![0u16; length];
        // Reads 5 arrays and the mask; writes 4 arrays and the copy.
        self.answer([state.byte_size() as f64 / length as f64, 5.0 * 4.0 + 1.0 / 8.0 + 4.0 * 4.0 + 2.0])?;
        self.turns(
            || {
                let step = Step::new(&mut param, &grad, &mut state).scale_gradient(0.25).clip_value(0.01).mask(&mask);
                Ok(optimizer.step(step.copy_to_bf16(&mut copy))?)
            },
            || {
                let arrays = [&mut a[..], &mut b, &mut c, &mut d];
                let streams = plain::Streams { read: &grad, arrays, mask: mask.words(), copy: &mut bits };
                plain::run(streams, rayon::current_num_threads());
                Ok(())
            },
        )?;
        self.answer(&param[..SHOWN.min(length)])
    }

    /// Steps and loops as told, until it is `close`.
    fn turns(&mut self, mut step: impl FnMut() -> Result, mut plain: impl FnMut() -> Result) -> Result {
        loop {
            let line = self.lines.next().ok_or("no `close`")??;
            let seconds = match line.split_once(' ') {
                Some(("step", count)) => seconds(count.parse()?, &mut step)?,
                Some(("plain", count)) => seconds(count.parse()?, &mut plain)?,
                _ if line == "close" => return Ok(()),
                _ => return Err(format!("{line:?} instead of `step`, `plain` or `close`").into()),
            };
            self.answer(seconds)?;
        }
    }

    fn answer<T: ToString>(&mut self, values: impl IntoIterator<Item = T>) -> Result {
        let values: Vec<_> = values.into_iter().map(|value| value.to_string()).collect();
        writeln!(self.out, "{}", values.join(" "))?;
        Ok(self.out.flush()?)
    }
}

fn gradient(length: usize) -> Vec<f32> {
    (0..length).map(|i| (i % 17) as f32 * 0.01 - 0.08).collect()
}

fn seconds(count: usize, mut work: impl FnMut() -> Result) -> Result<Vec<f64>> {
    let timed = |_| {
        let clock = Instant::now();
        work().map(|()| clock.elapsed().as_secs_f64())
    };
    (0..count).map(timed).collect()
}

fn main() -> Result {
    if std::env::args().any(|arg| arg == "--serve") {
        // A thread has a core of its own, as ONNX Runtime's have, and asks from inside the pool: else each call waits to be taken in.
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        let pin = move |i: usize| {
            if let Some(&core) = cores.get(i) {
                core_affinity::set_for_current(core);
            }
        };
        let pool = rayon::ThreadPoolBuilder::new().start_handler(pin).build()?;
        let serve = || Port { lines: stdin().lock().lines(), out: stdout() }.serve().map_err(|error| error.to_string());
        return Ok(pool.install(serve)?);
    }
    // Under `cargo test`, and in `cargo bench` of everything: just that it runs.
    let cases = ["momentum", "adagrad", "adam", "adamw", "adam8"];
    let steps = cases.map(|case| format!("open {case} 3 100\nstep 2\nclose\n")).concat();
    let quant = [
        "layer2 3 96",
        "layer4 1 96",
        "layer8 1 96",
        "quantize8 1 8192",
        "channel8 1 8192",
        "fake8 1 8192",
        "dequantize8 1 8192",
        "csr 3 96",
        "bitmask-codes 1 96",
        "16x1 8 96",
        "pairs 1 96",
    ];
    let others = ["composed 1 1000"].iter().chain(&quant);
    let others: String = others.map(|case| format!("open {case}\nstep 2\nplain 2\nclose\n")).collect();
    let folder = std::env::temp_dir().join(format!("lapidary-peers-{}", std::process::id()));
    slim::example(&folder)?;
    let script = format!("{steps}{others}slim mlp 0.5 {}\nstep 2\nclose\n", folder.display());
    let mut out = Vec::new();
    let served = Port { lines: script.as_bytes().lines(), out: &mut out }.serve();
    std::fs::remove_dir_all(folder)?;
    served?;
    let out = String::from_utf8(out)?;
    assert_eq!(out.lines().count(), 1 + 3 * cases.len() + 4 * (1 + quant.len()) + 3);
    // 10 and 7 hidden units became 5 and 4.
    assert_eq!(out.lines().last(), Some("116"));
    println!("the comparison is started by benches/peers/run");
    Ok(())
}
