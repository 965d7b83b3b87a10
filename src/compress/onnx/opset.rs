//! Which version of ONNX's operators a model needs, and whether it may have it.

use super::nodes::{attribute, inner, is_onnx};
use crate::format::onnx::{
    self,
    proto::{ModelProto, NodeProto, OperatorSetIdProto},
};

/// The version of ONNX's own operators that a model imports.
pub(super) fn version(model: &ModelProto) -> i64 {
    model.opset_import.iter().find(|set| is_own(set)).and_then(|set| set.version).unwrap_or(1)
}

/// Whether a set is ONNX's own.
fn is_own(set: &OperatorSetIdProto) -> bool {
    matches!(set.domain.as_deref(), None | Some("" | "ai.onnx"))
}

/// The least version of the format that may import version `opset` of the operators.
pub(super) fn ir_version(opset: i64) -> i64 {
    match opset {
        ..=8 => 3,
        9 => 4,
        10 => 5,
        11 => 6,
        12..=14 => 7,
        15..=18 => 8,
        19..=20 => 9,
        21..=22 => 10,
        23 => 11,
        24 => 12,
        _ => 13,
    }
}

/// Makes a model import at least this version of a set of operators.
pub(super) fn import(model: &mut ModelProto, domain: &str, version: i64) {
    let same = |set: &&mut OperatorSetIdProto| match set.domain.as_deref().unwrap_or_default() {
        "ai.onnx" => domain.is_empty(),
        other => other == domain,
    };
    match model.opset_import.iter_mut().find(same) {
        Some(set) => set.version = Some(set.version.unwrap_or(0).max(version)),
        None => model.opset_import.push(OperatorSetIdProto { domain: Some(domain.into()), version: Some(version) }),
    }
    if domain.is_empty() {
        model.ir_version = Some(model.ir_version.unwrap_or(0).max(ir_version(version)));
    }
}

/// The first node that would mean something else in version `to` of the operators than in version `from`, and why.
pub(super) fn blocker(model: &ModelProto, from: i64, to: i64) -> Option<String> {
    if from < 7 && from < to {
        return Some(format!("the operators of version {from} broadcast in another way"));
    }
    let mut nodes: Vec<&NodeProto> = Vec::new();
    for graph in model
        .graph
        .iter()
        .chain(model.training_info.iter().flat_map(|info| info.initialization.iter().chain(&info.algorithm)))
    {
        nodes.extend(&graph.node);
    }
    // A function imports a version of its own, and ONNX's checker asks that its operators are the same in the model's.
    for function in &model.functions {
        let own = function.opset_import.iter().find(|set| is_own(set)).and_then(|set| set.version);
        if own.is_some_and(|own| own < to) && function.node.iter().any(is_onnx) {
            let name = function.name.as_deref().unwrap_or_default();
            return Some(format!("the function {name:?} imports version {}", own.unwrap_or(from)));
        }
    }
    while let Some(node) = nodes.pop() {
        if let Some(change) = changed(node, from, to) {
            let (operator, called) = (node.op_type.as_deref().unwrap_or_default(), onnx::called(node));
            return Some(format!("{operator} {called:?} is another operator from version {change} on"));
        }
        nodes.extend(inner(node).flat_map(|graph| &graph.node));
    }
    None
}

/// The version above `from`, up to `to`, from which on the node is not what it was: its attributes became inputs, or its defaults
/// changed. Additions that leave old nodes as they are do not count.
///
/// By the changes that ONNX's operator schemas list.
fn changed(node: &NodeProto, from: i64, to: i64) -> Option<i64> {
    if !is_onnx(node) {
        return None;
    }
    let has = |name: &str| attribute(node, name).is_some();
    let has_value =
        |name: &str, value: &[u8]| attribute(node, name).and_then(|of| of.s.as_deref()).is_some_and(|s| s == value);
    let has_any = |names: &[&str]| names.iter().any(|name| has(name));
    let changes: &[(i64, bool)] = match node.op_type.as_deref()? {
        "Dropout" => &[(12, has("ratio"))],
        "Clip" => &[(11, has_any(&["min", "max"]))],
        "Pad" => &[(11, has_any(&["pads", "value"]))],
        "Slice" => &[(10, has_any(&["starts", "ends", "axes"]))],
        "TopK" => &[(10, has("k"))],
        "Upsample" => &[(10, true)],
        "Resize" => &[(11, true), (13, has_value("coordinate_transformation_mode", b"tf_half_pixel_for_nn"))],
        "Scan" => &[(9, true)],
        "Scatter" => &[(11, true)],
        "Softmax" | "LogSoftmax" | "Hardmax" => &[(13, true)],
        "Squeeze" | "Unsqueeze" => &[(13, has("axes"))],
        "ReduceSum" => &[(13, has("axes"))],
        "Split" => &[(13, has("split")), (18, node.input.len() < 2 && !has("num_outputs"))],
        "BatchNormalization" => &[(9, has("spatial")), (14, node.output.len() > 1)],
        "RoiAlign" => &[(16, !has("coordinate_transformation_mode"))],
        "ReduceL1" | "ReduceL2" | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceMax" | "ReduceMean" | "ReduceMin"
        | "ReduceProd" | "ReduceSumSquare" => &[(18, has("axes"))],
        "AveragePool" => &[(19, attribute(node, "ceil_mode").is_some_and(|mode| mode.i == Some(1)))],
        "GridSample" => &[(20, has("mode"))],
        "DFT" => &[(20, true)],
        "GroupNormalization" => &[(21, true)],
        _ => &[],
    };
    changes.iter().find(|(version, changes)| *changes && (from + 1..=to).contains(version)).map(|(version, _)| *version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::onnx::proto::{AttributeProto, GraphProto};

    fn model(node: NodeProto) -> ModelProto {
        let graph = GraphProto { node: vec![node], ..Default::default() };
        ModelProto { graph: Some(graph), ..Default::default() }
    }

    #[test]
    fn a_node_that_would_change_is_named() {
        let axes = AttributeProto { name: Some("axes".into()), ..Default::default() };
        let mean = NodeProto {
            op_type: Some("ReduceMean".into()),
            output: vec!["m".into()],
            attribute: vec![axes],
            ..Default::default()
        };
        assert!(blocker(&model(mean.clone()), 13, 21).unwrap().contains("ReduceMean \"m\""));
        assert_eq!(blocker(&model(mean.clone()), 18, 21), None);
        assert_eq!(blocker(&model(mean.clone()), 13, 17), None);
        let body = GraphProto { node: vec![mean], ..Default::default() };
        let branch = AttributeProto { g: Some(Box::new(body)), ..Default::default() };
        let outer = NodeProto { op_type: Some("If".into()), attribute: vec![branch], ..Default::default() };
        assert!(blocker(&model(outer), 13, 21).is_some());
    }

    #[test]
    fn versions_only_rise() {
        let mut model = ModelProto { ir_version: Some(9), ..Default::default() };
        import(&mut model, "", 13);
        assert_eq!((version(&model), model.ir_version), (13, Some(9)));
        import(&mut model, "", 21);
        import(&mut model, "com.microsoft", 1);
        import(&mut model, "", 11);
        assert_eq!((version(&model), model.ir_version, model.opset_import.len()), (21, Some(10), 2));
    }
}
