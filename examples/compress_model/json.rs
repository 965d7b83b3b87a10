//! The report as JSON. What is infinite or not a number is `null`.

use super::Said;
use lapidary::compress::TensorReport;
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
        "tensors": report.tensors.iter().map(tensor).collect::<Vec<_>>(),
        "outputs": outputs.collect::<Vec<_>>(),
    }))
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
