//! The ranges of activations, from what a model makes of inputs.

use crate::{
    compress::{
        activations::RangeMethod,
        runtime::{Data, Inputs, Model},
    },
    error::{Error, Result},
    format::onnx::proto::{ModelProto, ValueInfoProto},
    quant::{Affine, Histogram, MinMaxObserver, MovingAverageObserver, Range},
};
use prost::Message;
use std::collections::BTreeSet;

/// What is kept of the values that an activation had.
enum Observer {
    Ends(MinMaxObserver),
    Average(MovingAverageObserver),
    Counts(Histogram),
}

impl Observer {
    fn new(method: RangeMethod) -> Result<Self> {
        Ok(match method {
            RangeMethod::MinMax => Self::Ends(MinMaxObserver::new()),
            RangeMethod::MovingAverage(constant) => {
                Self::Average(MovingAverageObserver::new().with_averaging_constant(constant)?)
            }
            _ => Self::Counts(Histogram::new()),
        })
    }

    fn observe(&mut self, values: &[f32]) -> Result<()> {
        match self {
            Self::Ends(observer) => observer.observe(values),
            Self::Average(observer) => observer.observe(values),
            Self::Counts(histogram) => histogram.observe(values),
        }
    }

    fn range(&self, method: RangeMethod) -> Result<Range> {
        match (self, method) {
            (Self::Ends(observer), _) => observer.range(),
            (Self::Average(observer), _) => observer.range(),
            (Self::Counts(histogram), RangeMethod::Percentile(percent)) => histogram.percentile(percent),
            (Self::Counts(histogram), RangeMethod::Mse) => histogram.mse_affine(Affine::new(8)?),
            (Self::Counts(histogram), _) => histogram.range(),
        }
    }
}

/// The range of each of these values over all samples. One sample after the other runs, and nothing of it stays but counts.
pub(super) fn ranges(
    mut model: ModelProto,
    values: &[String],
    inputs: &Inputs,
    method: RangeMethod,
) -> Result<Vec<Range>> {
    method.check()?;
    let mut observers = values.iter().map(|_| Observer::new(method)).collect::<Result<Vec<_>>>()?;
    let bytes = model.encoded_len() as u64;
    if let Some(graph) = &mut model.graph {
        let given: BTreeSet<_> = graph.input.iter().filter_map(|input| input.name.clone()).collect();
        let made = values.iter().filter(|name| !given.contains(*name));
        // A runtime may leave out what is no output.
        graph.output = made.map(|name| ValueInfoProto { name: Some(name.clone()), ..Default::default() }).collect();
    }
    let model = Model::new(model, bytes, inputs.limit)?;
    let (outputs, samples) = (model.outputs.clone(), inputs.samples(&model.inputs)?);
    let (session, _) = model.load("the model, for the ranges of its activations", inputs)?;
    let mut numbers: Vec<f32> = Vec::new();
    for sample in &samples {
        let made = session.run(sample, &outputs)?;
        for (name, observer) in values.iter().zip(&mut observers) {
            numbers.clear();
            if let Some(place) = outputs.iter().position(|output| output == name) {
                let output = made.get(place).ok_or_else(|| Error::empty("output of the runtime").in_tensor(name))?;
                numbers.extend(output.values.iter().map(|&value| value as f32));
            } else if let Some((_, feed)) = sample.iter().find(|(input, _)| input == name) {
                let Data::F32(values) = &feed.data else {
                    return Err(
                        Error::argument("input", "of integers", "of 32-bit floating-point numbers").in_tensor(name)
                    );
                };
                numbers.extend(values);
            }
            observer.observe(&numbers).map_err(|error| error.in_tensor(name))?;
        }
    }
    let range = |(name, observer): (&String, &Observer)| observer.range(method).map_err(|error| error.in_tensor(name));
    values.iter().zip(&observers).map(range).collect()
}
