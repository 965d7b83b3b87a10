//! The report as one page: charts, tables and notes. Nothing else is loaded, and no script runs.

use super::{
    Said,
    svg::{self, Bar},
};
use lapidary::compress::{Report, TensorReport};
use std::fmt::Write;

/// Lines of a chart; the table has all.
const LINES: usize = 40;

const STYLE: &str = "
:root { color-scheme: light dark; --ground: #fff; --ink: #1c2127; --faint: #5c6670; --line: #d5dae0; --before: #b9c4d0; --after: #1f6fb4; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #14181d; --ink: #e4e8ec; --faint: #9aa5b0; --line: #343c45; --before: #566270; --after: #5db0f5; }
}
body { background: var(--ground); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 72rem; padding: 1.5rem; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
p, li, figcaption { color: var(--faint); }
dl { display: flex; flex-wrap: wrap; gap: 1rem; } dl div { border: 1px solid var(--line); border-radius: .5rem; padding: .6rem 1rem; }
dt { color: var(--faint); font-size: .85rem; } dd { font-size: 1.3rem; margin: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; width: 100%; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .6rem; text-align: left; vertical-align: top; }
td.number, th.number { font-variant-numeric: tabular-nums; text-align: right; white-space: nowrap; }
tbody th { font-weight: 600; overflow-wrap: anywhere; }
svg { display: block; height: auto; max-width: 100%; } svg text { fill: var(--ink); font: 13px system-ui, sans-serif; }
svg .end { text-anchor: end; } svg .before { fill: var(--before); } svg .after { fill: var(--after); }
.key { border-radius: .15rem; display: inline-block; height: .8rem; margin: 0 .3rem 0 1rem; width: .8rem; }
.grid { display: grid; gap: 1.5rem; grid-template-columns: repeat(auto-fill, minmax(18rem, 1fr)); }
figure { margin: 0; } figcaption { font-size: .85rem; overflow-wrap: anywhere; }
";

/// Text as HTML, in elements and attributes.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Not characters of a page.
            c if c.is_control() && !matches!(c, '\n' | '\t') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

fn bytes(count: u64) -> String {
    match count {
        0..10_000 => format!("{count} B"),
        10_000..10_000_000 => format!("{:.1} kB", count as f64 / 1e3),
        10_000_000..10_000_000_000 => format!("{:.1} MB", count as f64 / 1e6),
        _ => format!("{:.2} GB", count as f64 / 1e9),
    }
}

fn decibels(sqnr: f64) -> String {
    if sqnr.is_infinite() { "exact".into() } else { format!("{sqnr:.1} dB") }
}

fn elements(tensor: &TensorReport) -> u64 {
    tensor.shape.iter().map(|&size| size as u64).product()
}

/// As `12.5 %`.
fn share(part: u64, whole: u64) -> String {
    format!("{:.1} %", 100.0 * part as f64 / whole.max(1) as f64)
}

pub(crate) fn page(said: &Said<'_>) -> String {
    let report = said.report;
    let name = |path: &std::path::Path| escape(&path.file_name().unwrap_or_default().to_string_lossy());
    let title = format!("{} made {}", name(said.input), name(said.output));
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n<dl>\n"
    );
    let mut tile = |name: &str, value: String| {
        let _ = writeln!(out, "<div><dt>{name}</dt><dd>{}</dd></div>", escape(&value));
    };
    tile("before", bytes(report.bytes_before));
    tile("now", bytes(report.bytes_after));
    tile("times smaller", format!("{:.2}", report.bytes_before as f64 / report.bytes_after.max(1) as f64));
    if let Some(error) = report.relative_error {
        tile("relative error of the weights", format!("{error:.2e}"));
    }
    let counted = report.tensors.iter().filter_map(|tensor| Some((tensor.zeros?.1, elements(tensor))));
    if let Some((zeros, all)) = counted.reduce(|a, b| (a.0 + b.0, a.1 + b.1)) {
        tile("zeros of what changed", share(zeros, all));
    }
    let changed = report.tensors.iter().filter(|tensor| tensor.outcome.is_ok()).count();
    tile("weights changed", format!("{changed} of {}", report.tensors.len()));
    out.push_str("</dl>\n");
    size(&mut out, &report.tensors);
    errors(&mut out, &report.tensors);
    histograms(&mut out, &report.tensors);
    outputs(&mut out, said);
    table(&mut out, &report.tensors);
    #[cfg(feature = "rten")]
    if let Some(slimmed) = &report.slimmed {
        let _ = write!(out, "<h2>Slimming</h2>\n<pre>{}</pre>\n", escape(&slimmed.to_string()));
    }
    if !report.activations.is_empty() {
        activations(&mut out, report);
    }
    if !report.notes.is_empty() {
        out.push_str("<h2>Notes</h2>\n<ul>\n");
        report.notes.iter().for_each(|note| out.push_str(&format!("<li>{}</li>\n", escape(note))));
        out.push_str("</ul>\n");
    }
    out.push_str("</main>\n</body>\n</html>\n");
    out
}

fn activations(out: &mut String, report: &Report) {
    out.push_str("<h2>Activations</h2>\n<div class=\"scroll\"><table>\n<thead><tr><th scope=\"col\">activation</th><th scope=\"col\">operators</th><th scope=\"col\">from</th><th scope=\"col\">to</th>");
    out.push_str("<th scope=\"col\">scale</th><th scope=\"col\">zero point</th><th scope=\"col\">method</th></tr></thead>\n<tbody>\n");
    for of in &report.activations {
        let _ = write!(out, "<tr><td>{}</td><td>{}</td>", escape(&of.name), escape(&of.operators.join(", ")));
        let _ = match &of.levels {
            Some(levels) => write!(
                out,
                "<td>{:.4}</td><td>{:.4}</td><td>{:.3e}</td><td>{}</td>",
                levels.min, levels.max, levels.scale, levels.zero_point
            ),
            None => write!(out, "<td>–</td><td>–</td><td>–</td><td>–</td>"),
        };
        let _ = writeln!(out, "<td>{}</td></tr>", escape(&of.method));
    }
    out.push_str("</tbody></table></div>\n");
}

/// Says where a chart leaves lines out.
fn left_out(out: &mut String, all: usize, what: &str) {
    if all > LINES {
        let _ = writeln!(out, "<p>The {LINES} {what} of {all}; the table below has all.</p>");
    }
}

const KEY: &str = "<p><span class=\"key\" style=\"background: var(--before)\"></span>before\
<span class=\"key\" style=\"background: var(--after)\"></span>now</p>\n";

fn size(out: &mut String, tensors: &[TensorReport]) {
    let mut shown: Vec<&TensorReport> = tensors.iter().collect();
    shown.sort_by_key(|tensor| std::cmp::Reverse(tensor.bytes_before));
    if shown.is_empty() {
        return;
    }
    out.push_str("<h2>Size by layer</h2>\n");
    out.push_str(KEY);
    left_out(out, shown.len(), "largest weights");
    shown.truncate(LINES);
    let line = |tensor: &&'_ TensorReport| {
        let (before, after) = (tensor.bytes_before, tensor.bytes_after);
        (tensor.name.clone(), before, after)
    };
    let lines: Vec<_> = shown.iter().map(line).collect();
    let bars: Vec<_> = lines
        .iter()
        .map(|(name, before, after)| Bar {
            label: name,
            values: vec![(*before as f64, "before"), (*after as f64, "after")],
            text: format!("{} → {}", bytes(*before), bytes(*after)),
        })
        .collect();
    let description = "Bytes of each weight before and now, the largest first. The table below has the numbers.";
    out.push_str(&svg::bars("size", "Size by layer", description, &bars));
}

fn errors(out: &mut String, tensors: &[TensorReport]) {
    let mut shown: Vec<(&TensorReport, f64)> =
        tensors.iter().filter_map(|tensor| Some((tensor, tensor.sqnr_db?))).collect();
    shown.sort_by(|a, b| a.1.total_cmp(&b.1));
    if shown.is_empty() {
        return;
    }
    out.push_str("<h2>Error by layer</h2>\n<p>Signal to noise in decibels, the worst first; 6 dB are a bit.</p>\n");
    left_out(out, shown.len(), "worst weights");
    shown.truncate(LINES);
    let bar = |&(tensor, sqnr): &(&'_ TensorReport, f64)| {
        let known = if sqnr.is_finite() { sqnr.max(0.0) } else { 0.0 };
        (tensor.name.clone(), known, decibels(sqnr))
    };
    let lines: Vec<_> = shown.iter().map(bar).collect();
    let bars: Vec<_> = lines
        .iter()
        .map(|(name, value, text)| Bar { label: name, values: vec![(*value, "after")], text: text.clone() })
        .collect();
    let description = "Decibels of each weight that changed, the least first. The table below has the numbers.";
    out.push_str(&svg::bars("error", "Error by layer", description, &bars));
}

fn histograms(out: &mut String, tensors: &[TensorReport]) {
    let shown: Vec<_> = tensors.iter().filter_map(|tensor| Some((tensor, tensor.histogram.as_ref()?))).collect();
    if shown.is_empty() {
        return;
    }
    out.push_str("<h2>Numbers before and now</h2>\n<p>How often numbers lie where, on a logarithmic scale.</p>\n");
    out.push_str(KEY);
    left_out(out, shown.len(), "first weights");
    out.push_str("<div class=\"grid\">\n");
    for (i, (tensor, histogram)) in shown.iter().take(LINES).enumerate() {
        out.push_str("<figure>");
        out.push_str(&svg::histogram(&format!("numbers{i}"), &tensor.name, histogram));
        let _ = writeln!(out, "<figcaption>{}</figcaption></figure>", escape(&tensor.name));
    }
    out.push_str("</div>\n");
}

fn outputs(out: &mut String, said: &Said<'_>) {
    if said.outputs.is_empty() {
        return;
    }
    out.push_str(
        "<h2>Outputs</h2>\n<div class=\"scroll\"><table>\n<thead><tr><th scope=\"col\">output</th>\
         <th scope=\"col\" class=\"number\">largest difference</th><th scope=\"col\" class=\"number\">relative</th>\
         <th scope=\"col\" class=\"number\">cosine</th><th scope=\"col\" class=\"number\">same largest</th></tr></thead>\n<tbody>\n",
    );
    for of in &said.outputs {
        let _ = writeln!(
            out,
            "<tr><th scope=\"row\">{}</th><td class=\"number\">{:.2e}</td><td class=\"number\">{:.2e}</td>\
             <td class=\"number\">{:.6}</td><td class=\"number\">{:.1} %</td></tr>",
            escape(&of.name),
            of.max_abs,
            of.relative,
            of.cosine,
            100.0 * of.agreement
        );
    }
    out.push_str("</tbody></table></div>\n");
}

fn table(out: &mut String, tensors: &[TensorReport]) {
    out.push_str("<h2>All weights</h2>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"All weights\"><table>\n<thead><tr>");
    for name in ["weight", "shape", "operators", "now"] {
        let _ = write!(out, "<th scope=\"col\">{name}</th>");
    }
    for name in ["bytes before", "bytes now", "zeros before", "zeros now", "SQNR", "largest error", "certified"] {
        let _ = write!(out, "<th scope=\"col\" class=\"number\">{name}</th>");
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for tensor in tensors {
        let now = tensor.outcome.as_ref().map_or_else(|reason| format!("as it was: {reason}"), String::clone);
        let _ = write!(
            out,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td>",
            escape(&tensor.name),
            tensor.shape.iter().map(usize::to_string).collect::<Vec<_>>().join(" × "),
            escape(&tensor.operators.join(", ")),
            escape(&now)
        );
        let of = |zeros: Option<u64>| zeros.map_or("–".into(), |zeros| share(zeros, elements(tensor)));
        let short = |x: Option<f64>| x.map_or("–".into(), |x| format!("{x:.2e}"));
        for text in [
            tensor.bytes_before.to_string(),
            tensor.bytes_after.to_string(),
            of(tensor.zeros.map(|zeros| zeros.0)),
            of(tensor.zeros.map(|zeros| zeros.1)),
            tensor.sqnr_db.map_or("–".into(), decibels),
            short(tensor.max_abs),
            short(tensor.bound),
        ] {
            let _ = write!(out, "<td class=\"number\">{text}</td>");
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>\n");
}
