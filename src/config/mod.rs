//! Configurations as `serde` has them (feature `serde`). One is written as its fields, and read by calling the methods that build
//! it: a file has no way around their checks, and what it leaves out is as they leave it.

#[cfg(feature = "serde")]
pub(crate) mod names;
#[cfg(feature = "serde")]
pub(crate) mod open;

/// How a configuration is written and read:
///
/// ```text
/// config! {
///     AdamW(learning_rate: f64) => Self::new(learning_rate),       what a file has to say, and the constructor
///     convention: Convention => Self::with_convention,             what it may say, in the order in which it is set
///     levels: u8 = |it| it.spec.bits => Self::with_levels,         the same, of what is no field of this name
/// }
/// ```
///
/// A method is called only where the file says something else than is so without it. It returns a configuration, or a `Result` of one.
/// A last `; check: …` says what cannot be written.
#[cfg(feature = "serde")]
macro_rules! config {
    (
        $type:ident $(<$within:ident>)? ($($need:ident: $needed:ty $(= $tell:expr)?),*) => $new:expr,
        $($(#[$when:meta])* $name:ident: $value:ty $(= $get:expr)? => $with:expr,)*
        $(; check: $check:expr)?
    ) => {
        impl $(<$within: serde::Serialize>)? serde::Serialize for $type $(<$within>)? {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
                use serde::ser::SerializeStruct;
                $(crate::config::tell(self, $check).map_err(serde::ser::Error::custom)?;)?
                let names: &[&str] = &[$(stringify!($need),)* $($(#[$when])* stringify!($name),)*];
                #[allow(unused_mut, reason = "there may be no field")]
                let mut fields = serializer.serialize_struct(stringify!($type), names.len())?;
                $(fields.serialize_field(stringify!($need), crate::config::config!(@field self, $need $(, $tell)?))?;)*
                $(
                    $(#[$when])*
                    fields.serialize_field(stringify!($name), &Some(crate::config::config!(@field self, $name $(, $get)?)))?;
                )*
                fields.end()
            }
        }

        impl<'de, $($within: serde::Deserialize<'de>)?> serde::Deserialize<'de> for $type $(<$within>)? {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
                #[derive(serde::Deserialize)]
                #[serde(deny_unknown_fields, expecting = "the fields of a configuration")]
                struct Written $(<$within>)? {
                    $($need: $needed,)*
                    $($(#[$when])* $name: Option<$value>,)*
                }
                #[allow(unused_variables, reason = "there may be no field")]
                let written = Written::deserialize(deserializer)?;
                let build = move || -> crate::Result<Self> {
                    $(let $need = written.$need;)*
                    let config: Self = crate::config::Built::built($new)?;
                    $(
                        $(#[$when])*
                        let config = match written.$name {
                            Some(value) if value != *crate::config::config!(@field &config, $name $(, $get)?) => {
                                crate::config::set(config, value, $with)?
                            }
                            _ => config,
                        };
                    )*
                    Ok(config)
                };
                build().map_err(serde::de::Error::custom)
            }
        }
    };
    (@field $config:expr, $name:ident) => { &($config).$name };
    (@field $config:expr, $name:ident, $get:expr) => { &crate::config::tell($config, $get) };
}

#[cfg(not(feature = "serde"))]
macro_rules! config {
    ($($any:tt)*) => {};
}

pub(crate) use config;

/// What a method that builds a `C` returns.
#[cfg(feature = "serde")]
pub(crate) trait Built<C> {
    fn built(self) -> crate::Result<C>;
}

#[cfg(feature = "serde")]
impl<C> Built<C> for C {
    fn built(self) -> crate::Result<C> {
        Ok(self)
    }
}

#[cfg(feature = "serde")]
impl<C> Built<C> for crate::Result<C> {
    fn built(self) -> Self {
        self
    }
}

/// Calls a method, or a closure that needs no types, since they are told here.
#[cfg(feature = "serde")]
pub(crate) fn set<C, V, B: Built<C>>(config: C, value: V, with: impl FnOnce(C, V) -> B) -> crate::Result<C> {
    with(config, value).built()
}

/// As [`set`], to ask.
#[cfg(feature = "serde")]
pub(crate) fn tell<C, V>(config: &C, get: impl FnOnce(&C) -> V) -> V {
    get(config)
}

/// What a build without a feature is told of it. It writes that there is none, as one with the feature does; what there is, it cannot take.
#[cfg(feature = "serde")]
#[derive(Clone, Copy, PartialEq)]
#[allow(dead_code, reason = "some builds have all that could be absent")]
pub(crate) struct Absent;

#[cfg(feature = "serde")]
impl serde::Serialize for Absent {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Absent {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

/// A part of a choice, which not every value of its type can be: for `#[serde(deserialize_with = …)]`.
#[cfg(feature = "serde")]
pub(crate) fn checked<'de, D, V, C>(from: D, check: impl FnOnce(V) -> crate::Result<C>) -> Result<C, D::Error>
where
    D: serde::Deserializer<'de>,
    V: serde::Deserialize<'de>,
{
    check(V::deserialize(from)?).map_err(serde::de::Error::custom)
}
