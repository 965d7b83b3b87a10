//! Models run by ONNX Runtime, whose library is loaded when it is first needed.

use super::{
    inputs::{Data, Feed},
    session::{Output, guarded},
};
use crate::error::{Error, Result};
use ort::{
    session::{Session, SessionInputValue},
    value::{DynValue, PrimitiveTensorElementType, Tensor},
};
use std::{env, fmt, sync::Mutex};

/// Where the library is.
const PATH: &str = "ORT_DYLIB_PATH";

/// A model that the runtime has loaded.
pub(in crate::compress) struct Loaded {
    session: Mutex<Session>,
    what: &'static str,
}

/// Loads the library, if it is not there yet. Later calls keep the first.
fn library() -> Result<()> {
    let path = env::var_os(PATH).filter(|path| !path.is_empty()).ok_or_else(|| {
        Error::runtime("ONNX Runtime", format!("the environment variable {PATH} does not say where its library is"))
    })?;
    let builder = guarded("ONNX Runtime", || ort::init_from(path))?;
    builder.with_name("lapidary").commit();
    Ok(())
}

impl Loaded {
    pub(super) fn load(what: &'static str, encoded: &[u8]) -> Result<Self> {
        library()?;
        let session = guarded(what, || Session::builder()?.commit_from_memory(encoded))?;
        Ok(Self { session: Mutex::new(session), what })
    }

    pub(super) fn run(&self, feeds: &[(String, Feed)], outputs: &[String]) -> Result<Vec<Output>> {
        let mut inputs = Vec::with_capacity(feeds.len());
        for (name, feed) in feeds {
            inputs.push((name.clone(), value(feed).map_err(|error| error.in_tensor(name))?));
        }
        let poisoned = |error: &dyn fmt::Display| Error::runtime(self.what, error);
        let mut session = self.session.lock().map_err(|error| poisoned(&error))?;
        let session = &mut *session;
        let values = guarded(self.what, || session.run(inputs))?;
        let read = |name: &String| match values.get(name) {
            Some(value) => output(value).map_err(|error| error.in_tensor(name)),
            None => Err(Error::runtime(self.what, "it did not give the output").in_tensor(name)),
        };
        outputs.iter().map(read).collect()
    }
}

fn value(feed: &Feed) -> Result<SessionInputValue<'static>> {
    fn of<T: PrimitiveTensorElementType + fmt::Debug + Clone + Send + Sync + 'static>(
        shape: &[usize],
        values: &[T],
    ) -> Result<SessionInputValue<'static>> {
        let tensor = guarded("an input", || Tensor::from_array((shape.to_vec(), values.to_vec())))?;
        Ok(tensor.into())
    }
    match &feed.data {
        Data::F32(values) => of(&feed.shape, values),
        Data::I64(values) => of(&feed.shape, values),
        Data::I32(values) => of(&feed.shape, values),
        Data::U8(values) => of(&feed.shape, values),
        Data::Bool(values) => of(&feed.shape, values),
    }
}

fn output(value: &DynValue) -> Result<Output> {
    macro_rules! of {
        ($($type:ty: $convert:expr;)*) => {
            $(if let Ok((shape, values)) = value.try_extract_tensor::<$type>() {
                let size = |&size: &i64| usize::try_from(size).map_err(|_| Error::argument("size", size, "at least 0"));
                let shape = shape.iter().map(size).collect::<Result<_>>()?;
                return Ok(Output { shape, values: values.iter().map($convert).collect() });
            })*
        };
    }
    of! {
        f32: |&value| value.into();
        f64: |&value| value;
        i64: |&value| value as f64;
        i32: |&value| value.into();
        i8: |&value| value.into();
        u8: |&value| value.into();
        bool: |&value| value.into();
    }
    Err(Error::argument("output", value.dtype(), "a tensor of numbers"))
}
