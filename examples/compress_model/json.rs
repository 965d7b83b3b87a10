//! The report as JSON. What is infinite or not a number is `null`.

use super::Said;
use lapidary::compress::{ActivationReport, Report, TensorReport};
use serde_json::{Value, json};

pub(crate) fn text(said: &Said<'_>) -> Result<String, serde_json::Error> {
    let Said { input, output, report, outputs } = said;
    let outputs = outputs.iter().map(|of| {
        json!({
            "name": of.name,
            "max_abs_difference": of.max_abs,
            "relative_difference": of.relative,
            "cosine": of.cosine,
            "argmax_agreement": of.agreement,
        })
    });
    serde_json::to_string_pretty(&json!({
        "input": input.display().to_string(),
        "output": output.display().to_string(),
        "bytes_before": report.bytes_before,
        "bytes_after": report.bytes_after,
        "relative_error": report.relative_error,
        "notes": report.notes,
        "slimmed": slimmed(report),
        "activations": report.activations.iter().map(activation).collect::<Vec<_>>(),
        "tensors": report.tensors.iter().map(tensor).collect::<Vec<_>>(),
        "outputs": outputs.collect::<Vec<_>>(),
    }))
}

fn activation(activation: &ActivationReport) -> Value {
    let levels = activation.levels.as_ref();
    json!({
        "name": activation.name,
        "operators": activation.operators,
        "method": activation.method,
        "min": levels.map(|levels| levels.min),
        "max": levels.map(|levels| levels.max),
        "scale": levels.map(|levels| levels.scale),
        "zero_point": levels.map(|levels| levels.zero_point),
    })
}

#[cfg(feature = "rten")]
fn slimmed(report: &Report) -> Value {
    let Some(slimmed) = &report.slimmed else { return Value::Null };
    let groups = slimmed
        .groups
        .iter()
        .map(|of| json!({ "name": of.name, "before": of.before, "after": of.after, "frozen_because": of.frozen }));
    let frozen = slimmed.frozen.iter();
    let frozen = frozen.map(|of| json!({ "node": of.node, "operator": of.operator, "reason": of.reason }));
    let outputs = slimmed.outputs.iter().map(|of| {
        let agreement = of.argmax_agreement();
        json!({ "name": of.name, "relative_difference": of.relative, "argmax_agreement": agreement })
    });
    json!({
        "groups": groups.collect::<Vec<_>>(),
        "frozen": frozen.collect::<Vec<_>>(),
        "blocks_dropped": slimmed.blocks.iter().map(|(name, _)| name).collect::<Vec<_>>(),
        "params_before": slimmed.params_before,
        "params_after": slimmed.params_after,
        "macs_before": slimmed.macs_before,
        "macs_after": slimmed.macs_after,
        "predicted": outputs.collect::<Vec<_>>(),
    })
}

#[cfg(not(feature = "rten"))]
fn slimmed(_: &Report) -> Value {
    Value::Null
}

fn tensor(tensor: &TensorReport) -> Value {
    let histogram = tensor.histogram.as_ref();
    json!({
        "name": tensor.name,
        "shape": tensor.shape,
        "operators": tensor.operators,
        "now": tensor.outcome.as_ref().ok(),
        "unchanged_because": tensor.outcome.as_ref().err(),
        "bits": tensor.bits,
        "bytes_before": tensor.bytes_before,
        "bytes_after": tensor.bytes_after,
        "zeros_before": tensor.zeros.map(|zeros| zeros.0),
        "zeros_after": tensor.zeros.map(|zeros| zeros.1),
        "sqnr_db": tensor.sqnr_db,
        "max_abs_error": tensor.max_abs,
        "bound": tensor.bound,
        "histogram": histogram.map(|of| json!({
            "low": of.low,
            "high": of.high,
            "before": of.before,
            "after": of.after,
        })),
    })
}
