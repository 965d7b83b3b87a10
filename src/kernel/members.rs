//! Where the elements of one group lie.

use super::rows::{Groups, Layout};
use std::ops::Range;

impl Layout {
    /// The elements of a group of a tensor of `len`, as ranges of neighbours in logical order.
    pub(crate) fn members(&self, group: usize, len: usize) -> impl Iterator<Item = Range<usize>> + Clone {
        let cols = self.cols;
        // `count` runs of `run` neighbours, each `stride` after the one before.
        let (first, run, stride, count) = match self.groups {
            Groups::Whole => (0, len, 0, 1),
            Groups::Blocks { size } => {
                let per_row = cols.div_ceil(size);
                let (row, col) = (group / per_row, group % per_row * size);
                (row * cols + col, size.min(cols - col), 0, 1)
            }
            Groups::Rows { repeat, count } => {
                let run = repeat * cols;
                (group * run, run, count * run, len / (count * run))
            }
            Groups::Columns { .. } => {
                let (first, count, stride) = self.column(group);
                (first, 1, stride, count)
            }
        };
        (0..count).map(move |i| first + i * stride).map(move |start| start..start + run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_is_in_the_group_that_a_plain_count_gives_it() {
        // A tensor of 2 x 3 x 4 x 5.
        let (len, at) = (120, |i: usize| [i / 60, i / 20 % 3, i / 5 % 4, i % 5]);
        type Of = fn([usize; 4]) -> usize;
        let cases: [(Groups, usize, Of); 7] = [
            (Groups::Whole, 1, |_| 0),
            (Groups::Rows { repeat: 12, count: 2 }, 2, |[a, ..]| a),
            (Groups::Rows { repeat: 1, count: 4 }, 4, |[_, _, c, _]| c),
            (Groups::Columns { repeat: 1, length: 24, size: 24 }, 5, |[.., d]| d),
            (Groups::Blocks { size: 2 }, 72, |[a, b, c, d]| ((a * 3 + b) * 4 + c) * 3 + d / 2),
            (Groups::Blocks { size: usize::MAX }, 24, |[a, b, c, _]| (a * 3 + b) * 4 + c),
            (Groups::Columns { repeat: 4, length: 3, size: 2 }, 80, |[a, b, c, d]| ((a * 2 + b / 2) * 4 + c) * 5 + d),
        ];
        for (groups, total, of) in cases {
            let layout = Layout { cols: 5, bits: 4, groups };
            let mut seen = 0;
            for group in 0..total {
                let members: Vec<usize> = layout.members(group, len).flatten().collect();
                assert!(members.is_sorted() && !members.is_empty());
                assert!(members.iter().all(|&i| of(at(i)) == group), "{groups:?} {group}: {members:?}");
                seen += members.len();
            }
            assert_eq!(seen, len, "{groups:?}");
        }
    }
}
