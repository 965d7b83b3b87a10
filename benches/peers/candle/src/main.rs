//! candle's side of `benches/peers/run-quant --candle`: products of Q4_0 weights. The lines it is told are those of `benches/peers`.

use candle_core::{
    Device, Module, Result, Tensor,
    quantized::{GgmlDType, QMatMul, QTensor},
};
use std::{
    io::{Write, stdin, stdout},
    time::Instant,
};

fn answer(text: impl std::fmt::Display) -> Result<()> {
    println!("{text}");
    Ok(stdout().flush()?)
}

fn main() -> Result<()> {
    answer("candle")?;
    let mut lines = stdin().lines();
    while let Some(line) = lines.next().transpose()? {
        let words: Vec<usize> = line.split(' ').skip(2).map(|word| word.parse().expect("a number")).collect();
        let (batch, size) = (words[0], words[1]);
        let number = |i: usize| ((i * 7919 % 10007) as f32 / 5003.0) - 1.0;
        let weights = Tensor::from_iter((0..size * size).map(number), &Device::Cpu)?.reshape((size, size))?;
        let layer = QMatMul::from_qtensor(QTensor::quantize(&weights, GgmlDType::Q4_0)?)?;
        let x = Tensor::from_iter((0..batch * size).map(number), &Device::Cpu)?.reshape((batch, size))?;
        answer(size * size / 32 * 18)?;
        for line in lines.by_ref() {
            let line = line?;
            let Some(count) = line.strip_prefix("step ") else { break };
            let mut seconds = Vec::new();
            for _ in 0..count.parse().expect("a number") {
                let clock = Instant::now();
                layer.forward(&x)?;
                seconds.push(clock.elapsed().as_secs_f64().to_string());
            }
            answer(seconds.join(" "))?;
        }
        answer(0)?;
    }
    Ok(())
}
