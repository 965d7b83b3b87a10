//! Dense layers and convolutions: every output is a sum over inputs.

use super::{
    At, Constants, Cost, Cut, Fold, Node, Reads, Rule, Source,
    matrix::{Form, Weights},
    pool::Window,
};
use crate::{
    error::{Error, Result},
    slim::topology::{Atom, Layout, Link, Role},
};

/// A dense layer over the last axis: `y = W x + b`, with `W` of shape (outputs, inputs).
///
/// Its outputs are channels, its inputs are those of what it reads. A constant input that goes is folded into the bias, exactly.
/// Where the channels are on another axis than the last, they just pass.
#[derive(Debug, Clone)]
pub struct Dense(Linear);

impl Dense {
    /// By the name of its weights.
    #[must_use]
    pub fn new(weight: impl Into<String>) -> Self {
        Self(Linear { weight: weight.into(), bias: None, groups: 1, whole: false, inputs_first: false, window: None })
    }

    /// With a bias.
    #[must_use]
    pub fn with_bias(self, bias: impl Into<String>) -> Self {
        Self(Linear { bias: Some(bias.into()), ..self.0 })
    }

    /// With weights of shape (inputs, outputs).
    #[must_use]
    pub fn with_inputs_first(self) -> Self {
        Self(Linear { inputs_first: true, ..self.0 })
    }

    pub(super) fn linear(self) -> Linear {
        self.0
    }
}

/// A convolution over the axes after the first, which has the channels; its rank is that of its weights, of shape
/// (outputs, inputs / groups, kernel…), or [transposed](Conv::transposed) (inputs, outputs / groups, kernel…).
///
/// | parameter | default | range | purpose |
/// |---|---|---|---|
/// | `bias` | none | | added to each output |
/// | `stride` | 1 | at least 1 | one number, or one an axis |
/// | `padding` | 0 | | one number; one an axis; or all begins, then all ends |
/// | `dilation` | 1 | at least 1 | one number, or one an axis |
/// | `groups` | 1 | divides inputs and outputs | channels that do not see one another |
///
/// The channels of a grouped convolution go at the same place of every group, or, in a depthwise one and
/// [where asked](Conv::with_whole_groups), whole groups go. A constant input that goes is folded exactly where there is no padding
/// (for a transposed convolution: where the kernel is one point); with padding, a constant other than 0 forbids that its channel goes,
/// or is folded as it acts away from the border.
#[derive(Debug, Clone)]
pub struct Conv(Linear);

impl Conv {
    /// By the name of its weights.
    #[must_use]
    pub fn new(weight: impl Into<String>) -> Self {
        let window = Some(Window::default());
        Self(Linear { weight: weight.into(), bias: None, groups: 1, whole: false, inputs_first: false, window })
    }

    /// A transposed one; `output_padding`, one number an axis or none, makes its output longer.
    #[must_use]
    pub fn transposed(weight: impl Into<String>, output_padding: &[usize]) -> Self {
        let conv = Self::new(weight);
        let window = conv.0.window.map(|window| Window { extra: output_padding.to_vec(), ..window });
        Self(Linear { inputs_first: true, window, ..conv.0 })
    }

    /// With a bias.
    #[must_use]
    pub fn with_bias(self, bias: impl Into<String>) -> Self {
        Self(Linear { bias: Some(bias.into()), ..self.0 })
    }

    /// With a stride.
    #[must_use]
    pub fn with_stride(self, stride: &[usize]) -> Self {
        self.window(|window| Window { stride: stride.to_vec(), ..window })
    }

    /// With zeros around.
    #[must_use]
    pub fn with_padding(self, padding: &[usize]) -> Self {
        self.window(|window| Window { padding: padding.to_vec(), ..window })
    }

    /// With a dilation.
    #[must_use]
    pub fn with_dilation(self, dilation: &[usize]) -> Self {
        self.window(|window| Window { dilation: dilation.to_vec(), ..window })
    }

    /// With so many groups.
    #[must_use]
    pub fn with_groups(self, groups: usize) -> Self {
        Self(Linear { groups, ..self.0 })
    }

    /// Groups go whole.
    #[must_use]
    pub fn with_whole_groups(self) -> Self {
        Self(Linear { whole: true, ..self.0 })
    }

    pub(super) fn linear(self) -> Linear {
        self.0
    }

    fn window(self, change: impl FnOnce(Window) -> Window) -> Self {
        Self(Linear { window: self.0.window.map(change), ..self.0 })
    }
}

/// What both are.
#[derive(Debug, Clone)]
pub(super) struct Linear {
    weight: String,
    bias: Option<String>,
    groups: usize,
    whole: bool,
    inputs_first: bool,
    /// Of a convolution.
    window: Option<Window>,
}

impl Linear {
    fn form(&self, shape: &[usize]) -> Option<Form> {
        Form::new(shape, self.groups, self.inputs_first)
    }

    /// The axis that is summed over.
    fn axis(&self, input: &Layout) -> usize {
        if self.window.is_some() { 0 } else { input.shape.len().saturating_sub(1) }
    }

    /// Whether the channels are on the axis that is summed over.
    fn mixes(&self, input: &Layout) -> bool {
        input.axis().is_none_or(|axis| axis == self.axis(input))
    }

    fn goes_whole(&self, form: &Form) -> bool {
        form.groups > 1 && (self.whole || form.inputs == 1)
    }

    fn is_transposed(&self) -> bool {
        self.inputs_first && self.window.is_some()
    }

    /// Whether a constant input adds the same to the output everywhere.
    fn is_uniform(&self, form: &Form) -> bool {
        let Some(window) = &self.window else { return true };
        window.is_unpadded() && (!self.inputs_first || form.taps == 1 && window.is_dense())
    }

    /// What a constant input of 1 adds to an output by these weights, away from the border.
    fn sum(&self, at: At<'_>, taps: &[f64]) -> f64 {
        let sum: f64 = taps.iter().sum();
        match &self.window {
            Some(window) if self.inputs_first => sum / window.stride_volume(at.input(0).shape.len().saturating_sub(1)),
            _ => sum,
        }
    }

    fn output_shape(&self, input: &Layout, shape: &[usize], outputs: usize) -> Result<Vec<usize>> {
        match &self.window {
            None => {
                let mut output = input.shape.clone();
                if let Some(last) = output.last_mut() {
                    *last = outputs;
                }
                Ok(output)
            }
            Some(window) => {
                let spatial = input.shape.get(1..).unwrap_or_default();
                let spatial = window.output(spatial, &shape[2..], self.inputs_first)?;
                Ok([&[outputs], &spatial[..]].concat())
            }
        }
    }

    /// The channels of inputs and outputs, tied to the weights.
    fn tie(&self, link: &mut Link<'_>, form: &Form, ins: Option<Vec<Atom>>) -> Result<Vec<Atom>> {
        let (out_axis, in_axis) = if self.inputs_first { (1, 0) } else { (0, 1) };
        if self.goes_whole(form) {
            let ins = match ins {
                Some(ins) => ins,
                None => link.fresh_frozen(form.all_inputs(), "inputs without channels of")?,
            };
            ins.chunks(form.inputs).for_each(|group| link.merge(group));
            let outs: Vec<Atom> = (0..form.all_outputs()).map(|o| ins[o / form.outputs * form.inputs]).collect();
            if self.inputs_first {
                link.axis(&self.weight, 0, &ins, Role::Produces)?;
            } else {
                link.axis(&self.weight, 0, &outs, Role::Produces)?;
            }
            return Ok(outs);
        }
        let places = link.fresh(form.outputs)?;
        let outs: Vec<Atom> = (0..form.all_outputs()).map(|o| places[o % form.outputs]).collect();
        link.axis(&self.weight, out_axis, if self.inputs_first { &places } else { &outs }, Role::Produces)?;
        if let Some(ins) = ins {
            let (first, others) = ins.split_at(form.inputs);
            others.chunks(form.inputs).for_each(|group| link.unite(first, group));
            link.axis(&self.weight, in_axis, if self.inputs_first { &ins } else { first }, Role::Consumes)?;
        }
        Ok(outs)
    }
}

impl Rule for Linear {
    fn link(&self, link: &mut Link<'_>) -> Result<Layout> {
        let input = link.input()?;
        let shape = link.shape(&self.weight)?;
        let rank = if self.window.is_some() { 2 + input.shape.len().saturating_sub(1) } else { 2 };
        let form = self.form(&shape).filter(|_| shape.len() == rank && !input.shape.is_empty());
        let Some(form) = form else {
            let found = format!("of shape {shape:?} with {} groups", self.groups);
            return Err(
                Error::argument("weights", found, "of the input's rank, divided by the groups").in_tensor(&self.weight)
            );
        };
        let axis = self.axis(input);
        if input.shape[axis] != form.all_inputs() {
            return Err(Error::shape("input", &[form.all_inputs()], &[input.shape[axis]]));
        }
        let output = self.output_shape(input, &shape, form.all_outputs())?;
        if let Some(bias) = &self.bias {
            link.vector(bias, form.all_outputs())?;
        }
        if !self.mixes(input) && self.window.is_none() {
            // Another axis has the channels: each is mixed with itself only.
            let channels = input.channels.clone();
            return Ok(Layout { shape: output, channels });
        }
        if !self.mixes(input) {
            link.freeze(input.atoms(), "not on the first axis of");
        }
        let outs = self.tie(link, &form, input.along(axis).map(<[Atom]>::to_vec))?;
        if let Some(bias) = &self.bias {
            link.axis(bias, 0, &outs, Role::Shifts)?;
        }
        Ok(Layout::new(output, axis, outs))
    }

    fn tensors(&self) -> Vec<&str> {
        std::iter::once(self.weight.as_str()).chain(self.bias.as_deref()).collect()
    }

    fn constants(&self, at: At<'_>, weights: &dyn Source, inputs: &[Constants], masked: bool) -> Constants {
        let (input, output) = (at.input(0), at.output());
        let Some(form) = self.form(at.shape(&self.weight)) else { return Constants::unknown(output) };
        if !self.mixes(input) && self.window.is_none() {
            let silent = |c: &Option<f64>| (masked || *c == Some(0.0) && self.bias.is_none()).then_some(0.0);
            return Constants::new(output, inputs[0].per_channel(input).iter().map(silent).collect());
        }
        let bias = at.values_or_zeros(weights, self.bias.as_deref(), form.all_outputs());
        if masked {
            return Constants::new(output, bias.into_iter().map(Some).collect());
        }
        let given = if self.mixes(input) { inputs[0].per_channel(input) } else { Vec::new() };
        let Some(mut weights) = Weights::new(at, weights, &self.weight, form) else {
            return Constants::unknown(output);
        };
        let exact = |c: f64| c == 0.0 || self.is_uniform(&form);
        let constant = |o: usize| {
            let taps = form.taps_of(o);
            form.seen_by(o).try_fold(bias[o], |sum, i| {
                if weights.are_zero(taps(i)) {
                    return Some(sum);
                }
                let c = given.get(i).copied().flatten().filter(|c| exact(*c))?;
                Some(sum + c * self.sum(at, weights.taps(o, taps(i))))
            })
        };
        Constants::new(output, (0..form.all_outputs()).map(constant).collect())
    }

    fn reads(&self, at: At<'_>, weights: &dyn Source, _: usize) -> Vec<Reads> {
        let input = at.input(0);
        let Some(form) = self.form(at.shape(&self.weight)) else { return Vec::new() };
        let channels = input.atoms().len();
        if !self.mixes(input) {
            let reason = format!("`{}` has a bias over another axis", at.name());
            let mixed = || Reads::Zero(format!("mixed along another axis by `{}`", at.name()));
            return vec![if self.bias.is_some() { Reads::Never(reason) } else { mixed() }; channels];
        }
        if self.goes_whole(&form) {
            return vec![Reads::Nothing; channels];
        }
        let Some(weights) = Weights::new(at, weights, &self.weight, form) else { return Vec::new() };
        let silent = weights.silent();
        let uniform = self.is_uniform(&form);
        let what = if self.is_transposed() { "transposed" } else { "zero-padded" };
        let read = |&silent: &bool| match (silent, uniform) {
            (true, _) => Reads::Nothing,
            (false, true) => Reads::Constant,
            (false, false) => {
                Reads::Zero(format!("a constant other than 0 into the {what} convolution `{}`", at.name()))
            }
        };
        silent.iter().take(channels).map(read).collect()
    }

    fn fold(&self, fold: &mut Fold<'_>) {
        let at = fold.at;
        let Some(form) = self.form(at.shape(&self.weight)) else { return };
        let dropped = fold.dropped(0, &self.weight, usize::from(!self.inputs_first));
        if dropped.is_empty() || !self.mixes(at.input(0)) || self.goes_whole(&form) {
            return;
        }
        let Some(mut weights) = Weights::new(at, fold.weights, &self.weight, form) else { return };
        let shift = |o: usize| {
            let (seen, taps) = (form.seen_by(o), form.taps_of(o));
            let seen = dropped.iter().filter(|(i, _)| seen.contains(i));
            seen.map(|&(i, c)| c * self.sum(at, weights.taps(o, taps(i)))).sum()
        };
        let shifts = (0..form.all_outputs()).map(shift).collect();
        fold.shift(self.bias.as_deref(), shifts, at.output().atoms());
    }

    fn numbers(&self) -> Vec<(&'static str, f64)> {
        vec![("groups", self.groups as f64)]
    }

    fn slim(&self, cut: Cut<'_>) -> Node {
        let mut slim = self.clone();
        if let Some(form) = self.form(cut.at.shape(&self.weight)).filter(|form| self.goes_whole(form)) {
            slim.groups = if cut.at.input(0).axis() == Some(0) { cut.counts(0).0 / form.inputs } else { form.groups };
        }
        slim.bias = cut.bias().map(str::to_owned).or(slim.bias);
        slim.into()
    }

    fn costs(&self, at: At<'_>) -> Vec<Cost> {
        let layout = if self.is_transposed() { at.input(0) } else { at.output() };
        let axis = self.axis(layout);
        match at.input(0).axis() {
            // All weights for each channel, at each position beside both axes.
            Some(channels) if channels != axis && self.window.is_none() => {
                let positions = layout.positions(axis) / layout.shape[channels];
                let weights = at.shape(&self.weight).iter().product();
                vec![Cost::Channels { factor: positions.saturating_mul(weights), value: at.node }]
            }
            _ => at.cost(layout.positions(axis), &self.weight).into_iter().collect(),
        }
    }
}
