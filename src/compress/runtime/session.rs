//! Models run by `rten`.

use super::inputs::{Data, Feed};
use crate::error::{Error, Result};
use rten::{ModelOptions, NodeId, Value, ValueOrView};
use rten_tensor::{AsView, Layout};
use std::{any::Any, fmt, thread};

/// A model that the runtime has loaded.
pub(in crate::compress) struct Session {
    model: rten::Model,
    what: &'static str,
}

/// What a model gave.
pub(in crate::compress) struct Output {
    pub(in crate::compress) shape: Vec<usize>,
    pub(in crate::compress) values: Vec<f64>,
}

/// Bytes of stack to run a model on: the runtime calls itself for each node of a chain.
const STACK: usize = 256 << 20;

/// `work` on a stack of its own, with a panic as an error. What it leaves behind is dropped.
pub(super) fn guarded<T: Send, E: fmt::Display + Send>(
    what: &'static str,
    work: impl FnOnce() -> Result<T, E> + Send,
) -> Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
        match thread.map_err(|error| Error::runtime(what, error))?.join() {
            Ok(result) => result.map_err(|error| Error::runtime(what, error)),
            Err(panic) => Err(Error::runtime(what, format!("the runtime panicked: {}", message(&*panic)))),
        }
    })
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

impl Session {
    pub(in crate::compress) fn load(what: &'static str, encoded: Vec<u8>) -> Result<Self> {
        let model = guarded(what, || ModelOptions::with_all_ops().load(encoded))?;
        Ok(Self { model, what })
    }

    fn node(&self, name: &str) -> Result<NodeId> {
        self.model.node_id(name).map_err(|error| Error::runtime(self.what, error).in_tensor(name))
    }

    pub(in crate::compress) fn run(&self, feeds: &[(String, Feed)], outputs: &[String]) -> Result<Vec<Output>> {
        let mut inputs = Vec::with_capacity(feeds.len());
        for (name, feed) in feeds {
            let value = value(feed).map_err(|error| error.in_tensor(name))?;
            inputs.push((self.node(name)?, ValueOrView::from(value)));
        }
        let ids = outputs.iter().map(|name| self.node(name)).collect::<Result<Vec<_>>>()?;
        let values = guarded(self.what, || self.model.run(inputs, &ids, None))?;
        let read = |(value, name): (Value, &String)| output(value).map_err(|error| error.in_tensor(name));
        values.into_iter().zip(outputs).map(read).collect()
    }
}

fn value(feed: &Feed) -> Result<Value> {
    let refused = |error: &dyn fmt::Display| Error::runtime("an input", error);
    match &feed.data {
        Data::F32(values) => Value::from_shape(&feed.shape, values.clone()).map_err(|error| refused(&error)),
        Data::U8(values) => Value::from_shape(&feed.shape, values.clone()).map_err(|error| refused(&error)),
        Data::I32(values) => Value::from_shape(&feed.shape, values.clone()).map_err(|error| refused(&error)),
        Data::Bool(values) => {
            let values: Vec<i32> = values.iter().map(|&value| i32::from(value)).collect();
            Value::from_shape(&feed.shape, values).map_err(|error| refused(&error))
        }
        Data::I64(values) => {
            let narrow =
                |&value: &i64| i32::try_from(value).map_err(|_| Error::argument("integer", value, "of 32 bits here"));
            let values = values.iter().map(narrow).collect::<Result<Vec<i32>>>()?;
            Value::from_shape(&feed.shape, values).map_err(|error| refused(&error))
        }
    }
}

fn output(value: Value) -> Result<Output> {
    let shape = value.shape().to_vec();
    let values = match value {
        Value::FloatTensor(tensor) => tensor.to_vec().into_iter().map(f64::from).collect(),
        Value::Int32Tensor(tensor) => tensor.to_vec().into_iter().map(f64::from).collect(),
        Value::Int8Tensor(tensor) => tensor.to_vec().into_iter().map(f64::from).collect(),
        Value::UInt8Tensor(tensor) => tensor.to_vec().into_iter().map(f64::from).collect(),
        _ => return Err(Error::argument("output", "no tensor", "a tensor")),
    };
    Ok(Output { shape, values })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn a_panic_is_an_error() {
        let panics = || -> Result<(), String> { std::panic::resume_unwind(Box::new("of no use".to_string())) };
        let error = guarded("the original model", panics).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Runtime);
        assert_eq!(error.to_string(), "the original model: the runtime panicked: of no use");
        let fails = || -> Result<(), String> { Err("no".into()) };
        assert_eq!(guarded("it", fails).unwrap_err().to_string(), "it: no");
    }
}
