//! The weights of a dense layer or convolution as one thing: for each output and each input of its group, a few taps.

use super::{At, Source};
use std::ops::Range;

/// How weights are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Form {
    /// Groups of channels that do not see one another.
    pub(super) groups: usize,
    /// Inputs of one group.
    pub(super) inputs: usize,
    /// Outputs of one group.
    pub(super) outputs: usize,
    /// Weights of one output and one input.
    pub(super) taps: usize,
    /// Whether the first axis has the inputs: `(inputs, outputs of a group, taps)`, else `(outputs, inputs of a group, taps)`.
    pub(super) inputs_first: bool,
}

impl Form {
    /// Of a tensor's shape; `None` where the groups do not divide it.
    pub(super) fn new(shape: &[usize], groups: usize, inputs_first: bool) -> Option<Self> {
        let [first, second, taps @ ..] = shape else { return None };
        if groups == 0 || first % groups != 0 {
            return None;
        }
        let (inputs, outputs) = if inputs_first { (first / groups, *second) } else { (*second, first / groups) };
        Some(Self { groups, inputs, outputs, taps: taps.iter().product(), inputs_first })
    }

    /// Of all groups.
    pub(super) fn all_inputs(&self) -> usize {
        self.groups * self.inputs
    }

    /// Of all groups.
    pub(super) fn all_outputs(&self) -> usize {
        self.groups * self.outputs
    }

    /// The inputs of the whole that an output sees.
    pub(super) fn seen_by(&self, output: usize) -> Range<usize> {
        let start = output / self.outputs * self.inputs;
        start..start + self.inputs
    }

    /// Where the weights of an output are, for each input of the whole that it sees.
    pub(super) fn taps_of(&self, output: usize) -> impl Fn(usize) -> Range<usize> + use<> {
        let taps = self.taps;
        let (start, step) = if self.inputs_first {
            (output % self.outputs, self.outputs)
        } else {
            (output * self.inputs - self.seen_by(output).start, 1)
        };
        move |input| (start + input * step) * taps..(start + input * step + 1) * taps
    }

    /// A range with all weights of an output.
    fn all_taps(&self, output: usize) -> Range<usize> {
        let row = self.inputs * self.taps;
        if self.inputs_first {
            0..self.all_inputs() * self.outputs * self.taps
        } else {
            output * row..(output + 1) * row
        }
    }
}

/// The weights themselves, read as far as they are asked for: a large model's are not copied.
pub(super) struct Weights<'a> {
    form: Form,
    source: &'a dyn Source,
    tensor: usize,
    /// What was read last, and where it was.
    values: Vec<f64>,
    range: Range<usize>,
}

impl<'a> Weights<'a> {
    /// Of a tensor that linking has seen.
    pub(super) fn new(at: At<'_>, source: &'a dyn Source, tensor: &str, form: Form) -> Option<Self> {
        let tensor = at.graph.find_tensor(tensor).ok()?;
        Some(Self { form, source, tensor, values: Vec::new(), range: 0..0 })
    }

    /// Whether some are all 0.
    pub(super) fn are_zero(&self, taps: Range<usize>) -> bool {
        self.source.is_zero(self.tensor, taps)
    }

    /// Some of those of an output: fast while the output is the same.
    pub(super) fn taps(&mut self, output: usize, taps: Range<usize>) -> &[f64] {
        let range = self.form.all_taps(output);
        if self.range != range {
            self.values.clear();
            self.source.read(self.tensor, range.clone(), &mut self.values);
            self.range = range;
        }
        self.values.get(taps.start - self.range.start..taps.end - self.range.start).unwrap_or_default()
    }

    /// Of each input of the whole, whether all of its weights are 0.
    pub(super) fn silent(&self) -> Vec<bool> {
        let mut silent = vec![false; self.form.all_inputs()];
        for outputs in (0..self.form.groups).map(|group| group * self.form.outputs..(group + 1) * self.form.outputs) {
            // Of most, the first weights tell.
            let mut left: Vec<usize> = self.form.seen_by(outputs.start).collect();
            for output in outputs {
                let taps = self.form.taps_of(output);
                left.retain(|&input| self.are_zero(taps(input)));
                if left.is_empty() {
                    break;
                }
            }
            left.into_iter().for_each(|input| silent[input] = true);
        }
        silent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_layouts_find_their_weights() {
        // 4 outputs in 2 groups, 3 inputs each, 2 taps.
        let form = Form::new(&[4, 3, 2], 2, false).unwrap();
        assert_eq!((form.all_inputs(), form.all_outputs(), form.seen_by(2)), (6, 4, 3..6));
        assert_eq!((form.taps_of(2)(4), form.all_taps(2)), (14..16, 12..18));
        // 4 inputs in 2 groups, 3 outputs each, 2 taps.
        let form = Form::new(&[4, 3, 2], 2, true).unwrap();
        assert_eq!((form.all_inputs(), form.all_outputs(), form.seen_by(4)), (4, 6, 2..4));
        assert_eq!((form.taps_of(4)(3), form.all_taps(4)), (20..22, 0..24));
        assert!(Form::new(&[4], 1, false).is_none() && Form::new(&[3, 3], 2, false).is_none());
        assert!(Form::new(&[3, 3], 0, true).is_none());
    }
}
