//! Charts as SVG, in the colours of the page they are in.

use super::html::escape;
use lapidary::compress::Histogram;
use std::fmt::Write;

/// A bar a line, or two.
pub(crate) struct Bar<'a> {
    pub(crate) label: &'a str,
    /// From the left, the longest first; each with the class of its colour.
    pub(crate) values: Vec<(f64, &'static str)>,
    /// What is written behind.
    pub(crate) text: String,
}

const WIDTH: f64 = 900.0;
const LABEL: f64 = 260.0;
const ROOM: f64 = 470.0;
const LINE: f64 = 22.0;

/// The end of a name that is too long for its place: what tells layers apart is there.
fn short(name: &str, room: usize) -> String {
    let count = name.chars().count();
    if count <= room { name.into() } else { format!("…{}", name.chars().skip(count + 1 - room).collect::<String>()) }
}

/// How a chart begins: with what it is, for those who do not see it.
fn begin(id: &str, width: f64, height: f64, title: &str, description: &str) -> String {
    let (title, description) = (escape(title), escape(description));
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         aria-labelledby=\"{id}-title {id}-desc\"><title id=\"{id}-title\">{title}</title>\
         <desc id=\"{id}-desc\">{description}</desc>\n"
    )
}

/// Horizontal bars, one name a line.
pub(crate) fn bars(id: &str, title: &str, description: &str, bars: &[Bar<'_>]) -> String {
    let most = bars.iter().flat_map(|bar| bar.values.iter().map(|value| value.0)).fold(0.0, f64::max).max(1e-300);
    let mut out = begin(id, WIDTH, LINE * bars.len() as f64 + 6.0, title, description);
    for (i, bar) in bars.iter().enumerate() {
        let y = LINE * i as f64 + 3.0;
        let (name, whole, text) = (escape(&short(bar.label, 36)), escape(bar.label), escape(&bar.text));
        let _ = writeln!(out, "<g><title>{whole}: {text}</title>");
        let _ = write!(out, "<text x=\"{}\" y=\"{}\" class=\"end\">{name}</text>", LABEL - 8.0, y + 15.0);
        for (value, class) in &bar.values {
            let width = ROOM * value.max(0.0) / most;
            let _ = write!(out, "<rect x=\"{LABEL}\" y=\"{y}\" width=\"{width:.2}\" height=\"18\" class=\"{class}\"/>");
        }
        let longest = bar.values.iter().map(|value| value.0).fold(0.0, f64::max);
        let x = LABEL + ROOM * longest / most + 6.0;
        let _ = writeln!(out, "<text x=\"{x:.2}\" y=\"{}\">{text}</text></g>", y + 15.0);
    }
    out.push_str("</svg>\n");
    out
}

/// How numbers were spread, as an area, and are, as bars; the height is logarithmic, so that few are seen beside many.
pub(crate) fn histogram(id: &str, name: &str, of: &Histogram) -> String {
    const HEIGHT: f64 = 120.0;
    const BIN: f64 = 5.0;
    let count = of.before.len().max(of.after.len());
    let width = BIN * count as f64;
    let most = of.before.iter().chain(&of.after).copied().max().unwrap_or(0);
    let height = |count: u64| HEIGHT * (count as f64).ln_1p() / (most as f64).ln_1p().max(1e-300);
    let title = format!("Numbers of {name}, before and after");
    let filled = |bins: &[u64]| bins.iter().filter(|count| **count > 0).count();
    let description = format!(
        "From {:.3e} to {:.3e} in {count} parts, of which {} have numbers before and {} after. The height is logarithmic; \
         the largest part has {most}.",
        of.low,
        of.high,
        filled(&of.before),
        filled(&of.after)
    );
    let mut out = begin(id, width, HEIGHT + 20.0, &title, &description);
    let mut area = format!("M0 {HEIGHT}");
    for (i, &count) in of.before.iter().enumerate() {
        let (left, y) = (BIN * i as f64, HEIGHT - height(count));
        let _ = write!(area, "L{left} {y:.1}L{} {y:.1}", left + BIN);
    }
    let _ = writeln!(out, "<path class=\"before\" d=\"{area}L{width} {HEIGHT}Z\"/>");
    for (i, &count) in of.after.iter().enumerate().filter(|(_, count)| **count > 0) {
        let (x, tall) = (BIN * i as f64 + 1.0, height(count));
        let _ = write!(
            out,
            "<rect class=\"after\" x=\"{x}\" y=\"{:.1}\" width=\"{}\" height=\"{tall:.1}\"/>",
            HEIGHT - tall,
            BIN - 2.0
        );
    }
    let _ = writeln!(
        out,
        "\n<text x=\"0\" y=\"{y}\">{:.2e}</text><text x=\"{width}\" y=\"{y}\" class=\"end\">{:.2e}</text></svg>",
        of.low,
        of.high,
        y = HEIGHT + 15.0
    );
    out
}
