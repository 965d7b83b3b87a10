//! A model in several files.

use super::{SafeTensors, twice};
use crate::{
    error::{Error, Result},
    format::file::{Bytes, TensorFile, TensorInfo, at},
    map,
};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use std::{
    collections::BTreeMap,
    fmt,
    path::{Component, Path, PathBuf},
};

/// A model in several safetensors files, by its index `model.safetensors.index.json`: JSON whose `weight_map` says in which file each
/// tensor is, as Hugging Face's libraries write it. A tensor of a file that the index does not name is no part of the model.
pub struct Sharded {
    shards: Vec<SafeTensors>,
    files: Vec<PathBuf>,
    tensors: Vec<TensorInfo>,
    /// The shard of each tensor, and its index there.
    places: Vec<(usize, usize)>,
    metadata: BTreeMap<String, String>,
}

impl Sharded {
    /// Maps the files that an index names, all beside it. Tensors are in the order of the files' names, and then of each file.
    /// [`metadata`](TensorFile::metadata) is that of all files; where they differ, the first one's.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) when the index or a file cannot be read; [`Format`](crate::ErrorKind::Format) when the index is not
    /// such JSON, names a tensor twice, a file that is not below the index's directory (`../`, an absolute path) or a tensor that its file
    /// does not have; as [`SafeTensors::decode`] else.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let index: Index = serde_json::from_slice(&map::map(path)?)
            .map_err(|error| Error::format(0, format!("{}: {error}", path.display())))?;
        let mut files = BTreeMap::<_, Vec<_>>::new();
        for (tensor, file) in &index.weight_map.0 {
            files.entry(&**file).or_default().push(&**tensor);
        }
        let mut model =
            Self { shards: vec![], files: vec![], tensors: vec![], places: vec![], metadata: BTreeMap::new() };
        for (name, mut listed) in files {
            if !below(name) {
                let reason = format!("the index names the file {name:?}, which is not below its directory");
                return Err(Error::format(0, reason).in_tensor(listed.first().unwrap_or(&"")));
            }
            let file = path.with_file_name(name);
            let shard = SafeTensors::open(&file).map_err(|error| error.in_tensor(name))?;
            model.files.push(file);
            listed.sort_unstable();
            if let Some(tensor) = twice(&listed) {
                return Err(Error::format(0, "the index names this tensor twice").in_tensor(tensor));
            }
            let missing = |tensor: &&&str| shard.index(tensor).is_none();
            if let Some(tensor) = listed.iter().find(missing) {
                return Err(Error::format(0, format!("the index names it in {name:?}, which does not have it"))
                    .in_tensor(tensor));
            }
            for (place, tensor) in shard.tensors().iter().enumerate() {
                if listed.binary_search(&&*tensor.name).is_ok() {
                    model.tensors.push(tensor.clone());
                    model.places.push((model.shards.len(), place));
                }
            }
            for (key, value) in shard.notes() {
                model.metadata.entry(key.clone()).or_insert_with(|| value.clone());
            }
            model.shards.push(shard);
        }
        let mut names: Vec<_> = model.tensors.iter().map(|tensor| &*tensor.name).collect();
        names.sort_unstable();
        match twice(&names) {
            Some(name) => Err(Error::format(0, "the index names this tensor in two files").in_tensor(name)),
            None => Ok(model),
        }
    }
}

/// Whether a path only goes down.
fn below(name: &str) -> bool {
    let mut parts = Path::new(name).components().peekable();
    parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_))) && !name.contains('\0')
}

impl TensorFile for Sharded {
    fn format(&self) -> &'static str {
        "safetensors"
    }

    fn byte_len(&self) -> u64 {
        self.shards.iter().map(SafeTensors::byte_len).sum()
    }

    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn data(&self, index: usize) -> Result<Bytes> {
        at(&self.tensors, index)?;
        let place = self.places.get(index).and_then(|&(shard, place)| Some((self.shards.get(shard)?, place)));
        place.map_or_else(|| Ok(Bytes::new()), |(shard, place)| shard.data(place))
    }

    fn files(&self) -> Vec<PathBuf> {
        self.files.clone()
    }

    fn metadata(&self) -> BTreeMap<String, String> {
        self.metadata.clone()
    }
}

impl fmt::Debug for Sharded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.shards).finish()
    }
}

#[derive(Deserialize)]
struct Index {
    weight_map: Pairs,
}

/// The pairs of a map, keys as often as they are there.
struct Pairs(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of tensors to files")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ErrorKind,
        format::{
            file::{self, ElementType},
            safetensors::layout,
        },
    };
    use std::fs;

    #[test]
    fn an_index_is_one_file_and_what_it_says_wrong_is_named() {
        let dir = std::env::temp_dir().join(format!("lapidary-sharded-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        for (file, names) in [("model-2.safetensors", &["a", "c"][..]), ("model-1.safetensors", &["b", "extra"])] {
            let info = |name: &&str| TensorInfo { name: (*name).into(), element: ElementType::U8, shape: vec![1] };
            let infos: Vec<_> = names.iter().map(info).collect();
            let metadata = [("format".into(), "pt".into()), (file.into(), "here".into())].into();
            let writer = layout(&infos, &metadata).unwrap().create(dir.join(file)).unwrap();
            names.iter().enumerate().for_each(|(i, name)| writer.write(i, 0, &name.as_bytes()[..1]).unwrap());
            writer.finish().unwrap();
        }
        let path = dir.join("model.safetensors.index.json");
        let open = |map: &str| {
            fs::write(&path, format!(r#"{{"metadata":{{"total_size":3}},"weight_map":{map}}}"#)).unwrap();
            file::open(&path)
        };
        let (one, two) = (r#"":"model-1.safetensors""#, r#"":"model-2.safetensors""#);
        let model = open(&format!(r#"{{"a{two},"b{one},"c{two}}}"#)).unwrap();
        let names: Vec<_> = model.tensors().iter().map(|tensor| &*tensor.name).collect();
        assert_eq!((model.format(), &names[..]), ("safetensors", &["b", "a", "c"][..]));
        (0..3).for_each(|i| assert_eq!(&model.data(i).unwrap()[..], names[i].as_bytes()));
        assert_eq!(model.data(3).unwrap_err().kind(), ErrorKind::Argument);
        assert_eq!(model.metadata().len(), 3);
        for (map, kind, named, reason) in [
            (format!(r#"{{"a{two},"b{two}}}"#), ErrorKind::Format, "b", "does not have it"),
            (format!(r#"{{"a{two},"a{two}}}"#), ErrorKind::Format, "a", "twice"),
            (r#"{"a":"model-3.safetensors"}"#.into(), ErrorKind::Io, "model-3.safetensors", "model-3"),
            (r#"{"a":"../model-1.safetensors"}"#.into(), ErrorKind::Format, "a", "not below"),
            (r#"{"a":"x/../../y.safetensors"}"#.into(), ErrorKind::Format, "a", "not below"),
            (format!(r#"{{"a":{:?}}}"#, dir.join("model-2.safetensors")), ErrorKind::Format, "a", "not below"),
            (r#"{"a":""}"#.into(), ErrorKind::Format, "a", "not below"),
            (r#"{"a":"\u0000"}"#.into(), ErrorKind::Format, "a", "not below"),
        ] {
            let error = open(&map).err().unwrap();
            assert_eq!((error.kind(), error.tensor()), (kind, Some(named)), "{map}: {error}");
            assert!(error.to_string().contains(reason), "{error}");
        }
        fs::copy(dir.join("model-2.safetensors"), dir.join("model-3.safetensors")).unwrap();
        let error = open(&format!(r#"{{"a{two},"a":"model-3.safetensors"}}"#)).err().unwrap();
        assert!(error.to_string().contains("two files"), "{error}");
        assert_eq!(open("[]").err().unwrap().kind(), ErrorKind::Format);
        assert_eq!(open("{}").unwrap().tensors().len(), 0);
        fs::remove_dir_all(dir).unwrap();
    }
}
