//! What a GGUF file says of its model.

use std::fmt;

/// Elements of a long array that [`Display`](fmt::Display) shows.
const SHOWN: usize = 16;

/// A value of the metadata.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// Unsigned, 8 bits.
    U8(u8),
    /// Signed, 8 bits.
    I8(i8),
    /// Unsigned, 16 bits.
    U16(u16),
    /// Signed, 16 bits.
    I16(i16),
    /// Unsigned, 32 bits.
    U32(u32),
    /// Signed, 32 bits.
    I32(i32),
    /// IEEE 754 binary32.
    F32(f32),
    /// A byte, 0 or 1.
    Bool(bool),
    /// UTF-8.
    String(String),
    /// Values of one type.
    Array(Array),
    /// Unsigned, 64 bits.
    U64(u64),
    /// Signed, 64 bits.
    I64(i64),
    /// IEEE 754 binary64.
    F64(f64),
}

/// Values of one type, a vocabulary of tokens for instance.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Array {
    /// Of [`Value::U8`].
    U8(Vec<u8>),
    /// Of [`Value::I8`].
    I8(Vec<i8>),
    /// Of [`Value::U16`].
    U16(Vec<u16>),
    /// Of [`Value::I16`].
    I16(Vec<i16>),
    /// Of [`Value::U32`].
    U32(Vec<u32>),
    /// Of [`Value::I32`].
    I32(Vec<i32>),
    /// Of [`Value::F32`].
    F32(Vec<f32>),
    /// Of [`Value::Bool`].
    Bool(Vec<bool>),
    /// Of [`Value::String`].
    String(Vec<String>),
    /// Of arrays, each with a type of its own.
    Array(Vec<Array>),
    /// Of [`Value::U64`].
    U64(Vec<u64>),
    /// Of [`Value::I64`].
    I64(Vec<i64>),
    /// Of [`Value::F64`].
    F64(Vec<f64>),
}

/// Calls a macro with the numbers of files for types of a known length, and the variants.
macro_rules! numbers {
    ($callback:ident!($($head:tt)*)) => {
        $callback! { $($head)*
            0 U8 u8, 1 I8 i8, 2 U16 u16, 3 I16 i16, 4 U32 u32, 5 I32 i32, 6 F32 f32, 10 U64 u64, 11 I64 i64, 12 F64 f64
        }
    };
}
pub(super) use numbers;

pub(super) const BOOL: u32 = 7;
pub(super) const STRING: u32 = 8;
pub(super) const ARRAY: u32 = 9;

impl fmt::Display for Value {
    /// The number or text as it is, an array as [`Array`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::U8(value) => value.fmt(f),
            Self::I8(value) => value.fmt(f),
            Self::U16(value) => value.fmt(f),
            Self::I16(value) => value.fmt(f),
            Self::U32(value) => value.fmt(f),
            Self::I32(value) => value.fmt(f),
            Self::F32(value) => value.fmt(f),
            Self::Bool(value) => value.fmt(f),
            Self::String(value) => value.fmt(f),
            Self::Array(value) => value.fmt(f),
            Self::U64(value) => value.fmt(f),
            Self::I64(value) => value.fmt(f),
            Self::F64(value) => value.fmt(f),
        }
    }
}

impl fmt::Display for Array {
    /// In brackets, after the first 16 elements how many there are: `[1, 2, … 300 elements]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn list<T>(
            values: &[T],
            f: &mut fmt::Formatter<'_>,
            show: impl Fn(&T, &mut fmt::Formatter<'_>) -> fmt::Result,
        ) -> fmt::Result {
            f.write_str("[")?;
            for (i, value) in values.iter().take(SHOWN).enumerate() {
                f.write_str(if i == 0 { "" } else { ", " })?;
                show(value, f)?;
            }
            match values.len() {
                ..=SHOWN => f.write_str("]"),
                len => write!(f, ", … {len} elements]"),
            }
        }
        match self {
            Self::U8(values) => list(values, f, fmt::Display::fmt),
            Self::I8(values) => list(values, f, fmt::Display::fmt),
            Self::U16(values) => list(values, f, fmt::Display::fmt),
            Self::I16(values) => list(values, f, fmt::Display::fmt),
            Self::U32(values) => list(values, f, fmt::Display::fmt),
            Self::I32(values) => list(values, f, fmt::Display::fmt),
            Self::F32(values) => list(values, f, fmt::Display::fmt),
            Self::Bool(values) => list(values, f, fmt::Display::fmt),
            Self::String(values) => list(values, f, fmt::Debug::fmt),
            Self::Array(values) => list(values, f, fmt::Display::fmt),
            Self::U64(values) => list(values, f, fmt::Display::fmt),
            Self::I64(values) => list(values, f, fmt::Display::fmt),
            Self::F64(values) => list(values, f, fmt::Display::fmt),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_arrays_are_shown_by_their_beginning() {
        assert_eq!(Value::String("a\"b".into()).to_string(), "a\"b");
        assert_eq!(Value::F32(0.5).to_string(), "0.5");
        let nested = Array::Array(vec![Array::String(vec!["a".into()]), Array::Bool(vec![])]);
        assert_eq!(Value::Array(nested).to_string(), "[[\"a\"], []]");
        let long = Array::U8(vec![7; 17]).to_string();
        assert_eq!(long, format!("[{}… 17 elements]", "7, ".repeat(16)));
    }
}
