//! Values by names of the caller's, each name once: of two values of one name, none is the one that was meant.

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, MapAccess, Visitor},
};
use std::{collections::BTreeMap, fmt, marker::PhantomData};

#[derive(Clone, PartialEq)]
pub(crate) struct Names<V>(pub(crate) BTreeMap<String, V>);

impl<V: Serialize> Serialize for Names<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Names<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Once<V>(PhantomData<V>);

        impl<'de, V: Deserialize<'de>> Visitor<'de> for Once<V> {
            type Value = BTreeMap<String, V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("values by their names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut named = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    if named.contains_key(&name) {
                        return Err(A::Error::custom(format_args!("the name {name:?} is given twice")));
                    }
                    named.insert(name, map.next_value()?);
                }
                Ok(named)
            }
        }

        deserializer.deserialize_map(Once(PhantomData)).map(Self)
    }
}

/// The same of a field: `#[serde(deserialize_with = "crate::config::names::read")]`.
pub(crate) fn read<'de, V: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, V>, D::Error> {
    Names::deserialize(from).map(|names| names.0)
}
