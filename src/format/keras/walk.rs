//! All datasets of a file, by the way to them.

use super::datatype;
use crate::format::file::TensorInfo;
use hdf5_reader::{Hdf5File, error::Result, group::Group};
use std::collections::{BTreeMap, HashSet};

/// How deep groups may be in groups.
const MAX_DEPTH: usize = 64;

/// A tensor's elements in the file.
pub(super) struct Dataset {
    pub(super) dataset: hdf5_reader::Dataset,
    pub(super) chunked: bool,
    pub(super) big_endian: bool,
}

/// What a file has.
#[derive(Default)]
pub(super) struct Found {
    pub(super) tensors: Vec<TensorInfo>,
    pub(super) datasets: Vec<Dataset>,
    pub(super) metadata: BTreeMap<String, String>,
}

/// Each group once, even where several links point to it: links may form a ring.
pub(super) fn walk(file: &Hdf5File) -> Result<Found> {
    let root = file.root_group()?;
    let mut found = Found::default();
    found.texts(&root)?;
    let mut seen = HashSet::from([root.address()]);
    let mut open = vec![(root, String::new(), 0)];
    while let Some((group, path, depth)) = open.pop() {
        let (groups, datasets) = group.members()?;
        for dataset in datasets {
            let name = format!("{path}{}", dataset.name());
            found.add(name, dataset)?;
        }
        // The last in is the first out: backwards, so that groups come in their order.
        for group in groups.into_iter().rev() {
            if depth < MAX_DEPTH && seen.insert(group.address()) {
                if depth == 0 && group.name() == "model_weights" {
                    found.texts(&group)?;
                }
                let path = format!("{path}{}/", group.name());
                open.push((group, path, depth + 1));
            }
        }
    }
    Ok(found)
}

impl Found {
    /// The attributes that are one text.
    fn texts(&mut self, group: &Group) -> Result<()> {
        for attribute in group.attributes()? {
            if let (true, Ok(text)) = (attribute.num_elements()? == 1, attribute.read_string()) {
                self.metadata.insert(attribute.name, text);
            }
        }
        Ok(())
    }

    fn add(&mut self, name: String, dataset: hdf5_reader::Dataset) -> Result<()> {
        let element = datatype::element(dataset.dtype(), &dataset.raw_datatype()?);
        let shape = dataset.shape().iter().map(|&size| usize::try_from(size).ok()).collect::<Option<Vec<_>>>();
        let (Some((element, big_endian)), Some(shape)) = (element, shape) else {
            self.metadata.insert(format!("left out: {name}"), format!("elements of {:.80?}", dataset.dtype()));
            return Ok(());
        };
        self.tensors.push(TensorInfo { name, element, shape });
        self.datasets.push(Dataset { chunked: dataset.chunks().is_some(), dataset, big_endian });
        Ok(())
    }
}
