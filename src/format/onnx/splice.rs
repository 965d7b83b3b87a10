//! A model's encoding around elements that stay where they are, or are still to come.
//!
//! Large raw elements are taken out of the messages, which then are small and are encoded as they are. In that encoding each of them
//! is an empty field. This walks through it, puts the elements' lengths there, and makes all messages around them as much longer.

use super::{
    Bytes, LARGE, external,
    proto::{ModelProto, TensorProto},
    tensor::{info, pending_number},
    visit,
};
use crate::{
    error::{Error, Result},
    format::file::Layout,
};
use prost::{
    DecodeError, Message,
    encoding::{WireType, decode_key, decode_varint, encode_varint, encoded_len_varint},
};
use std::{collections::BTreeMap, ops::Range};

/// Messages on the way to raw elements.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    Sparse,
    Tensor,
    Function,
    Training,
}

impl Kind {
    /// What the field `tag` holds, where that leads to elements.
    fn field(self, tag: u32) -> Option<Self> {
        Some(match (self, tag) {
            (Self::Model, 7) | (Self::Training, 1 | 2) | (Self::Attribute, 6 | 11) => Self::Graph,
            (Self::Model, 20) => Self::Training,
            (Self::Model, 25) => Self::Function,
            (Self::Graph, 1) | (Self::Function, 7) => Self::Node,
            (Self::Graph, 5) | (Self::Attribute, 5 | 10) | (Self::Sparse, 1 | 2) => Self::Tensor,
            (Self::Graph, 15) | (Self::Attribute, 22 | 23) => Self::Sparse,
            (Self::Node, 5) | (Self::Function, 11) => Self::Attribute,
            _ => return None,
        })
    }
}

const RAW_DATA: u32 = 9;

/// What an empty field of raw elements stands for.
enum Content {
    Stored(Bytes),
    Pending { number: usize, name: String, len: usize },
}

impl Content {
    fn len(&self) -> usize {
        match self {
            Self::Stored(bytes) => bytes.len(),
            Self::Pending { len, .. } => *len,
        }
    }
}

/// The file of a model.
pub(super) fn layout(mut model: ModelProto) -> Result<Layout> {
    let mut contents = Vec::new();
    visit::tensors_mut(&mut model, &mut |name, tensor| {
        contents.extend(take(name, tensor)?);
        Ok(())
    })?;
    let skeleton = model.encode_to_vec();
    let broken = |error: DecodeError| Error::format(0, format!("a model that does not read back: {error}"));
    let mut lengths = Vec::new();
    measure(Kind::Model, &skeleton, &mut contents.iter(), &mut lengths).map_err(broken)?;
    let (mut lengths, mut contents) = (lengths.into_iter(), contents.into_iter());
    let mut pieces = Pieces::default();
    pieces.write(Kind::Model, &skeleton, &mut lengths, &mut contents).map_err(broken)?;
    pieces.flush();
    Ok(Layout { fixed: pieces.fixed, places: external::numbered(pieces.places)?, len: pieces.end })
}

/// Leaves an empty field where raw elements are large, pending or empty.
fn take(name: &str, tensor: &mut TensorProto) -> Result<Option<Content>> {
    if let Some(number) = pending_number(tensor) {
        let Some(info) = info(name.into(), tensor)? else { return Ok(None) };
        (tensor.external_data, tensor.raw_data) = (Vec::new(), Some(Bytes::new()));
        return Ok(Some(Content::Pending { number, name: name.into(), len: info.byte_len()? }));
    }
    Ok(match &mut tensor.raw_data {
        Some(raw) if raw.len() >= LARGE || raw.is_empty() => Some(Content::Stored(std::mem::take(raw))),
        _ => None,
    })
}

/// A field of a message: where its key and its value are.
struct Field {
    tag: u32,
    key: Range<usize>,
    /// `None` where the value is not of some length told before.
    body: Option<Range<usize>>,
    end: usize,
}

/// What a field holds.
enum Leads {
    Away,
    To(Kind, Range<usize>),
    ToElements,
}

impl Field {
    /// What this field of a message holds.
    fn leads(&self, kind: Kind) -> Leads {
        match &self.body {
            Some(body) if body.is_empty() && (kind, self.tag) == (Kind::Tensor, RAW_DATA) => Leads::ToElements,
            Some(body) => kind.field(self.tag).map_or(Leads::Away, |kind| Leads::To(kind, body.clone())),
            None => Leads::Away,
        }
    }
}

/// The field that begins at `at`.
fn field(message: &[u8], at: usize) -> Result<Field, DecodeError> {
    let mut rest = &message[at..];
    let (tag, wire) = decode_key(&mut rest)?;
    let key = at..message.len() - rest.len();
    let skip = |rest: &[u8], len: usize| {
        let start = message.len() - rest.len();
        // Longer ones do not come from the encoder.
        start..start.saturating_add(len).min(message.len())
    };
    let (body, end) = match wire {
        WireType::LengthDelimited => {
            let len = decode_varint(&mut rest)? as usize;
            let body = skip(rest, len);
            (Some(body.clone()), body.end)
        }
        WireType::ThirtyTwoBit => (None, skip(rest, 4).end),
        WireType::SixtyFourBit => (None, skip(rest, 8).end),
        _ => {
            decode_varint(&mut rest)?;
            (None, message.len() - rest.len())
        }
    };
    Ok(Field { tag, key, body, end })
}

/// The length of a message with its elements. Those of the messages in it that lead to elements are put down in `lengths`, outer
/// ones first.
fn measure<'a>(
    kind: Kind,
    message: &[u8],
    contents: &mut impl Iterator<Item = &'a Content>,
    lengths: &mut Vec<usize>,
) -> Result<usize, DecodeError> {
    let (mut total, mut at) = (0, 0);
    while at < message.len() {
        let field = field(message, at)?;
        let len = match field.leads(kind) {
            Leads::Away => {
                total += field.end - at;
                at = field.end;
                continue;
            }
            Leads::To(inner, body) => {
                let place = lengths.len();
                lengths.push(0);
                let len = measure(inner, &message[body], contents, lengths)?;
                lengths[place] = len;
                len
            }
            Leads::ToElements => contents.next().map_or(0, Content::len),
        };
        total += field.key.len() + encoded_len_varint(len as u64) + len;
        at = field.end;
    }
    Ok(total)
}

/// The file, in pieces.
#[derive(Default)]
struct Pieces {
    fixed: Vec<(u64, Bytes)>,
    places: BTreeMap<usize, (String, Range<u64>)>,
    /// What is not in `fixed` yet; it ends at `end`.
    open: Vec<u8>,
    end: u64,
}

impl Pieces {
    fn put(&mut self, bytes: &[u8]) {
        self.open.extend_from_slice(bytes);
        self.end += bytes.len() as u64;
    }

    fn flush(&mut self) {
        let open = std::mem::take(&mut self.open);
        if !open.is_empty() {
            self.fixed.push((self.end - open.len() as u64, open.into()));
        }
    }

    /// Writes a message, its lengths and its elements.
    fn write(
        &mut self,
        kind: Kind,
        message: &[u8],
        lengths: &mut impl Iterator<Item = usize>,
        contents: &mut impl Iterator<Item = Content>,
    ) -> Result<(), DecodeError> {
        let mut at = 0;
        while at < message.len() {
            let field = field(message, at)?;
            match field.leads(kind) {
                Leads::Away => self.put(&message[at..field.end]),
                Leads::To(inner, body) => {
                    self.begin(&message[field.key], lengths.next().unwrap_or(0));
                    self.write(inner, &message[body], lengths, contents)?;
                }
                Leads::ToElements => {
                    let content = contents.next();
                    self.begin(&message[field.key], content.as_ref().map_or(0, Content::len));
                    self.flush();
                    let start = self.end;
                    match content {
                        Some(Content::Stored(bytes)) if !bytes.is_empty() => {
                            self.end += bytes.len() as u64;
                            self.fixed.push((start, bytes));
                        }
                        Some(Content::Pending { number, name, len }) => {
                            self.end += len as u64;
                            self.places.insert(number, (name, start..self.end));
                        }
                        _ => {}
                    }
                }
            }
            at = field.end;
        }
        Ok(())
    }

    /// The key and the length of a field.
    fn begin(&mut self, key: &[u8], len: usize) {
        self.put(key);
        let mut varint = Vec::with_capacity(10);
        encode_varint(len as u64, &mut varint);
        self.put(&varint);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::proto::*, *};
    use crate::format::{file::ElementType, onnx};

    /// A model with tensors everywhere, of bytes `make` gives by their numbers.
    fn model(mut make: impl FnMut(usize, usize) -> TensorProto) -> ModelProto {
        let mut count = 0;
        let mut next = |len| {
            count += 1;
            make(count - 1, len)
        };
        let attribute =
            |t: TensorProto| AttributeProto { name: Some("value".into()), t: Some(t), ..Default::default() };
        let mut sparse =
            |len| SparseTensorProto { values: Some(next(len)), indices: Some(next(8)), dims: vec![1 << 40] };
        let first = sparse(3000);
        let last = sparse(1);
        let inner = GraphProto { initializer: vec![next(5000), next(3)], ..Default::default() };
        let node = NodeProto {
            op_type: Some("If".into()),
            attribute: vec![
                AttributeProto { g: Some(inner.clone().into()), floats: vec![1.0, 2.0], ..Default::default() },
                AttributeProto { tensors: vec![next(2000)], graphs: vec![inner], ints: vec![-1], ..Default::default() },
                AttributeProto { sparse_tensor: Some(last), ..attribute(next(0)) },
            ],
            ..Default::default()
        };
        let graph = GraphProto {
            node: vec![node.clone(), NodeProto::default()],
            name: Some("g".into()),
            initializer: vec![next(70_000), next(1024), next(1023)],
            sparse_initializer: vec![first],
            ..Default::default()
        };
        let training = TrainingInfoProto { algorithm: Some(graph.clone()), ..Default::default() };
        let function =
            FunctionProto { node: vec![node], attribute_proto: vec![attribute(next(1500))], ..Default::default() };
        ModelProto {
            ir_version: Some(10),
            graph: Some(graph),
            training_info: vec![training.clone(), training],
            functions: vec![function],
            ..Default::default()
        }
    }

    fn filled(seed: usize, len: usize) -> TensorProto {
        let raw: Vec<u8> = (0..len).map(|i| (i * 31 + seed) as u8).collect();
        onnx::tensor(&format!("t{seed}"), ElementType::U8, &[len], raw.into()).unwrap()
    }

    fn assembled(layout: &Layout) -> Vec<u8> {
        let mut file = vec![0; layout.len as usize];
        let mut covered = 0;
        for (offset, bytes) in &layout.fixed {
            file[*offset as usize..][..bytes.len()].copy_from_slice(bytes);
            covered += bytes.len();
        }
        covered += layout.places.iter().map(|(_, place)| (place.end - place.start) as usize).sum::<usize>();
        assert_eq!(covered, file.len());
        file
    }

    #[test]
    fn the_file_is_what_the_encoder_writes() {
        let model = model(filled);
        let layout = layout(model.clone()).unwrap();
        assert!(layout.places.is_empty());
        assert_eq!(assembled(&layout), model.encode_to_vec());
    }

    #[test]
    fn what_is_to_come_has_its_place() {
        // The large initializers of the main graph are pending; the same in the training's copies would be numbered twice.
        let mut want = model(filled);
        want.training_info.clear();
        let mut pending = want.clone();
        for (number, tensor) in pending.graph.as_mut().unwrap().initializer.iter_mut().enumerate() {
            let (name, len) = (tensor.name.clone().unwrap(), tensor.raw_data.as_ref().unwrap().len());
            *tensor = onnx::pending(&name, ElementType::U8, &[len], number).unwrap();
        }
        let layout = layout(pending).unwrap();
        let mut file = assembled(&layout);
        for ((name, place), tensor) in layout.places.iter().zip(&want.graph.as_ref().unwrap().initializer) {
            assert_eq!(Some(name), tensor.name.as_ref());
            file[place.start as usize..place.end as usize].copy_from_slice(tensor.raw_data.as_ref().unwrap());
        }
        assert_eq!(file, want.encode_to_vec());
        let lone = onnx::pending("a", ElementType::U8, &[1], 1).unwrap();
        let graph = GraphProto { initializer: vec![lone], ..Default::default() };
        assert!(super::layout(ModelProto { graph: Some(graph), ..Default::default() }).is_err());
    }
}
