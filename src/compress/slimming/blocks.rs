//! Residual blocks that change little, left out.

use super::{
    apply::sweep,
    graph::{Read, operator},
    runner,
    shapes::Shapes,
};
use crate::{
    compress::runtime::{Feed, Inputs, Output},
    error::Result,
    format::onnx::proto::ModelProto,
    slim::block_influence,
    tensor::TensorRef,
};
use std::collections::BTreeSet;

/// A sum of a value and of what a branch makes of it.
struct Block {
    node: usize,
    from: String,
    to: String,
}

/// Leaves out the block of the least influence, where there is one: the value it gave, and its influence.
///
/// # Errors
/// Those of running the model.
pub(super) fn drop_least(
    model: &mut ModelProto,
    shapes: &Shapes,
    samples: &[Vec<(String, Feed)>],
    by: &Inputs,
) -> Result<Option<(String, f64)>> {
    let blocks = blocks(&Read::new(model)?, shapes);
    if blocks.is_empty() {
        return Ok(None);
    }
    let names: BTreeSet<&String> = blocks.iter().flat_map(|block| [&block.from, &block.to]).collect();
    let names: Vec<String> = names.into_iter().cloned().collect();
    let session = runner::load("the model", model, &names, by)?;
    let mut sums = vec![0.0; blocks.len()];
    for sample in samples {
        let values = session.run(sample, &names)?;
        let find = |name: &String| names.iter().position(|other| other == name).and_then(|at| values.get(at));
        for (block, sum) in blocks.iter().zip(&mut sums) {
            if let (Some(from), Some(to)) = (find(&block.from), find(&block.to)) {
                // Infinities, as masks are, are no vectors.
                let influence = block_influence(vectors(from)?, vectors(to)?).unwrap_or(f64::INFINITY);
                *sum += influence / samples.len() as f64;
            }
        }
    }
    let finite = (0..blocks.len()).filter(|&at| sums[at].is_finite());
    let Some(least) = finite.min_by(|&a, &b| sums[a].total_cmp(&sums[b]).then(a.cmp(&b))) else {
        return Ok(None);
    };
    let block = &blocks[least];
    if let Some(graph) = &mut model.graph {
        let node = &mut graph.node[block.node];
        node.op_type = Some("Identity".into());
        node.input = vec![block.from.clone()];
        node.attribute.clear();
        sweep(graph);
    }
    Ok(Some((block.to.clone(), sums[least])))
}

/// A sample of an image is a vector, of a sequence each of its steps.
fn vectors(value: &Output) -> Result<TensorRef<'_, f64>> {
    let width = match value.shape[..] {
        [_, _, _, ..] if value.shape.len() > 3 => value.shape[1..].iter().product(),
        _ => value.shape.last().copied().unwrap_or(1),
    };
    TensorRef::new(&value.values[..], &[value.values.len() / width.max(1), width])
}

/// All blocks, in order: what a sum and its branch read, where nothing else reads what is in the branch, and it has weights.
fn blocks(read: &Read<'_>, shapes: &Shapes) -> Vec<Block> {
    let nodes = &read.graph.node;
    let mut all = Vec::new();
    for (index, node) in nodes.iter().enumerate().filter(|(_, node)| operator(node) == "Add" && node.input.len() == 2) {
        let shape = |name: &str| shapes.exact(name).filter(|shape| !shape.is_empty());
        let Some(to) = node.output.first().filter(|to| shape(to).is_some()) else { continue };
        for (from, branch) in [(&node.input[0], &node.input[1]), (&node.input[1], &node.input[0])] {
            if !read.is_input(from)
                && shape(from) == shape(to)
                && shape(branch) == shape(to)
                && from != branch
                && is_branch(read, index, from, branch)
            {
                all.push(Block { node: index, from: from.clone(), to: to.clone() });
                break;
            }
        }
    }
    all
}

/// Whether a branch starts from a value, ends in a sum, is read by nothing else, and has weights.
fn is_branch(read: &Read<'_>, sum: usize, from: &str, branch: &str) -> bool {
    let nodes = &read.graph.node;
    // What depends on the start.
    let mut after: BTreeSet<&str> = BTreeSet::from([from]);
    let mut descendants = Vec::new();
    for (index, node) in nodes.iter().enumerate().take(sum) {
        let implicit = read.implicit(index).iter().copied();
        if node.input.iter().map(String::as_str).chain(implicit).any(|name| after.contains(name)) {
            after.extend(node.output.iter().map(String::as_str).filter(|name| !name.is_empty()));
            descendants.push(index);
        }
    }
    if !after.contains(branch) {
        return false;
    }
    let mut needed: BTreeSet<&str> = BTreeSet::from([branch]);
    let mut inside: BTreeSet<usize> = BTreeSet::new();
    for index in descendants.into_iter().rev() {
        let node = &nodes[index];
        if node.output.iter().any(|name| needed.contains(name.as_str()) && name != from) {
            needed.extend(node.input.iter().map(String::as_str));
            inside.insert(index);
        }
    }
    let weighs = |&index: &usize| matches!(operator(&nodes[index]), "Conv" | "ConvTranspose" | "MatMul" | "Gemm");
    let closed = |&index: &usize| {
        nodes[index].output.iter().filter(|name| !name.is_empty()).all(|name| {
            let readers = read.readers.get(name.as_str()).map_or(&[][..], Vec::as_slice);
            !read.is_output(name) && readers.iter().all(|reader| *reader == sum || inside.contains(reader))
        })
    };
    inside.iter().any(weighs) && inside.iter().all(closed)
}
