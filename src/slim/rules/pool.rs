//! What works on each channel's positions alone: pooling, resizing; and the windows that it shares with convolutions.

use super::{At, Constants, Cut, Node, Reads, Rule, Source};
use crate::{
    error::{Error, Result},
    slim::topology::{Layout, Link},
};

/// Where a kernel stops along each axis. A list of one number is for all axes, an empty one the default.
#[derive(Debug, Clone, Default)]
pub(super) struct Window {
    pub(super) stride: Vec<usize>,
    /// One number an axis, or all begins, then all ends.
    pub(super) padding: Vec<usize>,
    pub(super) dilation: Vec<usize>,
    /// What a transposed convolution adds at the end.
    pub(super) extra: Vec<usize>,
}

impl Window {
    pub(super) fn is_unpadded(&self) -> bool {
        self.padding.iter().chain(&self.extra).all(|&n| n == 0)
    }

    /// Whether it stops everywhere.
    pub(super) fn is_dense(&self) -> bool {
        self.stride.iter().all(|&n| n == 1)
    }

    /// Positions for each stop, over so many axes.
    pub(super) fn stride_volume(&self, rank: usize) -> f64 {
        let each = match self.stride[..] {
            [one] => vec![one; rank],
            _ => self.stride.clone(),
        };
        each.into_iter().map(|n| n as f64).product()
    }

    /// The output's length along each axis: `(n + pads - dilation (k - 1) - 1) / stride + 1`, or transposed
    /// `(n - 1) stride - pads + dilation (k - 1) + 1 + extra`.
    pub(super) fn output(&self, input: &[usize], kernel: &[usize], transposed: bool) -> Result<Vec<usize>> {
        let rank = input.len();
        let each = |list: &[usize], default: usize| match list {
            [] => Some(vec![default; rank]),
            [one] => Some(vec![*one; rank]),
            list => (list.len() == rank).then(|| list.to_vec()),
        };
        let pads = match &self.padding {
            both if rank > 0 && both.len() == 2 * rank => {
                Some((0..rank).map(|i| both[i].saturating_add(both[rank + i])).collect())
            }
            list => each(list, 0).map(|list| list.into_iter().map(|n| n.saturating_mul(2)).collect::<Vec<_>>()),
        };
        let (stride, dilation, extra) = (each(&self.stride, 1), each(&self.dilation, 1), each(&self.extra, 0));
        let (Some(kernel), Some(stride), Some(pads), Some(dilation), Some(extra)) =
            (each(kernel, 1), stride, pads, dilation, extra)
        else {
            let found = format!("{:?}, {:?}, {:?} over {rank} axes", self.stride, self.padding, self.dilation);
            return Err(Error::argument("window", found, "one number, or one an axis"));
        };
        let length = |i: usize| {
            let reach = kernel[i].checked_sub(1)?.checked_mul(dilation[i])?.checked_add(1)?;
            if transposed {
                let steps = input[i].checked_sub(1)?.checked_mul(stride[i])?;
                return steps.checked_add(reach)?.checked_add(extra[i])?.checked_sub(pads[i]);
            }
            Some(input[i].checked_add(pads[i])?.checked_sub(reach)?.checked_div(stride[i])? + 1)
        };
        let lengths: Option<Vec<usize>> = (0..rank).map(length).collect();
        lengths.filter(|lengths| !lengths.contains(&0)).ok_or_else(|| {
            let found = format!("{self:?} of kernel {kernel:?} over {input:?}");
            Error::argument("window", found, "one that fits, of stride and dilation at least 1")
        })
    }
}

/// Pooling or resizing of each channel's positions; the first axis has the channels. A constant channel stays the same constant,
/// also at the border of max pooling; average pooling that counts zero padding forbids a constant other than 0 to go.
#[derive(Debug, Clone)]
pub struct Pool {
    kind: Kind,
    window: Window,
}

#[derive(Debug, Clone)]
enum Kind {
    Max(Vec<usize>),
    Average(Vec<usize>),
    Global,
    Resize(Vec<usize>),
}

impl Pool {
    /// The largest of a kernel, whose stride is its length.
    #[must_use]
    pub fn max(kernel: &[usize]) -> Self {
        Self { kind: Kind::Max(kernel.to_vec()), window: Window { stride: kernel.to_vec(), ..Window::default() } }
    }

    /// The mean of a kernel, whose stride is its length. Padding counts as 0.
    #[must_use]
    pub fn average(kernel: &[usize]) -> Self {
        Self { kind: Kind::Average(kernel.to_vec()), ..Self::max(kernel) }
    }

    /// The mean, or the largest, of all positions: a length of 1 along each axis.
    #[must_use]
    pub fn global() -> Self {
        Self { kind: Kind::Global, window: Window::default() }
    }

    /// Nearest or linear interpolation to these lengths.
    #[must_use]
    pub fn resize(lengths: &[usize]) -> Self {
        Self { kind: Kind::Resize(lengths.to_vec()), window: Window::default() }
    }

    /// With another stride.
    #[must_use]
    pub fn with_stride(self, stride: &[usize]) -> Self {
        Self { window: Window { stride: stride.to_vec(), ..self.window }, ..self }
    }

    /// With padding: one number; one an axis; or all begins, then all ends.
    #[must_use]
    pub fn with_padding(self, padding: &[usize]) -> Self {
        Self { window: Window { padding: padding.to_vec(), ..self.window }, ..self }
    }
}

impl Rule for Pool {
    fn link(&self, link: &mut Link<'_>) -> Result<Layout> {
        let input = link.input()?;
        let Some((&channels, spatial)) = input.shape.split_first() else {
            return Err(Error::argument("input", "a number", "of at least one axis"));
        };
        let spatial = match &self.kind {
            Kind::Max(kernel) | Kind::Average(kernel) => self.window.output(spatial, kernel, false)?,
            Kind::Global => vec![1; spatial.len()],
            Kind::Resize(lengths) if lengths.len() != spatial.len() => {
                return Err(Error::shape("lengths to resize to", spatial, lengths));
            }
            Kind::Resize(lengths) => lengths.clone(),
        };
        let shape = [&[channels], &spatial[..]].concat();
        match input.along(0) {
            Some(atoms) => Ok(Layout::new(shape, 0, atoms.to_vec())),
            None => {
                link.freeze(input.atoms(), "not on the first axis of");
                Ok(Layout { shape, channels: None })
            }
        }
    }

    fn constants(&self, at: At<'_>, _: &dyn Source, inputs: &[Constants], masked: bool) -> Constants {
        let given = inputs[0].per_channel(at.input(0));
        let exact = |c: f64| masked || c == 0.0 || !self.pads_with_zeros();
        Constants::new(at.output(), given.into_iter().map(|c| c.filter(|c| exact(*c))).collect())
    }

    fn reads(&self, at: At<'_>, _: &dyn Source, _: usize) -> Vec<Reads> {
        if !self.pads_with_zeros() {
            return Vec::new();
        }
        let reason = format!("a constant other than 0 into the zero-padded average `{}`", at.name());
        vec![Reads::Zero(reason); at.input(0).atoms().len()]
    }

    fn slim(&self, cut: Cut<'_>) -> Node {
        cut.same()
    }
}

impl Pool {
    fn pads_with_zeros(&self) -> bool {
        matches!(self.kind, Kind::Average(_)) && !self.window.is_unpadded()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_as_long_as_they_reach() {
        let window = |stride: &[usize], padding: &[usize], dilation: &[usize]| Window {
            stride: stride.to_vec(),
            padding: padding.to_vec(),
            dilation: dilation.to_vec(),
            extra: vec![],
        };
        let output = |w: &Window, transposed| w.output(&[8, 7], &[3, 3], transposed).ok();
        assert_eq!(output(&window(&[], &[], &[]), false), Some(vec![6, 5]));
        assert_eq!(output(&window(&[2], &[1], &[]), false), Some(vec![4, 4]));
        assert_eq!(output(&window(&[2, 1], &[1, 0, 0, 2], &[2]), false), Some(vec![3, 5]));
        assert_eq!(output(&window(&[2], &[1], &[]), true), Some(vec![15, 13]));
        assert_eq!(output(&window(&[0], &[], &[]), false), None);
        assert_eq!(output(&window(&[], &[], &[4]), false), None);
        assert_eq!(output(&window(&[1, 1, 1], &[], &[]), false), None);
        assert_eq!(output(&window(&[usize::MAX], &[], &[]), true), None);
        assert_eq!(output(&window(&[], &[100], &[]), true), None);
    }
}
