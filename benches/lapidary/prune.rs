//! Pruning: `prune/{threshold,magnitude,apply}/{n}`.

use crate::{LENGTHS, measure, numbers};
use criterion::Criterion;
use lapidary::{Mask, Pruner, PrunerExt, prune::Magnitude};

pub(crate) fn all(c: &mut Criterion) {
    let pruners: [(&str, Box<dyn Pruner<f32>>, usize); 2] = [
        // Looked at once for NaN, once for the test.
        ("threshold", Box::new(Magnitude::threshold(0.1).unwrap()), 2),
        // Once for NaN, three times for the histogram of each digit, once for the mask.
        ("magnitude", Box::new(Magnitude::sparsity(0.9).unwrap()), 5),
    ];
    for (name, pruner, passes) in pruners {
        for n in LENGTHS {
            let values = numbers(n);
            let all = Mask::keep_all(&[n]).unwrap();
            let prune = || pruner.refine((&values).into(), &mut all.clone()).unwrap();
            measure(c, &format!("prune/{name}"), n, 4 * n * passes, prune);
        }
    }
    for n in LENGTHS {
        let mut values = numbers(n);
        let mask = Magnitude::sparsity(0.5).unwrap().mask(&values).unwrap();
        measure(c, "prune/apply", n, 8 * n + n / 8, || mask.apply(&mut values).unwrap());
    }
}
