//! Measured numbers, which may be infinite or none at all. Where people read, those are written as text, since JSON has no number for them.

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeOwned, Error},
};

/// A field of measured numbers: `#[serde(with = "crate::config::open")]`.
pub(crate) trait Open: Copy {
    type Numbers: Serialize + DeserializeOwned;

    fn write(self) -> Self::Numbers;
    fn read(numbers: Self::Numbers) -> Self;
}

pub(crate) fn serialize<T: Open, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    value.write().serialize(serializer)
}

pub(crate) fn deserialize<'de, T: Open, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    T::Numbers::deserialize(deserializer).map(T::read)
}

/// A number of any kind.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Number(pub(crate) f64);

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let name = match self.0 {
            x if x.is_nan() => "nan",
            f64::INFINITY => "inf",
            f64::NEG_INFINITY => "-inf",
            x => return serializer.serialize_f64(x),
        };
        if serializer.is_human_readable() { serializer.serialize_str(name) } else { serializer.serialize_f64(self.0) }
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a number, \"inf\", \"-inf\" or \"nan\"")]
        enum Written {
            Number(f64),
            Name(String),
        }
        if !deserializer.is_human_readable() {
            return f64::deserialize(deserializer).map(Self);
        }
        match Written::deserialize(deserializer)? {
            Written::Number(x) => Ok(Self(x)),
            Written::Name(name) => match &*name {
                "inf" => Ok(Self(f64::INFINITY)),
                "-inf" => Ok(Self(f64::NEG_INFINITY)),
                "nan" => Ok(Self(f64::NAN)),
                other => Err(D::Error::custom(format_args!("{other:?} is no number, \"inf\", \"-inf\" or \"nan\""))),
            },
        }
    }
}

impl Open for f64 {
    type Numbers = Number;

    fn write(self) -> Number {
        Number(self)
    }

    fn read(number: Number) -> Self {
        number.0
    }
}

impl Open for Option<f64> {
    type Numbers = Option<Number>;

    fn write(self) -> Option<Number> {
        self.map(Number)
    }

    fn read(number: Option<Number>) -> Self {
        number.map(|number| number.0)
    }
}
