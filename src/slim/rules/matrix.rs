//! The weights of a dense layer or convolution as one thing: for each output and each input of its group, a few taps.

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
    pub(super) fn seen_by(&self, output: usize) -> std::ops::Range<usize> {
        let start = output / self.outputs * self.inputs;
        start..start + self.inputs
    }

    /// The weights of an output and an input of the whole, which it sees.
    pub(super) fn taps<'a>(&self, weights: &'a [f64], output: usize, input: usize) -> &'a [f64] {
        let row = if self.inputs_first {
            input * self.outputs + output % self.outputs
        } else {
            output * self.inputs + input % self.inputs
        };
        weights.get(row * self.taps..(row + 1) * self.taps).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_layouts_find_their_weights() {
        let weights: Vec<f64> = (0..24).map(f64::from).collect();
        // 4 outputs in 2 groups, 3 inputs each, 2 taps.
        let form = Form::new(&[4, 3, 2], 2, false).unwrap();
        assert_eq!((form.all_inputs(), form.all_outputs(), form.seen_by(2)), (6, 4, 3..6));
        assert_eq!(form.taps(&weights, 2, 4), [14.0, 15.0]);
        // 4 inputs in 2 groups, 3 outputs each, 2 taps.
        let form = Form::new(&[4, 3, 2], 2, true).unwrap();
        assert_eq!((form.all_inputs(), form.all_outputs(), form.seen_by(4)), (4, 6, 2..4));
        assert_eq!(form.taps(&weights, 4, 3), [20.0, 21.0]);
        assert!(Form::new(&[4], 1, false).is_none() && Form::new(&[3, 3], 2, false).is_none());
        assert!(Form::new(&[3, 3], 0, true).is_none());
    }
}
